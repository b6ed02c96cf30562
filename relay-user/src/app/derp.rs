//! The DERP listener, its plain companion, and STUN: checked, then bound, then served.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::ServerConfig;
use time::OffsetDateTime;
use tokio::task::JoinSet;

use crate::admin;
use crate::cli::{CertMode, Serve, TlsRecords, address};
use crate::files::Limit;
use crate::listen::door::{Caps, Door};
use crate::listen::{self, Service, tcp};
use crate::observe::counters::Counter;
use crate::relay::Relay;
use crate::transport::tls::certificate::Facts;
use crate::transport::tls::files::{self, Certificate, CertificatePaths};
use crate::transport::tls::map_node::{MapNode, Ports};
use crate::transport::tls::{self, meta};
use crate::udp::socket::UdpSocket;
use crate::udp::stun;
use crate::workers::Pool;

/// derper's port in development mode.
const DEV_ADDR: &str = ":3340";

/// The port on which derper uses TLS by default.
const TLS_PORT: u16 = 443;

/// The checked settings from the command line; nothing is bound or written yet.
pub(super) struct Plan {
    addr: SocketAddr,
    companion: Option<u16>,
    stun: Option<u16>,
    tls: Option<Tls>,
}

/// The certificate to serve with.
struct Tls {
    files: CertificatePaths,
    hostname: String,
    /// The loaded certificate; `None`: it must be made.
    found: Option<(Certificate, Facts)>,
}

/// Sockets that are bound but do not accept yet.
pub(super) struct Listeners {
    derp: TcpListener,
    companion: Option<TcpListener>,
    /// Outer option: whether STUN is requested; inner option: whether it could be bound.
    stun: Option<Option<UdpSocket>>,
    door: Arc<Door>,
}

/// Checks addresses and flags, and the certificate if one exists.
pub(super) fn judge(serve: &Serve) -> anyhow::Result<Plan> {
    let default_addr = serve.addr == ":443";
    let addr = address::resolve(if serve.dev && default_addr { DEV_ADDR } else { &serve.addr })?;
    let with_tls = addr.port() == TLS_PORT || serve.certmode == CertMode::Manual;
    Ok(Plan {
        addr,
        companion: serve.http_port.0.filter(|_| with_tls),
        stun: serve.stun.then_some(serve.stun_port),
        tls: if with_tls { Some(Tls::judge(serve)?) } else { None },
    })
}

/// Binds all requested sockets.
pub(super) fn bind(serve: &Serve, plan: &Plan) -> anyhow::Result<Listeners> {
    let options =
        tcp::SocketOptions { keepalive_time: serve.tcp_keepalive_time, user_timeout: serve.tcp_user_timeout };
    let listen = |addr: SocketAddr, flag: &str| {
        tcp::listen(addr, &options).with_context(|| cannot("listen", addr, flag))
    };
    let derp = listen(plan.addr, "-a")?;
    let companion = plan.companion.map(|port| listen(at(plan.addr, port), "-http-port; -1 turns it off"));
    let stun = plan.stun.map(|port| stun_socket(at(plan.addr, port)));
    let door = Arc::new(Door::new(caps(serve)?));
    Ok(Listeners { derp, companion: companion.transpose()?, stun, door })
}

/// Binds STUN's socket. If that fails, DERP is served without STUN, as in derper; the failure is counted once
/// there are counters.
fn stun_socket(addr: SocketAddr) -> Option<UdpSocket> {
    let failed = |error: &std::io::Error| {
        tracing::warn!(%addr, %error, "no STUN: name another port with -stun-port, or turn it off with -stun=false");
    };
    UdpSocket::bind(addr).inspect_err(failed).ok()
}

fn caps(serve: &Serve) -> anyhow::Result<Caps> {
    let limit = Limit::get().context("cannot read the limit of open files (ulimit -n)")?;
    Ok(Caps {
        pending: serve.max_pending_logins.unwrap_or_else(|| Caps::default_pending(limit)),
        per_source: serve.max_pending_per_ip,
    })
}

/// The same host, including the scope, at another port.
fn at(mut addr: SocketAddr, port: u16) -> SocketAddr {
    addr.set_port(port);
    addr
}

fn cannot(what: &str, addr: SocketAddr, flag: &str) -> String {
    let rights = match addr.port() {
        1..1024 => "; ports under 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "",
    };
    format!(
        "cannot {what} on {addr} ({flag}): is it an address of this machine, and is the port free{rights}?"
    )
}

/// The service of the DERP listener, and its certificate.
pub(super) struct Served {
    /// For the DERP listener.
    pub(super) service: Service,
    /// For the admin socket.
    pub(super) certificate: Option<Arc<admin::ServedCertificate>>,
}

/// Makes the certificate if there is none, and the TLS configuration.
pub(super) fn secure(
    plan: Plan,
    records: TlsRecords,
    bound: &Listeners,
    relay: &Relay,
) -> anyhow::Result<Served> {
    let Some(tls) = plan.tls else { return Ok(Served { service: Service::Plain, certificate: None }) };
    let now = OffsetDateTime::now_utc();
    let (certificate, facts) = match tls.found {
        Some((mut certificate, facts)) => {
            files::finish(&mut certificate)?;
            (certificate, facts)
        }
        None => {
            let made = files::make(&tls.files, &tls.hostname, now)?;
            let facts = tls::judge(&made, &tls.hostname)?;
            (made, facts)
        }
    };
    let fresh = certificate.fresh;
    let meta = meta::certificate(&relay.public, now)?;
    let config: Arc<ServerConfig> = tls::server_config(certificate, meta, &tls.hostname, records)?;
    let port = |listener: &TcpListener| listener.local_addr().ok().map(|addr| addr.port());
    let place = Ports {
        derp: bound.derp.local_addr().context("the DERP listener has no address")?,
        companion: bound.companion.as_ref().and_then(port),
        stun: bound.stun.as_ref().and_then(Option::as_ref).map(|socket| socket.local().port()),
    };
    let node = MapNode::new(&tls.hostname, &facts, place);
    tracing::info!(
        file = %facts.files.crt.display(),
        names = %facts.names.join(","),
        until = %facts.not_after.date(),
        pin = %facts.pin,
        "{}",
        if fresh { "made a self-signed certificate" } else { "certificate" }
    );
    facts.report(now);
    tracing::info!("node for the DERP map: {}", node.to_json());
    let certificate = Arc::new(admin::ServedCertificate { facts, node });
    Ok(Served { service: Service::Tls(config), certificate: Some(certificate) })
}

/// Starts accepting and answering.
pub(super) fn start(
    bound: Listeners,
    service: Service,
    relay: &Arc<Relay>,
    pool: &Arc<Pool>,
    tasks: &mut JoinSet<()>,
) {
    let companion = bound.companion.map(|listener| (listener, Service::Companion));
    for (listener, service) in [(bound.derp, service)].into_iter().chain(companion) {
        let what = match &service {
            Service::Tls(_) => "DERP over TLS",
            Service::Plain => "DERP over plain TCP",
            Service::Companion => "HTTP",
        };
        if let Ok(addr) = listener.local_addr() {
            tracing::info!(%addr, what, "listening");
        }
        let door = Arc::clone(&bound.door);
        let serve = listen::serve(listener, service, door, Arc::clone(relay), Arc::clone(pool));
        tasks.spawn_on(serve, pool.nth(0));
    }
    if let Some(None) = &bound.stun {
        relay.counters.add(Counter::StunBindFailed, 1);
    }
    if let Some(socket) = bound.stun.flatten() {
        tracing::info!(addr = %socket.local(), what = "STUN", "listening");
        tasks.spawn(stun::serve(socket, Arc::clone(relay)));
    }
}

impl Tls {
    fn judge(serve: &Serve) -> anyhow::Result<Self> {
        if serve.certmode != CertMode::Manual {
            bail!(
                "-certmode letsencrypt and gcp are not built into this version of relayd: \
                 use -certmode manual with a certificate in -certdir"
            );
        }
        let dir = serve.certdir.clone().map_or_else(default_certdir, Ok)?;
        if dir.as_os_str().is_empty() {
            bail!("-certdir is empty; name the directory of the certificate, or leave the flag out");
        }
        let hostname = serve.hostname.clone();
        let files = CertificatePaths::new(&dir, &hostname);
        let found = match files::load(&files, &hostname)? {
            Some(certificate) => {
                let facts = tls::judge(&certificate, &hostname)?;
                Some((certificate, facts))
            }
            None => None,
        };
        Ok(Self { files, hostname, found })
    }
}

fn default_certdir() -> anyhow::Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let cache = cache.context("no cache directory to keep certificates in; name one with -certdir")?;
    Ok(cache.join("tailscale/derper-certs"))
}
