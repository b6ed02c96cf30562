//! The least that any program for these packets must do, to compare the daemon's program with: the same
//! parser and the same checks of the frame, the clock, and one lookup. It copies nothing, compares nothing,
//! writes nothing and counts nothing.

use aya_ebpf::bindings::xdp_action;
use relay_common::{
    fastpath::Config,
    forward::{Maps, NextHopCopy, SessionCopy, classify},
    net::Frame,
};
use relay_ebpf::{
    packet::now_ns,
    session::SESSION_WORDS,
    values::{Words, find, read},
};

use crate::maps::{LAB_RELAY, LAB_SESSIONS};

/// Remembers whether the session was found, and ends the rules there.
struct LookOnly {
    found: bool,
}

impl Maps for LookOnly {
    #[inline(always)]
    fn now_ns(&mut self) -> u64 {
        now_ns()
    }

    #[inline(always)]
    fn session(&mut self, vni: u32) -> Option<SessionCopy> {
        let element: Option<Words<SESSION_WORDS>> = find(&LAB_SESSIONS, vni);
        self.found = element.is_some();
        None
    }

    #[inline(always)]
    fn next_hop(&mut self, _: u32) -> Option<NextHopCopy> {
        None
    }

    #[inline(always)]
    fn interface(&mut self, _: u32) -> u32 {
        0
    }
}

/// Returns XDP_TX for a frame of a session, XDP_PASS for any other.
#[inline(always)]
pub(crate) fn look(frame: &impl Frame, ingress: u32) -> u32 {
    let mut maps = LookOnly { found: false };
    let Some(config): Option<Config> = read(&LAB_RELAY, 0) else { return xdp_action::XDP_PASS };
    let _ = classify(frame, &config, ingress, &mut maps);
    if maps.found { xdp_action::XDP_TX } else { xdp_action::XDP_PASS }
}
