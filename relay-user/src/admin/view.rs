//! The schema of the admin socket's answers, as JSON and as Rust types for Rust callers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use relay_common::key::{DiscoPublic, NodePublic};
use serde::{Deserialize, Serialize};

use crate::transport::tls::map_node::MapNode;

/// An error answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// The fault and the remedy.
    pub error: String,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's release.
    pub version: String,
    /// Seconds since the daemon's start.
    pub uptime_seconds: u64,
    /// The DERP service.
    pub derp: Derp,
    /// The certificate of the TLS listener, if there is one.
    pub certificate: Option<CertificateView>,
    /// The UDP relay, if there is one.
    pub udp: Option<UdpView>,
    /// The fast path.
    pub xdp: Xdp,
    /// Log lines that were dropped because they were not read in time.
    pub log_lines_dropped: usize,
    /// All userspace counters, by label.
    pub counters: BTreeMap<String, u64>,
}

/// The DERP service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Derp {
    /// The server's public key.
    pub key: NodePublic,
    /// Connected clients.
    pub clients: usize,
    /// Keys that other relays of the region have.
    #[serde(default)]
    pub remote_clients: usize,
    /// Links to other relays that are up.
    #[serde(default)]
    pub links: usize,
    /// Bytes that wait for all clients together, counted as on the wire.
    pub queued_bytes: u64,
    /// Bytes that may wait (`--queue-memory`).
    pub queue_memory_bytes: u64,
    /// Worker threads (`--workers`).
    pub workers: usize,
    /// Worker threads that the load needs now.
    pub workers_in_use: usize,
}

/// The certificate in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateView {
    /// The certificate's file.
    pub file: String,
    /// The key's file.
    pub key_file: String,
    /// Host names and addresses that the certificate is for.
    pub names: Vec<String>,
    /// Start of the validity, RFC 3339.
    pub not_before: String,
    /// End of the validity, RFC 3339.
    pub not_after: String,
    /// Whole days until the end of the validity; negative after that.
    pub days_left: i64,
    /// `valid`, `expires soon` (14 days), `expired` or `not yet valid`.
    pub state: String,
    /// `sha256-raw:` and the certificate's SHA-256: the `CertName` that pins it.
    pub pin: String,
    /// The relay as one node of a DERP map.
    pub derp_map_node: MapNode,
}

/// The UDP relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UdpView {
    /// The relay's disco key.
    pub key: DiscoPublic,
    /// The relay's port.
    pub port: u16,
    /// Allocated sessions.
    pub sessions: usize,
    /// Largest number of sessions.
    pub max_sessions: u32,
    /// How long the work on all sessions holds others up.
    #[serde(default)]
    pub control: ControlView,
    /// The addresses that allocations advertise, in their order.
    #[serde(default)]
    pub advertised: Vec<AdvertisedView>,
    /// The servers of `--relay-server-stun`, each once for each family that it is asked over.
    #[serde(default)]
    pub stun_servers: Vec<StunServerView>,
    /// The networks of `--relay-deny-file`, if there is one.
    #[serde(default)]
    pub denied: Option<DeniedView>,
}

/// The work on all sessions that goes on beside the packets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ControlView {
    /// Liveness and expiry.
    pub sweep: HeldView,
    /// Comparison with the BPF map.
    pub audit: HeldView,
    /// Walks that look up next hops again.
    pub next_hops: HeldView,
}

/// One kind of that work.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct HeldView {
    /// CPU nanoseconds of the last complete pass over all sessions.
    pub last_ns: u64,
    /// CPU nanoseconds of the longest hold of the table's lock so far.
    pub longest_hold_ns: u64,
    /// How often the lock was held since the start.
    #[serde(default)]
    pub holds: u64,
    /// How many of the holds took more than a millisecond of CPU time. Interrupts and other guests of a
    /// virtual machine's host count too, so a few say nothing.
    #[serde(default)]
    pub long_holds: u64,
}

/// An address that allocations advertise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AdvertisedView {
    /// Where clients send to.
    pub addr: SocketAddr,
    /// Where it comes from: a flag, an interface or a STUN server.
    pub from: String,
}

/// A STUN server that is asked where it sees the relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StunServerView {
    /// The server, as the operator named it.
    pub server: String,
    /// Its address; `null`: its name has not been found.
    pub addr: Option<SocketAddr>,
    /// Where it saw the relay; `null`: it has not answered, or not for five minutes.
    pub seen: Option<SocketAddr>,
    /// Seconds since that answer.
    pub seconds_ago: Option<u64>,
    /// Whether it left the last question without an answer.
    pub silent: bool,
}

/// The networks whose clients may not bind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeniedView {
    /// The file.
    pub file: String,
    /// Number of networks; those that overlap or touch count as one.
    pub networks: usize,
    /// Why the file could not be used when it was last read, so that an older list holds.
    #[serde(default)]
    pub refused: Option<String>,
}

/// The fast path, or the reason why there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Xdp {
    /// The program is attached.
    Active(Box<ActiveXdp>),
    /// No program is attached.
    Unavailable {
        /// The reason.
        unavailable: String,
    },
}

/// An attached program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActiveXdp {
    /// The interface that the program is attached to.
    pub interface: String,
    /// The mode in which it is attached.
    pub mode: String,
    /// Whether it forwards; `false`: it passes everything to userspace.
    pub enabled: bool,
    /// Whether it is attached; `false`: userspace carries everything.
    #[serde(default = "yes")]
    pub attached: bool,
    /// The interface: `up`, `down` or `no carrier`; if the program is not attached, why not.
    #[serde(default)]
    pub link: String,
    /// Seconds since that last changed.
    #[serde(default)]
    pub link_seconds: u64,
    /// How often the program was found no longer attached.
    #[serde(default)]
    pub losses: u64,
    /// What to look at if the program forwards nothing although userspace carries sessions.
    #[serde(default)]
    pub hint: Option<String>,
    /// The kernel's id of the program.
    pub program_id: u32,
    /// The directory of the pinned maps, if they are pinned.
    pub maps: Option<String>,
    /// Sessions the kernel should be forwarding, at the last audit.
    pub installed: u64,
    /// Entries that audits found wrong; must be zero.
    pub drift: u64,
    /// Writes to the map, and audits, that failed.
    pub failures: u64,
    /// Audits done.
    pub audits: u64,
    /// How often the program left by each exit.
    pub reasons: BTreeMap<String, PacketCount>,
}

/// What an answer of an older daemon means.
fn yes() -> bool {
    true
}

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCount {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One entry of `GET /v1/clients`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientView {
    /// The client's node key.
    pub key: NodePublic,
    /// The address that the client connected from.
    pub remote: SocketAddr,
    /// Whether packets for the key go to this connection.
    pub active: bool,
    /// Whether the client calls this relay its home.
    pub preferred: bool,
    /// Whether it holds the mesh key: another relay, or a tool of the operator.
    #[serde(default)]
    pub mesh_peer: bool,
    /// The protocol under the DERP frames: `tcp`, `tls1.2`, `tls1.3`.
    #[serde(default)]
    pub protocol: String,
    /// The label that the client gave itself; empty: none.
    #[serde(default)]
    pub app_name: String,
    /// Seconds since the login.
    pub connected_seconds: u64,
    /// Packets that the client sent.
    pub packets_in: u64,
    /// Payload bytes of the packets that the client sent.
    pub bytes_in: u64,
    /// Packets written to the client.
    pub packets_out: u64,
    /// Payload bytes of the packets written to the client.
    pub bytes_out: u64,
    /// Frames that wait for the client.
    pub queued_frames: usize,
    /// Bytes of these frames.
    pub queued_bytes: usize,
}

/// One entry of `GET /v1/sessions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionView {
    /// The session's virtual network identifier.
    pub vni: u32,
    /// Completed binds.
    pub generation: u64,
    /// Whether both legs are bound.
    pub bound: bool,
    /// Whether the kernel forwards the session.
    pub installed: bool,
    /// Seconds since the allocation.
    pub age_seconds: u64,
    /// The legs of the two clients.
    pub legs: [LegView; 2],
}

/// One side of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LegView {
    /// The client's disco key.
    pub client: DiscoPublic,
    /// The address at which the client is bound; `null`: no handshake yet.
    pub remote: Option<SocketAddr>,
    /// The relay address that the client talks to.
    pub local: Option<SocketAddr>,
    /// Packets from the client that userspace forwarded.
    pub packets: u64,
    /// UDP payload bytes of these packets.
    pub bytes: u64,
    /// Packets from the client that XDP forwarded.
    pub xdp_packets: u64,
    /// UDP payload bytes of these packets.
    pub xdp_bytes: u64,
    /// Seconds since the client's last packet or bind; `null`: neither.
    pub last_seen_seconds_ago: Option<f64>,
}
