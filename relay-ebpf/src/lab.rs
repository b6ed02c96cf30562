//! The contract between the lab's programs and the tests that load them: names, map values, limits.

use bytemuck::{Pod, Zeroable};
use relay_common::fastpath::{SessionEntry, Tag};

/// Passes every frame. A veth delivers frames that its peer sends with XDP_TX only while it has a native
/// program.
pub const PASS: &str = "lab_pass";
/// Recomputes the checksums of every frame that arrives and counts.
pub const CHECK: &str = "lab_check";
/// Makes frames out of templates and sends them out of an interface.
pub const GENERATE: &str = "lab_generate";
/// Reads a session while the test gives its element to another.
pub const REUSE: &str = "lab_reuse";
/// Only parses a frame, reads the clock and looks its session up: the least that any program must do.
pub const LOOK: &str = "lab_look";

/// Map names.
pub mod map {
    /// ARRAY of one: [`super::LabConfig`].
    pub const CONFIG: &str = "LAB_CONFIG";
    /// PERCPU_ARRAY: [`super::Checked`] to frames (`u64`).
    pub const CHECKED: &str = "LAB_CHECKED";
    /// PERCPU_ARRAY of [`super::VNI_SLOTS`]: VNI modulo its size to [`super::VniCount`].
    pub const VNIS: &str = "LAB_VNIS";
    /// ARRAY of two: [`super::Template`].
    pub const TEMPLATES: &str = "LAB_TEMPLATES";
    /// ARRAY of one: frames generated so far (`u64`).
    pub const GENERATED: &str = "LAB_GENERATED";
    /// HASH as the daemon's: VNI to session.
    pub const SESSIONS: &str = "LAB_SESSIONS";
    /// The same, with elements that are allocated beforehand.
    pub const PREALLOCATED: &str = "LAB_PREALLOC";
    /// ARRAY of one: [`super::ReuseTry`].
    pub const REUSE: &str = "LAB_REUSE";
    /// ARRAY of two, [`super::SIGNAL_HELD`] and [`super::SIGNAL_GO`]: the number of a try.
    pub const SIGNALS: &str = "LAB_SIGNALS";
    /// ARRAY of one: [`super::ReuseFound`].
    pub const FOUND: &str = "LAB_FOUND";
    /// ARRAY of one: the daemon's configuration.
    pub const RELAY: &str = "LAB_RELAY";
}

/// Entries of [`map::SESSIONS`] and [`map::PREALLOCATED`].
pub const REUSE_SESSIONS: u32 = 1024;
/// Set by the program: it holds the element in the try of this number.
pub const SIGNAL_HELD: u32 = 0;
/// Set by the test: the element was used again in the try of this number.
pub const SIGNAL_GO: u32 = 1;

/// One forced reuse.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ReuseTry {
    /// Its number, from 1.
    pub number: u64,
    /// The session to look up. In a session of the test every word is this number twice.
    pub vni: u32,
    /// The place of the copy at which the program waits, and whether it looks up in the map of elements that
    /// were allocated beforehand (1 in the top bit).
    pub place: u32,
}

/// The bit of [`ReuseTry::place`] that chooses the map.
pub const PREALLOCATED_BIT: u32 = 1 << 31;

/// What the program read in a try.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ReuseFound {
    /// The number of the try, if the test had used the element again when the program read it.
    pub number: u64,
    /// 1: the program's comparison accepted the copy.
    pub accepted: u64,
    /// The parts of the copy, in the order in which they were read.
    pub tail_before: Tag,
    /// The element.
    pub entry: SessionEntry,
    /// Read last.
    pub head_after: Tag,
}

/// Entries of [`map::VNIS`].
pub const VNI_SLOTS: u32 = 16;
/// Bytes of a template: Ethernet, IPv4, UDP and Geneve headers, then the sequence number.
pub const TEMPLATE_LEN: usize = 58;
/// Offset of the sequence number: eight bytes, big-endian, directly after the Geneve header.
pub const SEQUENCE_OFFSET: usize = 50;
/// Maximum bytes of a UDP datagram, with its header, whose checksum is recomputed.
pub const MAX_CHECKED: usize = 1508;

/// What the test tells the programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct LabConfig {
    /// Index of the interface on which the generator sends.
    pub egress: u32,
    /// The generator uses template `sequence & template_mask`: 0 for one template, 1 for two.
    pub template_mask: u32,
    /// 1: drop a UDP frame after counting it; 0: pass it on.
    pub drop: u32,
    /// Always zero.
    pub reserved: u32,
}

/// The first bytes of a generated frame. Both checksums are correct for sequence number zero and the body
/// that the test gives to the run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Template {
    /// Headers and eight zero bytes.
    pub bytes: [u8; TEMPLATE_LEN],
    /// Fills the value up to a multiple of eight.
    pub reserved: [u8; 6],
}

/// What the checker found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Checked {
    /// Both checksums are right.
    Good = 0,
    /// The IPv4 header checksum is wrong.
    BadIp = 1,
    /// The UDP checksum is wrong.
    BadUdp = 2,
    /// The IPv4 header checksum is right, and the datagram has no UDP checksum.
    NoChecksum = 3,
    /// Not a whole IPv4/UDP packet of at most [`MAX_CHECKED`] bytes of UDP: passed on unchecked.
    Other = 4,
}

impl Checked {
    /// How many results there are.
    pub const COUNT: u32 = 5;
}

/// Frames with right checksums, by VNI.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct VniCount {
    /// Frames.
    pub packets: u64,
    /// UDP payload bytes, Geneve header included.
    pub bytes: u64,
}
