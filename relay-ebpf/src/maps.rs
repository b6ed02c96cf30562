//! Every map of the program. Names, values and meaning are in `relay_common::fastpath`.

use core::mem::offset_of;

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray},
    macros::btf_map,
};
use relay_common::{
    fastpath::{
        Config, DEFAULT_MAX_SESSIONS, MAX_NEXT_HOPS, NextHopEntry, ReasonCount, SessionEntry, SessionStats,
        reason,
    },
    forward::{Maps, NextHopCopy, SessionCopy},
};
use relay_ebpf::{
    packet::now_ns,
    session::copy_session,
    values::{MAPPABLE, NO_PREALLOC, Words, find, read, words},
};

const SESSION_COUNT: usize = DEFAULT_MAX_SESSIONS as usize;
const REASON_COUNT: usize = reason::COUNT as usize;

/// Sizes and places in the values, in words.
const WORD: usize = size_of::<u64>();
const HOP_WORDS: usize = size_of::<NextHopEntry>() / WORD;
const VERSION: usize = offset_of!(NextHopEntry, version) / WORD;
const INTERFACE: usize = offset_of!(NextHopEntry, ifindex) / WORD;

#[btf_map]
static SESSIONS: HashMap<u32, SessionEntry, SESSION_COUNT, NO_PREALLOC> = HashMap::new();

#[btf_map]
static NEXTHOPS: Array<NextHopEntry, { MAX_NEXT_HOPS as usize }, MAPPABLE> = Array::new();

#[btf_map]
pub(crate) static LEG_STATS: Array<SessionStats, SESSION_COUNT, MAPPABLE> = Array::new();

#[btf_map]
pub(crate) static REASONS: PerCpuArray<ReasonCount, REASON_COUNT> = PerCpuArray::new();

#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();

/// The configuration that the daemon has set. Until then the map holds zeros, which mean disabled.
#[inline(always)]
pub(crate) fn config() -> Option<Config> {
    read(&CONFIG, 0)
}

/// The maps that the rules ask, and the clock.
pub(crate) struct Kernel;

impl Maps for Kernel {
    #[inline(always)]
    fn now_ns(&mut self) -> u64 {
        now_ns()
    }

    #[inline(always)]
    fn session(&mut self, vni: u32) -> Option<SessionCopy> {
        Some(copy_session(&find(&SESSIONS, vni)?, |_| ()))
    }

    #[inline(always)]
    fn next_hop(&mut self, number: u32) -> Option<NextHopCopy> {
        let words: Words<HOP_WORDS> = words(&NEXTHOPS, number)?;
        let copy = words.copy(|_| ());
        let version_again = words.get::<VERSION>();
        Some(NextHopCopy { entry: bytemuck::must_cast(copy), version_again })
    }

    #[inline(always)]
    fn interface(&mut self, number: u32) -> u32 {
        let words: Option<Words<HOP_WORDS>> = words(&NEXTHOPS, number);
        words.map_or(0, |words| {
            let [ifindex, _mtu]: [u32; 2] = bytemuck::must_cast(words.get::<INTERFACE>());
            ifindex
        })
    }
}

const _: () = assert!(VERSION == 0, "the copy reads it first");
const _: () = assert!(offset_of!(NextHopEntry, ifindex) % WORD == 0, "the first half of a word");
