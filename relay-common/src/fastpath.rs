//! The contract between the daemon and its XDP program: map names, map values, limits.
//!
//! Every value is `repr(C)` without hidden padding. Addresses and ports are byte arrays in network order, so
//! the same bytes mean the same for the program, the daemon and `bpftool map dump`.

pub mod reason;

use bytemuck::{Pod, Zeroable};

/// Version of the layouts in this file. It is part of the pin directory, so two layouts never share a map.
pub const SCHEMA: u32 = 2;

/// Map names, at most 15 characters, because the kernel stores no more.
pub mod map {
    /// HASH: VNI (`u32`, host order) to [`super::SessionEntry`].
    pub const SESSIONS: &str = "SESSIONS";
    /// ARRAY, mapped into the daemon: next-hop number to [`super::NextHopEntry`].
    pub const NEXTHOPS: &str = "NEXTHOPS";
    /// ARRAY, mapped into the daemon: stats slot to [`super::SessionStats`].
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

/// Elements of `NEXTHOPS`: distinct neighbours, with the MTU towards each, that sessions can use at one time.
pub const MAX_NEXT_HOPS: u32 = 65_536;

/// Names one binding of one session. The kernel recycles the elements of a hash map under a running program,
/// so a value carries this at both ends: a copy whose ends differ, or name another VNI, is no session.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Tag {
    /// The session's VNI, host order.
    pub vni: u32,
    /// Counts the completed binds of the session, modulo 2^32.
    pub generation: u32,
}

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
    /// Index into `NEXTHOPS`: the way to this client.
    pub next_hop: u32,
}

/// A bound session: exactly the values that the program needs to forward its packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SessionEntry {
    /// First of the two tags.
    pub head: Tag,
    /// CLOCK_MONOTONIC nanoseconds after which the program no longer forwards the session.
    pub expires_ns: u64,
    /// Index into `LEG_STATS`.
    pub stats_slot: u32,
    /// Always zero.
    pub reserved: u32,
    /// The two clients, in the order of their sorted disco keys.
    pub legs: [LegEntry; 2],
    /// Last of the two tags; equal to the first.
    pub tail: Tag,
}

/// A way out: the interface, and the neighbour behind it that takes the packets on. The daemon writes an
/// element in place, so its version is read before and after the rest: if the two differ, or if the version
/// is odd or zero, the copy is not valid.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct NextHopEntry {
    /// Even: the element is whole. Odd: it is being written. 0: it was never written.
    pub version: u64,
    /// Index of the interface; 0: there is no way now, and userspace forwards.
    pub ifindex: u32,
    /// Largest IP packet, in bytes, that may leave this way.
    pub mtu: u32,
    /// Link-layer address of that interface.
    pub egress_mac: [u8; 6],
    /// Always zero.
    pub reserved: [u8; 2],
    /// Link-layer address of the neighbour.
    pub next_hop_mac: [u8; 6],
    /// Always zero.
    pub reserved_too: [u8; 2],
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
    /// 1: a packet may arrive by another interface than the one that leads to its sender. 0: such a packet
    /// passes to the kernel, whose `rp_filter` decides.
    pub any_ingress: u8,
    /// Always zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<LegEntry>() == 40);
const _: () = assert!(size_of::<SessionEntry>() == 112);
const _: () = assert!(size_of::<NextHopEntry>() == 32);
const _: () = assert!(size_of::<LegStats>() == 64);
const _: () = assert!(size_of::<SessionStats>() == 128);
const _: () = assert!(size_of::<Config>() == 16);
