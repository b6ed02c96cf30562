//! Values of array maps as the programs see them: the daemon and every CPU may write them at any time, so each
//! number is an atomic that is read and written whole, without any order between them.
//!
//! An addition is a read and a write. Two CPUs that add to the same number at once may lose one addition; that
//! costs less than a locked one for each packet.

use core::{
    mem::offset_of,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use relay_common::fastpath::{Config, LegStats, SessionStats};

use crate::lab::LabConfig;

/// [`Config`], which the daemon writes.
#[repr(C)]
pub struct SharedConfig {
    heartbeat_ns: AtomicU64,
    enabled: AtomicU32,
    udp_port: AtomicU16,
    reserved: AtomicU16,
}

/// [`LegStats`], which the program writes.
#[repr(C)]
pub struct SharedLegStats {
    last_seen_ns: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    reserved: [AtomicU64; 5],
}

/// [`SessionStats`], which the program writes.
#[repr(C)]
pub struct SharedSessionStats {
    /// Both legs, in leg order.
    pub legs: [SharedLegStats; 2],
}

/// [`LabConfig`], which the test writes.
#[repr(C)]
pub struct SharedLabConfig {
    egress: AtomicU32,
    template_mask: AtomicU32,
    drop: AtomicU32,
    reserved: AtomicU32,
}

impl SharedConfig {
    /// The configuration of now. Its values may be of two writes of the daemon; each is one that it wrote.
    #[inline(always)]
    pub fn read(&self) -> Config {
        Config {
            heartbeat_ns: self.heartbeat_ns.load(Relaxed),
            enabled: self.enabled.load(Relaxed),
            udp_port: self.udp_port.load(Relaxed).to_ne_bytes(),
            reserved: self.reserved.load(Relaxed).to_ne_bytes(),
        }
    }
}

impl SharedLegStats {
    /// Adds a packet of `bytes` bytes that was forwarded at `now_ns`.
    #[inline(always)]
    pub fn note(&self, now_ns: u64, bytes: u64) {
        self.last_seen_ns.store(now_ns, Relaxed);
        add(&self.packets, 1);
        add(&self.bytes, bytes);
    }
}

impl SharedLabConfig {
    /// The configuration of now.
    #[inline(always)]
    pub fn read(&self) -> LabConfig {
        LabConfig {
            egress: self.egress.load(Relaxed),
            template_mask: self.template_mask.load(Relaxed),
            drop: self.drop.load(Relaxed),
            reserved: self.reserved.load(Relaxed),
        }
    }
}

/// Adds to a number that only this CPU should write now; returns what it was before.
#[inline(always)]
pub fn add(number: &AtomicU64, more: u64) -> u64 {
    let before = number.load(Relaxed);
    number.store(before.wrapping_add(more), Relaxed);
    before
}

/// Two types with the same size, alignment and places of these fields.
macro_rules! same_layout {
    ($shared:ty, $plain:ty: $($field:ident),+) => {
        const _: () = {
            assert!(size_of::<$shared>() == size_of::<$plain>());
            assert!(align_of::<$shared>() == align_of::<$plain>());
            $(assert!(offset_of!($shared, $field) == offset_of!($plain, $field));)+
        };
    };
}

same_layout!(SharedConfig, Config: heartbeat_ns, enabled, udp_port, reserved);
same_layout!(SharedLegStats, LegStats: last_seen_ns, packets, bytes, reserved);
same_layout!(SharedSessionStats, SessionStats: legs);
same_layout!(SharedLabConfig, LabConfig: egress, template_mask, drop, reserved);
