//! The contract between the daemon and its XDP program: map names, map values, limits.
//!
//! Every value is `repr(C)` without hidden padding. Addresses and ports are byte arrays in network order, so
//! the same bytes mean the same for the program, the daemon and `bpftool map dump`.

pub mod reason;

use bytemuck::{Pod, Zeroable};

/// Version of the layouts in this file. It is part of the pin directory, so two layouts never share a map.
pub const SCHEMA: u32 = 1;

/// Map names, at most 15 characters, because the kernel stores no more.
pub mod map {
    /// HASH: VNI (`u32`, host order) to [`super::SessionEntry`].
    pub const SESSIONS: &str = "SESSIONS";
    /// ARRAY: stats slot to [`super::SessionStats`].
    pub const LEG_STATS: &str = "LEG_STATS";
    /// PERCPU_ARRAY: [`super::reason::XdpReason`] to [`super::ReasonCount`].
    pub const REASONS: &str = "REASONS";
    /// ARRAY of one: [`super::Config`].
    pub const CONFIG: &str = "CONFIG";
}

/// Name of the XDP program in the object and in `bpftool prog`.
pub const PROGRAM: &str = "relayd_xdp";

/// Size of the maps in sessions at compile time; the loader resizes them to `--relay-max-sessions`.
pub const DEFAULT_MAX_SESSIONS: u32 = 65_536;

/// Maximum age of the daemon's heartbeat in nanoseconds; with an older one the program passes every frame.
pub const HEARTBEAT_LIMIT_NS: u64 = 10_000_000_000;

/// One leg of a session as the program sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct LegEntry {
    /// The client's IP address; IPv4 as `::ffff:a.b.c.d`.
    pub remote_ip: [u8; 16],
    /// The relay address this client talks to; IPv4 as `::ffff:a.b.c.d`.
    pub local_ip: [u8; 16],
    /// The client's UDP port, network order.
    pub remote_port: [u8; 2],
    /// The relay port this client talks to, network order.
    pub local_port: [u8; 2],
    /// Largest IP packet, in bytes, that may leave towards this client.
    pub mtu: u32,
    /// Index of the interface that leads to this client.
    pub egress: u32,
    /// Link-layer address of the next hop towards this client.
    pub next_hop_mac: [u8; 6],
    /// Link-layer address of the egress interface.
    pub egress_mac: [u8; 6],
}

/// A bound session: exactly the values that the program needs to forward its packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SessionEntry {
    /// Counts the completed binds of the session, so that a reader can tell one binding from the next.
    pub generation: u64,
    /// CLOCK_MONOTONIC nanoseconds after which the program no longer forwards the session.
    pub expires_ns: u64,
    /// Index into `LEG_STATS`.
    pub stats_slot: u32,
    /// Always zero.
    pub reserved: u32,
    /// The two clients, in the order of their sorted disco keys.
    pub legs: [LegEntry; 2],
}

/// What the program counted for packets from one leg. It fills a cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct LegStats {
    /// CLOCK_MONOTONIC nanoseconds of the last forwarded packet from this leg; 0: none yet.
    pub last_seen_ns: u64,
    /// Packets forwarded from this leg.
    pub packets: u64,
    /// UDP payload bytes (Geneve header included) forwarded from this leg.
    pub bytes: u64,
    /// Fills the rest of the cache line.
    pub reserved: [u64; 5],
}

/// Both legs of one stats slot, in leg order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SessionStats {
    /// Same order as [`SessionEntry::legs`].
    pub legs: [LegStats; 2],
}

/// How often the program ended with one reason, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ReasonCount {
    /// Frames.
    pub packets: u64,
    /// Bytes of those frames, Ethernet header included.
    pub bytes: u64,
}

/// What the daemon tells the program at run time.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Config {
    /// CLOCK_MONOTONIC nanoseconds of the daemon's last heartbeat.
    pub heartbeat_ns: u64,
    /// 0: pass every frame (the kill switch). 1: forward bound sessions.
    pub enabled: u32,
    /// The relay's UDP port, network order.
    pub udp_port: [u8; 2],
    /// Always zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<LegEntry>() == 56);
const _: () = assert!(size_of::<SessionEntry>() == 136);
const _: () = assert!(size_of::<LegStats>() == 64);
const _: () = assert!(size_of::<SessionStats>() == 128);
const _: () = assert!(size_of::<Config>() == 16);
