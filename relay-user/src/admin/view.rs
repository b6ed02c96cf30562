//! What the admin socket answers, as JSON and as Rust types for those who ask from Rust: the schema.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use relay_common::key::{DiscoPublic, NodePublic};
use serde::{Deserialize, Serialize};

use crate::transport::tls::map_node::MapNode;

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
    pub certificate: Option<CertificateView>,
    /// The UDP relay, where there is one.
    pub udp: Option<UdpView>,
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
pub struct CertificateView {
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
pub struct UdpView {
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
    pub reasons: BTreeMap<String, PacketCount>,
}

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCount {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One of `GET /v1/clients`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientView {
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
pub struct SessionView {
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
    pub legs: [LegView; 2],
}

/// One side of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LegView {
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
