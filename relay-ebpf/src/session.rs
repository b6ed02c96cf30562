//! Copies a session out of its element in the map, which the kernel may give to another session meanwhile.

use core::mem::offset_of;

use relay_common::{fastpath::SessionEntry, forward::SessionCopy};

use crate::values::Words;

/// Words of a session.
pub const SESSION_WORDS: usize = size_of::<SessionEntry>() / size_of::<u64>();
const HEAD: usize = offset_of!(SessionEntry, head) / size_of::<u64>();
const TAIL: usize = offset_of!(SessionEntry, tail) / size_of::<u64>();

const _: () = assert!(HEAD == 0 && TAIL == SESSION_WORDS - 1, "the tags are at both ends");

/// Reads the last tag, then all words in their order, then the first tag again.
///
/// `pause` is called between the readings, with their number from 0: a lab holds the program there, while the
/// element is used again.
#[inline(always)]
pub fn copy_session(element: &Words<SESSION_WORDS>, pause: impl Fn(usize)) -> SessionCopy {
    pause(0);
    let tail_before = bytemuck::must_cast(element.get::<TAIL>());
    let words = element.copy(|at| pause(at + 1));
    pause(SESSION_WORDS + 1);
    let head_after = bytemuck::must_cast(element.get::<HEAD>());
    SessionCopy { tail_before, entry: bytemuck::must_cast(words), head_after }
}

/// Numbers that [`copy_session`] passes to `pause` are below this.
pub const PAUSES: usize = SESSION_WORDS + 2;
