//! "Attached, and nothing is ever forwarded": notices it and says what to look at.
//!
//! The program is only ever faster, so a program that forwards nothing goes unnoticed: userspace carries the
//! sessions, and they work.

use relay_common::fastpath::{ReasonCount, reason::XdpReason};

/// For so long userspace must have carried packets of sessions while the program forwarded none.
const PATIENCE_NS: u64 = 30_000_000_000;
/// So many packets, at least: the first packets of a session go through userspace.
const PACKETS: u64 = 100;

/// The exits of packets of bound sessions that were not forwarded.
const HELD_BACK: [XdpReason; 8] = [
    XdpReason::WrongInterface,
    XdpReason::OtherInterface,
    XdpReason::OtherMac,
    XdpReason::NoNextHop,
    XdpReason::TooBig,
    XdpReason::PartialChecksum,
    XdpReason::NextHopBusy,
    XdpReason::Recycled,
];

/// The packets counted at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    forwarded: u64,
    carried: u64,
    held_back: [u64; HELD_BACK.len()],
}

impl Reading {
    fn of(reasons: &[(XdpReason, ReasonCount)], carried: u64) -> Self {
        let count = |wanted: XdpReason| {
            let found = reasons.iter().find(|(reason, _)| *reason == wanted);
            found.map_or(0, |(_, count)| count.packets)
        };
        Self { forwarded: count(XdpReason::Forwarded), carried, held_back: HELD_BACK.map(count) }
    }
}

/// Follows the counters.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// The counters when the program last forwarded.
    base: Reading,
    last: Reading,
    /// When userspace was first seen to carry packets since then, CLOCK_MONOTONIC nanoseconds.
    since_ns: Option<u64>,
    stalled: Option<Hint>,
}

/// What to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// The program saw the packets and passed most of them for this reason.
    Reason(XdpReason),
    /// The program did not see the packets.
    Unseen,
}

impl Stall {
    /// Looks at the program's exits and at the packets that userspace has `carried`. `installed` counts the
    /// sessions that the program should forward; it is asked seldom. Returns a hint when it is new.
    pub(super) fn look(
        &mut self,
        now_ns: u64,
        reasons: &[(XdpReason, ReasonCount)],
        carried: u64,
        installed: impl FnOnce() -> usize,
    ) -> Option<Hint> {
        let reading = Reading::of(reasons, carried);
        let last = std::mem::replace(&mut self.last, reading);
        let moves = reading.carried != last.carried;
        if reading.forwarded != self.base.forwarded {
            *self = Self { base: reading, last: reading, ..Self::default() };
            return None;
        }
        if !moves || self.stalled.is_some() {
            return None;
        }
        let Some(since_ns) = self.since_ns else {
            (self.base, self.since_ns) = (last, Some(now_ns));
            return None;
        };
        let enough = now_ns.saturating_sub(since_ns) >= PATIENCE_NS
            && reading.carried.saturating_sub(self.base.carried) >= PACKETS;
        if !enough || installed() == 0 {
            return None;
        }
        let held_back = HELD_BACK.iter().zip(reading.held_back.iter().zip(self.base.held_back));
        let most = held_back.map(|(reason, (now, then))| (now.saturating_sub(then), *reason)).max_by_key(
            // Of equal counts the first in the list.
            |(count, reason)| (*count, std::cmp::Reverse(HELD_BACK.iter().position(|held| held == reason))),
        );
        self.stalled = Some(match most {
            Some((1.., reason)) => Hint::Reason(reason),
            _ => Hint::Unseen,
        });
        self.stalled
    }

    /// The hint, while it holds.
    pub(super) fn hint(&self) -> Option<Hint> {
        self.stalled
    }
}

impl Hint {
    /// The hint for an operator.
    pub(super) fn sentence(self, iface: &str) -> String {
        let look_at = match self {
            Self::Unseen => format!(
                "the clients' packets do not come in by {iface} as IPv4: name the interface that they come by \
                 (--xdp)"
            ),
            Self::Reason(XdpReason::WrongInterface) => format!(
                "packets come in by {iface}, but the route to their senders leads elsewhere: name the other \
                 interface (--xdp), or allow it (--xdp-any-ingress)"
            ),
            Self::Reason(XdpReason::OtherInterface) => format!(
                "the route to the other clients leads elsewhere than to {iface}: the program forwards only \
                 where both clients are behind the same interface"
            ),
            Self::Reason(XdpReason::NoNextHop) => {
                "the kernel knows no way to the clients now (`relayd inspect` shows the next hops)".to_owned()
            }
            Self::Reason(XdpReason::PartialChecksum) => format!(
                "the senders leave checksums to their device, as guests of this host do: turn that off there \
                 (`ethtool -K DEVICE tx off`), or do without XDP on {iface}"
            ),
            Self::Reason(reason) => format!("most packets of sessions are passed as {}", reason.label()),
        };
        format!("the XDP program forwards nothing while userspace carries sessions: {look_at}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn reasons(counts: &[(XdpReason, u64)]) -> Vec<(XdpReason, ReasonCount)> {
        counts.iter().map(|&(reason, packets)| (reason, ReasonCount { packets, bytes: 0 })).collect()
    }

    /// Looks once a second for `seconds` while userspace carries `rate` packets in each; returns the hints.
    fn follow(
        stall: &mut Stall,
        from: u64,
        seconds: u64,
        rate: u64,
        count: impl Fn(u64) -> Vec<(XdpReason, ReasonCount)>,
    ) -> Vec<Hint> {
        (from..from + seconds)
            .filter_map(|second| stall.look(second * SECOND, &count(second), second * rate, || 1))
            .collect()
    }

    #[test]
    fn packets_that_the_program_does_not_see_give_one_hint_until_it_forwards() {
        let mut stall = Stall::default();
        let nothing = |_| reasons(&[]);
        assert_eq!(follow(&mut stall, 1, 30, 10, nothing), []);
        assert_eq!(follow(&mut stall, 31, 100, 10, nothing), [Hint::Unseen], "said once");
        assert_eq!(stall.hint(), Some(Hint::Unseen));
        let forwards = |_| reasons(&[(XdpReason::Forwarded, 1)]);
        assert_eq!(follow(&mut stall, 131, 1, 10, forwards), []);
        assert_eq!(stall.hint(), None);
        assert_eq!(follow(&mut stall, 132, 100, 10, forwards), [Hint::Unseen], "and again");
    }

    #[test]
    fn the_hint_names_the_exit_that_most_packets_took_since_the_program_forwarded() {
        let mut stall = Stall::default();
        let counts = |second| {
            let sent = [(XdpReason::WrongInterface, second * 9), (XdpReason::TooBig, 10_000 + second)];
            reasons(&[&[(XdpReason::Forwarded, 7)][..], &sent].concat())
        };
        let hints = follow(&mut stall, 1, 100, 10, counts);
        assert_eq!(hints, [Hint::Reason(XdpReason::WrongInterface)]);
        assert!(hints[0].sentence("eth0").contains("--xdp-any-ingress"));
    }

    #[test]
    fn few_packets_no_session_and_a_program_that_forwards_give_none() {
        let nothing = |_: u64| reasons(&[]);
        assert_eq!(follow(&mut Stall::default(), 1, 90, 1, nothing), [], "few");
        assert_eq!(follow(&mut Stall::default(), 1, 200, 0, nothing), [], "none");
        let mut stall = Stall::default();
        for second in 1..200 {
            assert_eq!(stall.look(second * SECOND, &nothing(0), second * 50, || 0), None);
        }
        let forwards = |second| reasons(&[(XdpReason::Forwarded, second / 20)]);
        assert_eq!(follow(&mut Stall::default(), 1, 200, 50, forwards), [], "now and then");
    }

    #[test]
    fn the_first_packets_of_a_session_after_a_long_silence_give_none() {
        let mut stall = Stall::default();
        let nothing = reasons(&[]);
        for second in 1..4000 {
            assert_eq!(stall.look(second * SECOND, &nothing, 0, || 1), None);
        }
        assert_eq!(stall.look(4000 * SECOND, &nothing, 50_000, || 1), None);
        assert_eq!(stall.look(4001 * SECOND, &reasons(&[(XdpReason::Forwarded, 9)]), 50_010, || 1), None);
    }

    #[test]
    fn every_hint_names_what_to_look_at() {
        for hint in HELD_BACK.map(Hint::Reason).into_iter().chain([Hint::Unseen]) {
            let sentence = hint.sentence("eth0");
            assert!(sentence.len() > 80 && !sentence.contains("  "), "{sentence}");
        }
    }
}
