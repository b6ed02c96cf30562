//! What the rules ask besides the frame: the clock, sessions and next hops. Elements of maps come as copies
//! together with what shows whether a copy can be trusted.

use crate::fastpath::{NextHopEntry, SessionEntry, Tag};

/// The clock and the maps, as the program in the kernel has them and as a test imitates them.
pub trait Maps {
    /// CLOCK_MONOTONIC, in nanoseconds.
    fn now_ns(&mut self) -> u64;

    /// A copy of the element that a lookup of `vni` finds.
    fn session(&mut self, vni: u32) -> Option<SessionCopy>;

    /// A copy of the element with that number; `None` if there is no such number.
    fn next_hop(&mut self, number: u32) -> Option<NextHopCopy>;

    /// The interface of the next hop with that number. It is part of one word, which is always whole. 0:
    /// there is no way now.
    fn interface(&mut self, number: u32) -> u32;
}

/// A copy of a session, made while the kernel may give the element to another session.
///
/// The kernel promises no order in which it writes the bytes of a value. So each of the two tags is read both
/// before and after the rest: whichever end is written first, one of the four readings is foreign if a part
/// of the rest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCopy {
    /// The last tag, read before all else.
    pub tail_before: Tag,
    /// The element, read from its first word to its last.
    pub entry: SessionEntry,
    /// The first tag, read after all else.
    pub head_after: Tag,
}

impl SessionCopy {
    /// A copy of an element that nobody changes meanwhile.
    pub fn undisturbed(entry: SessionEntry) -> Self {
        Self { tail_before: entry.tail, entry, head_after: entry.head }
    }

    /// Whether every byte belongs to one binding of the session `vni`.
    #[inline(always)]
    pub fn is_of(&self, vni: u32) -> bool {
        let [tag, a, b, c]: [u64; 4] =
            [self.entry.head, self.tail_before, self.entry.tail, self.head_after].map(bytemuck::must_cast);
        // The compiler for BPF makes a call that compares byte by byte out of a comparison of arrays.
        self.entry.head.vni == vni && (tag ^ a) | (tag ^ b) | (tag ^ c) == 0
    }
}

/// A copy of a next hop, made while the daemon may write the element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHopCopy {
    /// The element; its version was read first.
    pub entry: NextHopEntry,
    /// The version, read last.
    pub version_again: u64,
}

impl NextHopCopy {
    /// A copy of an element that nobody changes meanwhile.
    pub fn undisturbed(entry: NextHopEntry) -> Self {
        Self { entry, version_again: entry.version }
    }

    /// Whether nobody wrote the element while it was copied.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.entry.version == self.version_again && self.entry.version & 1 == 0
    }
}
