//! The UDP relay and its fast path.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use rand_core::{OsRng, RngCore};
use relay_common::key::DiscoPrivate;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::access::deny::DenyList;
use crate::admin;
use crate::cli::{Serve, XdpMode};
use crate::fastpath::nexthop::NextHops;
use crate::fastpath::{FastPath, Mode, XdpOptions};
use crate::relay::Relay;
use crate::route::sessions::Limits;
use crate::udp::discovery::Discovery;
use crate::udp::endpoints::{Endpoints, Named};
use crate::udp::relay::UdpRelay;
use crate::udp::service::{Family, UdpService};
use crate::udp::socket::SocketPair;
use crate::workers::Pool;
use crate::{clock, upkeep};

/// Bound legs that may wait for their next hop; the refresh timer finds any further ones.
const WAITING_LEGS: usize = 1024;

/// Checks the requirements of XDP, and reads the list of denied networks, before anything is bound or
/// written.
pub(super) fn judge(serve: &Serve) -> anyhow::Result<Arc<DenyList>> {
    if let Some(iface) = &serve.xdp {
        FastPath::judge(iface)?;
    }
    let denied = serve.relay_deny_file.clone().map(DenyList::load).transpose()?.unwrap_or_default();
    if let Some(file) = denied.file() {
        tracing::info!(file = %file.display(), networks = denied.len(), "denied networks");
    }
    Ok(Arc::new(denied))
}

/// Binds the relay's sockets, one pair per worker.
pub(super) fn bind(serve: &Serve, workers: usize) -> anyhow::Result<Option<Vec<SocketPair>>> {
    let Some(port) = serve.relay_server_port else { return Ok(None) };
    let pairs = SocketPair::bind_all(port, workers);
    pairs.map(Some).with_context(|| {
        format!("cannot bind UDP port {port} (--relay-server-port); stop what uses it, or name another")
    })
}

/// The addresses to advertise, and the task that keeps them up to date.
pub(super) fn discovery(pairs: &[SocketPair], serve: &Serve) -> (Arc<Endpoints>, Discovery) {
    let with_v6 = pairs.iter().any(|pair| pair.v6.is_some());
    let named = Named {
        fixed: serve.relay_server_static_endpoints.clone(),
        given: serve.advertise.iter().map(|given| (given.ip, given.port)).collect(),
        port: port(pairs),
        with_v6,
    };
    let fixed = named.fixed.iter().map(SocketAddr::ip).chain(named.given.iter().map(|(ip, _)| *ip));
    if let Some(ip) = fixed.into_iter().find(IpAddr::is_ipv6)
        && !with_v6
    {
        tracing::warn!(%ip, "advertising an IPv6 address as told, though the relay has no IPv6 socket");
    }
    let mut servers: Vec<Arc<str>> = Vec::new();
    for server in &serve.relay_server_stun {
        if !servers.iter().any(|other| **other == **server) {
            servers.push(server.as_str().into());
        }
    }
    let endpoints = Arc::new(Endpoints::new(named));
    let discovery = Discovery::new(Arc::clone(&endpoints), &servers, with_v6);
    (endpoints, discovery)
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

/// What handshakes are judged by.
pub(super) struct Secret {
    /// The relay's own key.
    pub(super) disco: DiscoPrivate,
    /// Whose clients may not bind.
    pub(super) denied: Arc<DenyList>,
}

/// Starts the upkeep; returns the data that [`serve`] and the admin socket need.
pub(super) async fn start(
    Secret { disco, denied }: Secret,
    (endpoints, discovery): (Arc<Endpoints>, &Discovery),
    limits: Limits,
    relay: &Arc<Relay>,
    fast: Option<&Arc<FastPath>>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<(Arc<UdpService>, admin::UdpParts)> {
    let mut secret = [0; 32];
    OsRng.fill_bytes(&mut secret);
    let udp = Arc::new(UdpRelay::new(disco, secret, clock::monotonic_ns()).denying(denied));
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
    let awaited = discovery.awaited();
    let service = Arc::new(UdpService { udp: Arc::clone(&udp), relay: Arc::clone(relay), bound, awaited });
    Ok((service, admin::UdpParts { relay: udp, endpoints, limits }))
}

/// Serves the sockets; each worker has a pair of them. The first pair also asks the STUN servers.
pub(super) fn serve(
    pairs: Vec<SocketPair>,
    service: &Arc<UdpService>,
    discovery: Discovery,
    pool: &Pool,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    tracing::info!(port = port(&pairs), sockets = pairs.len(), what = "UDP relay", "listening");
    let mut discovery = Some(discovery);
    for (number, pair) in pairs.into_iter().enumerate() {
        let worker = pool.nth(number);
        let pair = {
            let _entered = worker.enter();
            Arc::new(pair.rehome().context("cannot give the relay's UDP sockets to a worker")?)
        };
        if let Some(discovery) = discovery.take() {
            tasks.spawn(discovery.run(Arc::clone(&pair)));
        }
        let families = [Some(Family::V4), pair.v6.as_ref().map(|_| Family::V6)];
        for family in families.into_iter().flatten() {
            tasks.spawn_on(Arc::clone(service).serve(Arc::clone(&pair), family), worker);
        }
    }
    Ok(())
}
