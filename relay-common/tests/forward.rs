//! The forwarding rules on the host: every reason, every truncated frame, and the arithmetic of the rewrite.

use std::{collections::BTreeSet, net::SocketAddrV4};

use proptest::prelude::*;
use relay_common::{
    fastpath::{
        HEARTBEAT_LIMIT_NS, NextHopEntry, SessionEntry, Tag,
        reason::{Verdict, XdpReason},
    },
    forward::{
        Decision, Maps, NextHopCopy, SessionCopy, apply,
        sample::{self, StillMaps},
    },
    net::{
        Frame as _, SliceFrame,
        checksum::full,
        datagram::{Datagram, fill_checksums, udp_checksum_is_right},
    },
};

const NOW: u64 = 1_000_000_000_000;
const INTERFACE: u32 = 4;

/// Applies the rules to a case's frame, with the clock at [`NOW`].
fn run(case: &mut sample::Case) -> Result<Decision, XdpReason> {
    let sample::Case { frame, config, session, next_hops, .. } = case;
    let mut maps = StillMaps { now_ns: NOW, session: *session, next_hops: *next_hops };
    apply(&mut SliceFrame(frame), config, INTERFACE, &mut maps)
}

/// Applies the rules to a frame of the sample session.
fn run_frame(frame: &mut [u8]) -> Result<Decision, XdpReason> {
    let mut maps = StillMaps::new(NOW, INTERFACE);
    apply(&mut SliceFrame(frame), &sample::config(NOW), INTERFACE, &mut maps)
}

fn reason(outcome: Result<Decision, XdpReason>) -> XdpReason {
    outcome.err().unwrap_or(XdpReason::Forwarded)
}

#[test]
fn every_case_takes_its_exit_and_only_a_forwarded_frame_changes() {
    for mut case in sample::cases(NOW, INTERFACE) {
        let before = case.frame.clone();
        assert_eq!(reason(run(&mut case)), case.reason, "{}", case.name);
        let changed = case.frame != before;
        assert_eq!(changed, case.reason == XdpReason::Forwarded, "{}", case.name);
    }
}

#[test]
fn there_is_a_case_for_every_reason() {
    let covered: BTreeSet<_> = sample::cases(NOW, INTERFACE).iter().map(|case| case.reason).collect();
    assert_eq!(covered, XdpReason::ALL.iter().copied().collect());
}

#[test]
fn what_leaves_is_the_packet_the_relay_would_have_built_itself() {
    for (leg, length) in [(0, 0), (1, 1), (0, 2), (1, 999), (0, 1400)] {
        let payload = sample::geneve(sample::VNI, &vec![0xab; length]);
        let mut frame = sample::frame(leg, &payload);
        let decision = run_frame(&mut frame).expect("forwarded");
        assert_eq!(frame, sample::forwarded(leg, &payload));
        assert_eq!(usize::from(decision.from_leg), leg);
        assert_eq!(usize::from(decision.payload_length), payload.len());
        assert_eq!((decision.stats_slot, decision.now_ns), (sample::STATS_SLOT, NOW));
    }
}

#[test]
fn every_runt_of_a_good_frame_is_truncated_or_of_bad_length() {
    let whole = sample::frame(0, &sample::geneve(sample::VNI, &[1; 14]));
    assert_eq!(whole.len(), 64);
    for length in 0..=64 {
        let outcome = run_frame(&mut whole[..length].to_vec());
        let expected = match length {
            0..42 => XdpReason::Truncated,
            42..64 => XdpReason::BadLength,
            _ => XdpReason::Forwarded,
        };
        assert_eq!(reason(outcome), expected, "{length} bytes");
    }
}

/// Maps that must not be asked.
struct Unasked;

impl Maps for Unasked {
    fn now_ns(&mut self) -> u64 {
        panic!("the clock was read")
    }

    fn session(&mut self, _: u32) -> Option<SessionCopy> {
        panic!("a session was looked up")
    }

    fn next_hop(&mut self, _: u32) -> Option<NextHopCopy> {
        panic!("a next hop was read")
    }

    fn interface(&mut self, _: u32) -> u32 {
        panic!("a next hop was read")
    }
}

#[test]
fn the_clock_and_the_maps_are_not_asked_about_a_frame_that_is_none_of_ours() {
    let mut frame = sample::frame(0, b"not Geneve");
    let outcome = apply(&mut SliceFrame(&mut frame), &sample::config(NOW), INTERFACE, &mut Unasked);
    assert_eq!(outcome, Err(XdpReason::NotGeneve));
}

/// Maps that the kernel and the daemon write while they are read.
struct Disturbed {
    still: StillMaps,
    tail_before: Tag,
    head_after: Tag,
    version_again: u64,
}

impl Maps for Disturbed {
    fn now_ns(&mut self) -> u64 {
        self.still.now_ns
    }

    fn session(&mut self, vni: u32) -> Option<SessionCopy> {
        let Self { tail_before, head_after, .. } = *self;
        Some(SessionCopy { tail_before, head_after, ..self.still.session(vni)? })
    }

    fn next_hop(&mut self, number: u32) -> Option<NextHopCopy> {
        Some(NextHopCopy { version_again: self.version_again, ..self.still.next_hop(number)? })
    }

    fn interface(&mut self, number: u32) -> u32 {
        self.still.interface(number)
    }
}

#[test]
fn what_was_written_while_it_was_read_is_not_used() {
    let still = StillMaps::new(NOW, INTERFACE);
    let tag = still.session.head;
    let (other_session, other_binding) =
        (Tag { vni: tag.vni + 1, ..tag }, Tag { generation: tag.generation + 1, ..tag });
    let outcome = |[tail_before, head_after]: [Tag; 2], version_again| {
        let mut maps = Disturbed { still, tail_before, head_after, version_again };
        let mut frame = sample::frame(0, &sample::geneve(sample::VNI, &[]));
        let config = sample::config(NOW);
        reason(apply(&mut SliceFrame(&mut frame), &config, INTERFACE, &mut maps))
    };
    assert_eq!(outcome([tag, tag], 2), XdpReason::Forwarded);
    for other in [other_session, other_binding] {
        assert_eq!(outcome([other, tag], 2), XdpReason::Recycled);
        assert_eq!(outcome([tag, other], 2), XdpReason::Recycled);
    }
    for version in [3, 4] {
        assert_eq!(outcome([tag, tag], version), XdpReason::NextHopBusy);
    }
}

#[test]
fn a_heartbeat_is_fresh_up_to_its_limit_and_a_session_lives_until_its_expiry() {
    let at = |now_ns| {
        let mut frame = sample::frame(0, &sample::geneve(sample::VNI, &[]));
        let session = SessionEntry { expires_ns: NOW, ..sample::session() };
        let mut maps = StillMaps { session, ..StillMaps::new(now_ns, INTERFACE) };
        let config = sample::config(NOW - HEARTBEAT_LIMIT_NS);
        reason(apply(&mut SliceFrame(&mut frame), &config, INTERFACE, &mut maps))
    };
    assert_eq!(at(NOW - 1), XdpReason::Forwarded);
    assert_eq!(at(NOW), XdpReason::Expired);
    assert_eq!(at(NOW + 1), XdpReason::HeartbeatStale);
}

#[test]
fn a_right_checksum_that_looks_partial_is_told_from_a_partial_one_at_every_length() {
    // Around the chunks in which the sum is computed.
    for length in [2, 3, 111, 112, 113, 126, 127, 239, 240, 241, 1400, 4095, 65_490, 65_491] {
        let body: Vec<u8> = (0..length).map(|at: usize| (at * 7) as u8).collect();
        let right = sample::looks_partial(&body);
        let next_hops = sample::next_hops(INTERFACE).map(|hop| NextHopEntry { mtu: 65_535, ..hop });
        let outcome = |frame: &mut [u8]| {
            let mut maps = StillMaps { next_hops, ..StillMaps::new(NOW, INTERFACE) };
            reason(apply(&mut SliceFrame(frame), &sample::config(NOW), INTERFACE, &mut maps))
        };
        let mut forwarded = right.clone();
        assert_eq!(outcome(&mut forwarded), XdpReason::Forwarded, "{length} bytes");
        assert!(udp_checksum_is_right(&forwarded), "{length} bytes");
        let mut partial = right;
        *partial.last_mut().expect("not empty") ^= 1;
        assert_eq!(outcome(&mut partial), XdpReason::PartialChecksum, "{length} bytes");
    }
}

#[test]
fn only_forwarded_is_sent_and_only_an_expired_ttl_is_dropped() {
    for reason in XdpReason::ALL {
        let expected = match reason {
            XdpReason::Forwarded => Verdict::Tx,
            XdpReason::TtlExpired => Verdict::Drop,
            _ => Verdict::Pass,
        };
        assert_eq!(reason.verdict(), expected, "{reason:?}");
    }
}

fn address() -> impl Strategy<Value = SocketAddrV4> {
    (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port))
}

/// A session between random addresses, and a datagram from its first client.
fn any_session() -> impl Strategy<Value = (SessionEntry, Vec<u8>)> {
    let addresses = (address(), address(), address(), address());
    let header = (any::<u8>(), any::<u16>(), 2..=255u8, proptest::collection::vec(any::<u8>(), 0..64));
    (addresses, header).prop_map(|((client, relay, other, relay_for_other), (tos, id, ttl, body))| {
        let session = SessionEntry {
            legs: [
                sample::leg(client, relay, sample::NEXT_HOPS[0]),
                sample::leg(other, relay_for_other, sample::NEXT_HOPS[1]),
            ],
            ..sample::session()
        };
        let datagram = Datagram {
            source_mac: [2; 6],
            destination_mac: sample::RELAY_MAC,
            source: client,
            destination: relay,
            tos,
            id,
            ttl,
            payload: &sample::geneve(sample::VNI, &body),
        };
        (session, datagram.to_frame())
    })
}

/// Applies the rules with `session` in the map and the frame's destination port as the relay's port.
fn apply_to(frame: &mut [u8], session: &SessionEntry) -> Result<Decision, XdpReason> {
    let mut frame = SliceFrame(frame);
    let udp_port = *frame.get::<2>(36).expect("a whole UDP header");
    let config = relay_common::fastpath::Config { udp_port, ..sample::config(NOW) };
    let mut maps = StillMaps { session: *session, ..StillMaps::new(NOW, INTERFACE) };
    apply(&mut frame, &config, INTERFACE, &mut maps)
}

proptest! {
    #[test]
    fn a_rewritten_frame_has_the_checksums_of_a_full_recompute((session, mut frame) in any_session()) {
        prop_assert!(apply_to(&mut frame, &session).is_ok());
        let mut recomputed = frame.clone();
        fill_checksums(&mut recomputed);
        prop_assert_eq!(&frame, &recomputed);
        prop_assert_ne!(&frame[40..42], &[0, 0]);
    }

    #[test]
    fn a_wrong_udp_checksum_leaves_as_wrong((session, mut frame) in any_session(), damage in 1..0xffffu16) {
        let wrong = u16::from_be_bytes([frame[40], frame[41]]).wrapping_add(damage);
        // Zero means that there is no checksum, and all ones is the other way to write zero.
        prop_assume!(wrong != 0 && wrong != 0xffff);
        frame[40..42].copy_from_slice(&wrong.to_be_bytes());
        prop_assume!(!udp_checksum_is_right(&frame));
        if apply_to(&mut frame, &session).is_ok() {
            prop_assert!(!udp_checksum_is_right(&frame));
        }
    }

    #[test]
    fn a_datagram_without_a_checksum_leaves_without((session, mut frame) in any_session()) {
        frame[40..42].fill(0);
        prop_assert!(apply_to(&mut frame, &session).is_ok());
        prop_assert_eq!(&frame[40..42], &[0, 0]);
        prop_assert_eq!(full(&frame[14..34]), 0);
    }

    #[test]
    fn nothing_but_the_rewritten_fields_changes((session, frame) in any_session()) {
        let mut after = frame.clone();
        if let Ok(decision) = apply_to(&mut after, &session) {
            prop_assert_eq!(&after[12..22], &frame[12..22], "type, TOS, length, ID, fragment bits");
            prop_assert_eq!(after[22], frame[22] - 1, "TTL");
            prop_assert_eq!(after[23], frame[23], "protocol");
            prop_assert_eq!(&after[38..40], &frame[38..40], "UDP length");
            prop_assert_eq!(&after[42..], &frame[42..], "payload");
            prop_assert_eq!(&after[..6], &decision.next_hop_mac);
            prop_assert_eq!(&after[6..12], &decision.egress_mac);
            prop_assert_eq!(&after[26..30], &decision.source.ip);
            prop_assert_eq!(&after[30..34], &decision.destination.ip);
            prop_assert_eq!(&after[34..36], &decision.source.port);
            prop_assert_eq!(&after[36..38], &decision.destination.port);
        }
    }

    #[test]
    fn any_bytes_take_some_exit_and_change_only_if_forwarded(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut frame = bytes.clone();
        let outcome = run_frame(&mut frame);
        prop_assert!(outcome.is_ok() || frame == bytes);
    }

    #[test]
    fn a_damaged_frame_takes_some_exit_and_changes_only_if_forwarded(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        refill in any::<bool>(),
    ) {
        let mut frame = sample::frame(1, &sample::geneve(sample::VNI, &[3; 40]));
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.truncate(frame.len() - cut.index(20));
        if refill {
            fill_checksums(&mut frame);
        }
        let before = frame.clone();
        let outcome = run_frame(&mut frame);
        prop_assert!(outcome.is_ok() || frame == before);
    }
}
