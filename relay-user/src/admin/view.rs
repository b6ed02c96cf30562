//! The answers of the admin socket, as JSON and as Rust types for those who ask from Rust.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay_common::fastpath::{ReasonCount, SessionStats};
use relay_common::key::{DiscoPublic, NodePublic};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Daemon;
use crate::log;
use crate::route::peer::Peer;
use crate::route::session::SessionRoute;
use crate::transport::tls::map_node::MapNode;

const SECOND_NS: u64 = 1_000_000_000;

/// An error answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, and what to do.
    pub error: String,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's release.
    pub version: String,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// The DERP service.
    pub derp: Derp,
    /// The certificate that TLS is served with, where there is TLS.
    pub certificate: Option<Certificate>,
    /// The UDP relay, where there is one.
    pub udp: Option<Udp>,
    /// The fast path.
    pub xdp: Xdp,
    /// Lines of the log that nobody took in time.
    pub log_lines_dropped: usize,
    /// Everything userspace has counted, by label.
    pub counters: BTreeMap<String, u64>,
}

/// The DERP service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Derp {
    /// The server's public key.
    pub key: NodePublic,
    /// Connected clients.
    pub clients: usize,
    /// Bytes that wait for all of them together, as they are on the wire.
    pub queued_bytes: u64,
    /// Bytes that may (`--queue-memory`).
    pub queue_memory_bytes: u64,
    /// Worker threads (`--workers`).
    pub workers: usize,
    /// Those that the load needs now.
    pub workers_in_use: usize,
}

/// The certificate in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Certificate {
    /// Its file.
    pub file: String,
    /// Its key's file.
    pub key_file: String,
    /// Host names and addresses that it is for.
    pub names: Vec<String>,
    /// Valid from, RFC 3339.
    pub not_before: String,
    /// Valid until, RFC 3339.
    pub not_after: String,
    /// Whole days until then; negative when it is over.
    pub days_left: i64,
    /// `valid`, `expires soon` (14 days), `expired` or `not yet valid`.
    pub state: String,
    /// `sha256-raw:` and its SHA-256: the `CertName` that pins it.
    pub pin: String,
    /// The relay as one node of a DERP map.
    pub derp_map_node: MapNode,
}

/// The UDP relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Udp {
    /// Its disco key.
    pub key: DiscoPublic,
    /// Its port.
    pub port: u16,
    /// Allocated sessions.
    pub sessions: usize,
    /// The most there may be.
    pub max_sessions: u32,
}

/// The fast path, or why there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Xdp {
    /// The program is attached.
    Active(Box<ActiveXdp>),
    /// It is not.
    Unavailable {
        /// Why.
        unavailable: String,
    },
}

/// An attached program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActiveXdp {
    /// Where it is attached.
    pub interface: String,
    /// How.
    pub mode: String,
    /// It forwards; `false`: it has been told to pass everything.
    pub enabled: bool,
    /// The kernel's id of it.
    pub program_id: u32,
    /// Where its maps are pinned, if they are.
    pub maps: Option<String>,
    /// Sessions the kernel should be forwarding, at the last audit.
    pub installed: u64,
    /// Entries that audits found wrong; must be zero.
    pub drift: u64,
    /// Writes to the map that failed.
    pub failures: u64,
    /// Audits done.
    pub audits: u64,
    /// How often the program left by each exit.
    pub reasons: BTreeMap<String, Count>,
}

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One of `GET /v1/clients`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Client {
    /// Its node key.
    pub key: NodePublic,
    /// Where it connected from.
    pub remote: SocketAddr,
    /// Packets for the key go to this connection.
    pub active: bool,
    /// The client calls this relay its home.
    pub preferred: bool,
    /// The protocol under its frames: `tcp`, `tls1.2`, `tls1.3`.
    #[serde(default)]
    pub protocol: String,
    /// The label it gave itself; empty: none.
    #[serde(default)]
    pub app_name: String,
    /// Seconds since its login.
    pub connected_seconds: u64,
    /// Packets it sent.
    pub packets_in: u64,
    /// Payload bytes of those.
    pub bytes_in: u64,
    /// Packets written to it.
    pub packets_out: u64,
    /// Payload bytes of those.
    pub bytes_out: u64,
    /// Frames that wait for it.
    pub queued_frames: usize,
    /// Bytes of those.
    pub queued_bytes: usize,
}

/// One of `GET /v1/sessions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Its virtual network identifier.
    pub vni: u32,
    /// Completed binds.
    pub generation: u64,
    /// Both legs are bound.
    pub bound: bool,
    /// The kernel forwards it.
    pub installed: bool,
    /// Seconds since its allocation.
    pub age_seconds: u64,
    /// Its two clients.
    pub legs: [Leg; 2],
}

/// One side of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leg {
    /// The client's disco key.
    pub client: DiscoPublic,
    /// Where it is bound; `null`: no handshake yet.
    pub remote: Option<SocketAddr>,
    /// The relay address it talks to.
    pub local: Option<SocketAddr>,
    /// Packets from it that userspace forwarded.
    pub packets: u64,
    /// UDP payload bytes of those.
    pub bytes: u64,
    /// Packets from it that XDP forwarded.
    pub xdp_packets: u64,
    /// UDP payload bytes of those.
    pub xdp_bytes: u64,
    /// Seconds since its last packet, or its bind; `null`: neither.
    pub last_seen_seconds_ago: Option<f64>,
}

impl Status {
    pub(super) fn of(daemon: &Daemon, now_ns: u64) -> Self {
        let relay = &daemon.relay;
        let udp = daemon.udp.as_ref().map(|udp| Udp {
            key: udp.relay.public(),
            port: udp.endpoints.port,
            sessions: relay.router.session_count(),
            max_sessions: udp.limits.max_sessions,
        });
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now_ns.saturating_sub(daemon.started_ns) / SECOND_NS,
            derp: Derp {
                key: relay.public,
                clients: relay.router.client_count(),
                queued_bytes: relay.budget.held(),
                queue_memory_bytes: relay.budget.most(),
                workers: daemon.pool.count(),
                workers_in_use: daemon.pool.active(),
            },
            certificate: daemon.certificate.as_deref().map(Certificate::of),
            udp,
            xdp: Xdp::of(daemon),
            log_lines_dropped: log::dropped_lines(),
            counters: relay.counters.all().map(|(label, n)| (label.to_owned(), n)).collect(),
        }
    }
}

impl Certificate {
    fn of(served: &super::Certificate) -> Self {
        let (facts, now) = (&served.facts, OffsetDateTime::now_utc());
        // Every date that X.509 can hold has an RFC 3339 form.
        let date = |date: OffsetDateTime| date.format(&Rfc3339).unwrap_or_default();
        Self {
            file: facts.files.crt.display().to_string(),
            key_file: facts.files.key.display().to_string(),
            names: facts.names.clone(),
            not_before: date(facts.not_before),
            not_after: date(facts.not_after),
            days_left: facts.days_left(now),
            state: facts.state(now).to_string(),
            pin: facts.pin.clone(),
            derp_map_node: served.node.clone(),
        }
    }
}

impl Xdp {
    pub(super) fn of(daemon: &Daemon) -> Self {
        let fast = match &daemon.fast {
            Ok(fast) => fast,
            Err(reason) => return Self::Unavailable { unavailable: reason.clone() },
        };
        let health = daemon.relay.router.kernel_health();
        let count = |ReasonCount { packets, bytes }| Count { packets, bytes };
        let reasons =
            fast.reasons().inspect_err(|error| tracing::warn!(%error, "cannot read the XDP counters"));
        let reasons = reasons.unwrap_or_default().into_iter();
        Self::Active(Box::new(ActiveXdp {
            interface: fast.iface().to_owned(),
            mode: fast.mode().to_string(),
            enabled: fast.is_enabled(),
            program_id: fast.program_id(),
            maps: fast.maps_dir().map(|dir| dir.display().to_string()),
            installed: daemon.relay.router.installed_count() as u64,
            drift: health.drift,
            failures: health.failures,
            audits: health.audits,
            reasons: reasons.map(|(reason, n)| (reason.label().to_owned(), count(n))).collect(),
        }))
    }
}

impl Client {
    pub(super) fn of(peer: &Peer, now_ms: u64) -> Self {
        let queued = peer.mailbox.depth();
        let connected_ms = peer.timers.connected_ms.load(Ordering::Relaxed);
        Self {
            key: peer.key,
            remote: peer.remote,
            active: peer.is_active(),
            preferred: peer.timers.preferred.load(Ordering::Relaxed) != 0,
            protocol: peer.about.protocol.to_owned(),
            app_name: peer.about.app_name.to_string(),
            connected_seconds: now_ms.saturating_sub(connected_ms) / 1000,
            packets_in: peer.counters.packets_in.load(Ordering::Relaxed),
            bytes_in: peer.counters.bytes_in.load(Ordering::Relaxed),
            packets_out: peer.counters.packets_out.load(Ordering::Relaxed),
            bytes_out: peer.counters.bytes_out.load(Ordering::Relaxed),
            queued_frames: queued.frames,
            queued_bytes: queued.bytes,
        }
    }
}

impl Session {
    pub(super) fn of(
        session: &crate::route::sessions::Session,
        route: &Arc<SessionRoute>,
        kernel: Option<&SessionStats>,
        now_ns: u64,
    ) -> Self {
        let last_seen_ns = route.last_seen_ns(kernel);
        let leg = |index: usize| {
            let (state, counters) = (&session.legs[index], &route.side.counters[index]);
            let seen = last_seen_ns[index].max(state.last_seen_ns);
            let ago = (seen > 0).then(|| now_ns.saturating_sub(seen) as f64 / SECOND_NS as f64);
            Leg {
                client: session.clients[index],
                remote: state.path.map(|path| path.remote),
                local: state.path.map(|path| path.local),
                packets: counters.packets.load(Ordering::Relaxed),
                bytes: counters.bytes.load(Ordering::Relaxed),
                xdp_packets: kernel.map_or(0, |stats| stats.legs[index].packets),
                xdp_bytes: kernel.map_or(0, |stats| stats.legs[index].bytes),
                last_seen_seconds_ago: ago,
            }
        };
        Self {
            vni: session.vni,
            generation: session.generation,
            bound: session.is_bound(),
            installed: session.installed.is_some(),
            age_seconds: now_ns.saturating_sub(session.allocated_ns) / SECOND_NS,
            legs: [leg(0), leg(1)],
        }
    }
}
