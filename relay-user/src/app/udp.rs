//! The UDP relay and its fast path.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use rand_core::{OsRng, RngCore};
use relay_common::key::DiscoPrivate;
use tokio::task::JoinSet;

use crate::access::deny::DenyList;
use crate::admin;
use crate::cli::{Serve, XdpMode};
use crate::fastpath::next_hop_map::NextHopMap;
use crate::fastpath::{FastPath, Mode, XdpOptions};
use crate::relay::Relay;
use crate::route::sessions::Limits;
use crate::threads::event_loop::EventLoop;
use crate::udp::discovery::Discovery;
use crate::udp::endpoints::{Endpoints, Named};
use crate::udp::relay::UdpRelay;
use crate::udp::service::{Family, Post, UdpService};
use crate::udp::socket::{SocketOptions, SocketPair};
use crate::upkeep::next_hops;
use crate::workers::Pool;
use crate::{clock, upkeep};

/// Checks the requirements of the sockets and of XDP, and reads the list of denied networks, before anything
/// is bound or written.
pub(super) fn judge(serve: &Serve) -> anyhow::Result<Arc<DenyList>> {
    options(serve).judge().with_context(|| {
        format!(
            "cannot mark packets with {:#x} (--relay-server-mark); run relayd as root or with \
             CAP_NET_ADMIN, or leave the flag out",
            serve.relay_server_mark
        )
    })?;
    if let Some(iface) = &serve.xdp {
        FastPath::judge(iface, mode(serve))?;
    }
    let denied = serve.relay_deny_file.clone().map(DenyList::load).transpose()?.unwrap_or_default();
    if let Some(file) = denied.file() {
        tracing::info!(file = %file.display(), networks = denied.len(), "denied networks");
    }
    Ok(Arc::new(denied))
}

fn mode(serve: &Serve) -> Mode {
    match serve.xdp_mode {
        XdpMode::Native => Mode::Native,
        XdpMode::Generic => Mode::Generic,
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
        mode: mode(serve),
        bpf_dir: serve.bpf_dir.clone(),
        max_sessions: serve.relay_max_sessions,
        udp_port,
        any_ingress: serve.xdp_any_ingress,
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

/// What the relay is made of.
pub(super) struct Plan {
    /// What handshakes are judged by.
    pub(super) secret: Secret,
    /// The addresses to advertise, and the port that all sockets share.
    pub(super) endpoints: Arc<Endpoints>,
    /// The limits of its sessions.
    pub(super) limits: Limits,
    /// The fast path with its map of ways out, if there is one.
    pub(super) fast: Option<(Arc<FastPath>, NextHopMap)>,
    /// `SO_MARK` of the sockets; 0: none.
    pub(super) mark: u32,
}

/// The running relay.
pub(super) struct Started {
    /// What [`serve`] needs.
    pub(super) service: Arc<UdpService>,
    /// What the admin socket needs.
    pub(super) about: admin::UdpParts,
    /// The search for next hops, if there is a fast path; it ends when this is dropped.
    pub(super) hops: Option<EventLoop>,
}

/// Starts the upkeep.
pub(super) fn start(
    plan: Plan,
    discovery: &Discovery,
    relay: &Arc<Relay>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<Started> {
    let Plan { secret: Secret { disco, denied }, endpoints, limits, fast, mark } = plan;
    let mut secret = [0; 32];
    OsRng.fill_bytes(&mut secret);
    let udp = Arc::new(UdpRelay::new(disco, secret, clock::monotonic_ns()).denying(denied));
    let (mut hops, mut bound) = (None, None);
    match fast {
        Some((fast, map)) => {
            let setup = next_hops::Setup { map, port: endpoints.port, mark };
            let started = next_hops::start(setup, Arc::clone(relay));
            let (thread, announce, ended) =
                started.context("cannot follow the kernel's routing for --xdp; leave --xdp out")?;
            tasks.spawn(ended);
            tasks.spawn(upkeep::heartbeat(Arc::clone(relay), fast));
            tasks.spawn(upkeep::audits(Arc::clone(relay)));
            (hops, bound) = (Some(thread), Some(announce));
        }
        None => tracing::info!("no --xdp: UDP sessions run in userspace"),
    }
    tasks.spawn(upkeep::sessions(Arc::clone(relay), Arc::clone(&udp)));
    let awaited = discovery.awaited();
    let service = Arc::new(UdpService { udp: Arc::clone(&udp), relay: Arc::clone(relay), bound, awaited });
    Ok(Started { service, about: admin::UdpParts { relay: udp, endpoints, limits }, hops })
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
        let post = {
            let _entered = worker.enter();
            let pair = pair.rehome().context("cannot give the relay's UDP sockets to a worker")?;
            Arc::new(Post::new(pair))
        };
        if let Some(discovery) = discovery.take() {
            tasks.spawn(discovery.run(Arc::clone(&post.pair)));
        }
        let families = [Some(Family::V4), post.pair.v6.as_ref().map(|_| Family::V6)];
        for family in families.into_iter().flatten() {
            tasks.spawn_on(Arc::clone(service).serve(Arc::clone(&post), family), worker);
        }
    }
    Ok(())
}
