//! Forces what happens once in millions of packets: the element that a lookup found is given to another
//! session while the program reads it.
//!
//! The program holds the element at a place of the copy that the test names, says so, and waits for the test
//! to remove the session and to install others. It writes down what it read and whether it would use it; the
//! copy and the comparison are those of the daemon's program.

use aya_ebpf::bindings::xdp_action;
use relay_common::forward::SessionCopy;
use relay_ebpf::{
    lab::{PREALLOCATED_BIT, ReuseFound, ReuseTry, SIGNAL_GO, SIGNAL_HELD},
    packet::repeat,
    session::{SESSION_WORDS, copy_session},
    values::{Words, find, read, words},
};

use crate::maps::{LAB_FOUND, LAB_PREALLOC, LAB_REUSE, LAB_SESSIONS, LAB_SIGNALS};

/// Looks at the test's signal, at most: some tens of milliseconds.
const PATIENCE: u32 = 1 << 23;

const FOUND_WORDS: usize = size_of::<ReuseFound>() / size_of::<u64>();

/// Makes one try; returns the action to leave the program with.
#[inline(always)]
pub(crate) fn reuse() -> Option<u32> {
    let ReuseTry { number, vni, place } = read(&LAB_REUSE, 0)?;
    let element: Words<SESSION_WORDS> = match place & PREALLOCATED_BIT {
        0 => find(&LAB_SESSIONS, vni)?,
        _ => find(&LAB_PREALLOC, vni)?,
    };
    let place = (place & !PREALLOCATED_BIT) as usize;
    let copy = copy_session(&element, |at| {
        if at == place {
            wait(number);
        }
    });
    if signal(SIGNAL_GO) != number {
        return Some(xdp_action::XDP_DROP);
    }
    let SessionCopy { tail_before, entry, head_after } = copy;
    let accepted = u64::from(copy.is_of(vni));
    let found: Words<FOUND_WORDS> = words(&LAB_FOUND, 0)?;
    found.set_all(bytemuck::must_cast(ReuseFound { number, accepted, tail_before, entry, head_after }));
    Some(xdp_action::XDP_PASS)
}

/// Says that the element is held, and waits until the test has used it again.
#[inline(never)]
fn wait(number: u64) {
    let Some(held) = words::<_, 1, 2, 0>(&LAB_SIGNALS, SIGNAL_HELD) else { return };
    held.set::<0>(number);
    repeat(PATIENCE, || signal(SIGNAL_GO) != number);
}

#[inline(always)]
fn signal(which: u32) -> u64 {
    words::<_, 1, 2, 0>(&LAB_SIGNALS, which).map_or(0, |signal| signal.get::<0>())
}
