//! The UDP relay and its fast path.

use std::sync::Arc;

use anyhow::Context;
use rand_core::{OsRng, RngCore};
use relay_common::key::DiscoPrivate;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin;
use crate::cli::{Serve, XdpMode};
use crate::fastpath::nexthop::NextHops;
use crate::fastpath::{FastPath, Mode, XdpOptions};
use crate::relay::Relay;
use crate::route::sessions::Limits;
use crate::udp::endpoints::Endpoints;
use crate::udp::relay::UdpRelay;
use crate::udp::service::{Family, Post, UdpService};
use crate::udp::socket::{SocketOptions, SocketPair};
use crate::workers::Pool;
use crate::{clock, upkeep};

/// Bound legs that may wait for their next hop; the refresh timer finds any further ones.
const WAITING_LEGS: usize = 1024;

/// Checks the requirements of the sockets and of XDP before anything is bound or written.
pub(super) fn judge(serve: &Serve) -> anyhow::Result<()> {
    options(serve).judge().with_context(|| {
        format!(
            "cannot mark packets with {:#x} (--relay-server-mark); run relayd as root or with \
             CAP_NET_ADMIN, or leave the flag out",
            serve.relay_server_mark
        )
    })?;
    match &serve.xdp {
        Some(iface) => Ok(FastPath::judge(iface).map(|_| ())?),
        None => Ok(()),
    }
}

/// Binds the relay's sockets, one pair per worker.
pub(super) fn bind(serve: &Serve, workers: usize) -> anyhow::Result<Option<Vec<SocketPair>>> {
    let Some(port) = serve.relay_server_port else { return Ok(None) };
    let pairs = SocketPair::bind_all(port, workers, &options(serve));
    pairs.map(Some).with_context(|| {
        format!("cannot bind UDP port {port} (--relay-server-port); stop what uses it, or name another")
    })
}

fn options(serve: &Serve) -> SocketOptions {
    SocketOptions { trains: serve.udp_offload, mark: serve.relay_server_mark }
}

/// The port that all pairs share.
pub(super) fn port(pairs: &[SocketPair]) -> u16 {
    pairs.first().map_or(0, |pair| pair.v4.local().port())
}

/// Attaches the program if requested; otherwise returns the reason why userspace forwards everything.
pub(super) fn fast_path(
    serve: &Serve,
    pairs: Option<&[SocketPair]>,
) -> anyhow::Result<Result<FastPath, String>> {
    let port = pairs.map(port);
    let (Some(iface), Some(udp_port)) = (serve.xdp.clone(), port) else {
        return Ok(Err("no --xdp; UDP sessions run in userspace".to_owned()));
    };
    let options = XdpOptions {
        iface,
        mode: match serve.xdp_mode {
            XdpMode::Native => Mode::Native,
            XdpMode::Generic => Mode::Generic,
        },
        bpf_dir: serve.bpf_dir.clone(),
        max_sessions: serve.relay_max_sessions,
        udp_port,
    };
    let fast = FastPath::start(&options)?;
    tracing::info!(
        iface = fast.iface(),
        mode = %fast.mode(),
        program = fast.program_id(),
        maps = %fast.maps_dir().map_or_else(|| "not pinned".into(), |dir| dir.to_string_lossy()),
        "XDP attached"
    );
    Ok(Ok(fast))
}

/// Starts the upkeep; returns the data that [`serve`] and the admin socket need.
pub(super) async fn start(
    port: u16,
    serve: &Serve,
    disco: DiscoPrivate,
    limits: Limits,
    relay: &Arc<Relay>,
    fast: Option<&Arc<FastPath>>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<(Arc<UdpService>, admin::UdpParts)> {
    let mut secret = [0; 32];
    OsRng.fill_bytes(&mut secret);
    let udp = Arc::new(UdpRelay::new(disco, secret, clock::monotonic_ns()));
    let mut bound = None;
    match fast {
        Some(fast) => {
            let (sender, receiver) = mpsc::channel(WAITING_LEGS);
            bound = Some(sender);
            let hops =
                NextHops::new().await.context("cannot ask the kernel for next hops; leave --xdp out")?;
            let changes = hops.watch().context("cannot watch the kernel's routes; leave --xdp out")?;
            tasks.spawn(upkeep::next_hops(Arc::clone(relay), hops, changes, receiver));
            tasks.spawn(upkeep::kernel(Arc::clone(relay), Arc::clone(fast)));
        }
        None => tracing::info!("no --xdp: UDP sessions run in userspace"),
    }
    tasks.spawn(upkeep::sessions(Arc::clone(relay), Arc::clone(&udp)));
    let service = Arc::new(UdpService { udp: Arc::clone(&udp), relay: Arc::clone(relay), bound });
    let endpoints = Endpoints { fixed: serve.relay_server_static_endpoints.clone(), port };
    Ok((service, admin::UdpParts { relay: udp, endpoints, limits }))
}

/// Serves the sockets; each worker has a pair of them.
pub(super) fn serve(
    pairs: Vec<SocketPair>,
    service: &Arc<UdpService>,
    pool: &Pool,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    tracing::info!(port = port(&pairs), sockets = pairs.len(), what = "UDP relay", "listening");
    for (number, pair) in pairs.into_iter().enumerate() {
        let worker = pool.nth(number);
        let post = {
            let _entered = worker.enter();
            let pair = pair.rehome().context("cannot give the relay's UDP sockets to a worker")?;
            Arc::new(Post::new(pair))
        };
        let families = [Some(Family::V4), post.pair.v6.as_ref().map(|_| Family::V6)];
        for family in families.into_iter().flatten() {
            tasks.spawn_on(Arc::clone(service).serve(Arc::clone(&post), family), worker);
        }
    }
    Ok(())
}
