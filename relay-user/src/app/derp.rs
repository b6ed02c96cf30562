//! The DERP listener, its plain companion, and STUN.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::listen_addr;
use crate::cli::{CertMode, Serve};
use crate::listen::door::{Caps, Door};
use crate::listen::files::Limit;
use crate::listen::{self, Service, tcp};
use crate::observe::counters::Counter;
use crate::relay::Relay;
use crate::tls::{self, files, meta};
use crate::udp::socket::UdpSocket;
use crate::udp::stun;

/// derper's port in development mode.
const DEV_ADDR: &str = ":3340";

/// The port on which derper speaks TLS without being told.
const TLS_PORT: u16 = 443;

/// Bound, but not yet accepting.
pub(super) struct Listeners {
    tcp: Vec<(TcpListener, Service)>,
    stun: Option<UdpSocket>,
    door: Arc<Door>,
}

/// Binds all that is asked for.
pub(super) fn bind(serve: &Serve, relay: &Relay) -> anyhow::Result<Listeners> {
    let default_addr = serve.addr == ":443";
    let addr = listen_addr(if serve.dev && default_addr { DEV_ADDR } else { &serve.addr })?;
    let with_tls = addr.port() == TLS_PORT || serve.certmode == CertMode::Manual;
    let options =
        tcp::Options { keepalive_time: serve.tcp_keepalive_time, user_timeout: serve.tcp_user_timeout };
    let listen = |addr: SocketAddr, flag: &str| {
        tcp::listen(addr, &options).with_context(|| format!("cannot listen on {addr} ({flag})"))
    };
    let service = if with_tls { Service::Tls(tls_config(serve, relay)?) } else { Service::Plain };
    let mut bound = vec![(listen(addr, "-a")?, service)];
    if with_tls && serve.http_port != -1 {
        let port = u16::try_from(serve.http_port).ok();
        let port =
            port.with_context(|| format!("-http-port {} is no port; -1 turns it off", serve.http_port))?;
        bound.push((
            listen(SocketAddr::new(addr.ip(), port), "-http-port; -1 turns it off")?,
            Service::Companion,
        ));
    }
    Ok(Listeners {
        tcp: bound,
        stun: stun_socket(serve, addr, relay),
        door: Arc::new(Door::new(caps(serve)?)),
    })
}

fn caps(serve: &Serve) -> anyhow::Result<Caps> {
    let limit = Limit::get().context("cannot read the limit of open files (ulimit -n)")?;
    Ok(Caps {
        pending: serve.max_pending_logins.unwrap_or_else(|| Caps::default_pending(limit)),
        per_source: serve.max_pending_per_ip,
    })
}

/// Starts accepting and answering.
pub(super) fn start(listeners: Listeners, relay: &Arc<Relay>, tasks: &mut JoinSet<()>) {
    for (listener, service) in listeners.tcp {
        let what = match &service {
            Service::Tls(_) => "DERP over TLS",
            Service::Plain => "DERP over plain TCP",
            Service::Companion => "HTTP",
        };
        if let Ok(addr) = listener.local_addr() {
            tracing::info!(%addr, what, "listening");
        }
        let door = Arc::clone(&listeners.door);
        tasks.spawn(listen::serve(listener, service, door, Arc::clone(relay)));
    }
    if let Some(socket) = listeners.stun {
        tracing::info!(addr = %socket.local(), what = "STUN", "listening");
        tasks.spawn(stun::serve(socket, Arc::clone(relay)));
    }
}

fn tls_config(serve: &Serve, relay: &Relay) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    if serve.certmode != CertMode::Manual {
        bail!(
            "-certmode letsencrypt and gcp are not built into this version of relayd: \
             use -certmode manual with a certificate in -certdir"
        );
    }
    let now = OffsetDateTime::now_utc();
    let dir = serve.certdir.clone().map_or_else(default_certdir, Ok)?;
    let certificate = files::load_or_make(&dir, &serve.hostname, now)?;
    if certificate.fresh {
        let pin = certificate.fingerprint();
        let dir = dir.display();
        tracing::info!(%dir, "made a self-signed certificate; DERP map: CertName sha256-raw:{pin}");
    }
    let meta = meta::certificate(&relay.public, now)?;
    tls::server_config(certificate, meta, &serve.hostname, serve.tls_records)
        .with_context(|| format!("certificate in {} (--certdir)", dir.display()))
}

fn default_certdir() -> anyhow::Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let cache = cache.context("no cache directory to keep certificates in; name one with -certdir")?;
    Ok(cache.join("tailscale/derper-certs"))
}

/// DERP is served without STUN if that cannot be bound, as derper does.
fn stun_socket(serve: &Serve, addr: SocketAddr, relay: &Relay) -> Option<UdpSocket> {
    let addr = serve.stun.then(|| SocketAddr::new(addr.ip(), serve.stun_port))?;
    let failed = |error: &std::io::Error| {
        relay.counters.add(Counter::StunBindFailed, 1);
        tracing::warn!(%addr, %error, "no STUN: name another port with -stun-port, or turn it off with -stun=false");
    };
    UdpSocket::bind(addr).inspect_err(failed).ok()
}
