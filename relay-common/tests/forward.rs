//! The forwarding rules on the host: every reason, every truncated frame, and the arithmetic of the rewrite.

use std::{collections::BTreeSet, net::SocketAddrV4};

use proptest::prelude::*;
use relay_common::{
    fastpath::{
        HEARTBEAT_LIMIT_NS, SessionEntry,
        reason::{Verdict, XdpReason},
    },
    forward::{Decision, apply, sample},
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
    let sample::Case { frame, config, session, .. } = case;
    let find = |vni| (vni == sample::VNI).then_some(&*session);
    apply(&mut SliceFrame(frame), config, INTERFACE, || NOW, find)
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
        let session = sample::session(INTERFACE);
        let decision =
            apply(&mut SliceFrame(&mut frame), &sample::config(NOW), INTERFACE, || NOW, |_| Some(&session))
                .expect("forwarded");
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
    let session = sample::session(INTERFACE);
    for length in 0..=64 {
        let mut frame = whole[..length].to_vec();
        let outcome =
            apply(&mut SliceFrame(&mut frame), &sample::config(NOW), INTERFACE, || NOW, |_| Some(&session));
        let expected = match length {
            0..42 => XdpReason::Truncated,
            42..64 => XdpReason::BadLength,
            _ => XdpReason::Forwarded,
        };
        assert_eq!(reason(outcome), expected, "{length} bytes");
    }
}

#[test]
fn the_clock_and_the_map_are_not_asked_about_a_frame_that_is_none_of_ours() {
    let mut frame = sample::frame(0, b"not Geneve");
    let outcome = apply(
        &mut SliceFrame(&mut frame),
        &sample::config(NOW),
        INTERFACE,
        || panic!("the clock was read"),
        |_| panic!("the map was read"),
    );
    assert_eq!(outcome, Err(XdpReason::NotGeneve));
}

#[test]
fn a_heartbeat_is_fresh_up_to_its_limit_and_a_session_lives_until_its_expiry() {
    let session = SessionEntry { expires_ns: NOW, ..sample::session(INTERFACE) };
    let at = |now| {
        let mut frame = sample::frame(0, &sample::geneve(sample::VNI, &[]));
        reason(apply(
            &mut SliceFrame(&mut frame),
            &sample::config(NOW - HEARTBEAT_LIMIT_NS),
            INTERFACE,
            || now,
            |_| Some(&session),
        ))
    };
    assert_eq!(at(NOW - 1), XdpReason::Forwarded);
    assert_eq!(at(NOW), XdpReason::Expired);
    assert_eq!(at(NOW + 1), XdpReason::HeartbeatStale);
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
                sample::leg(client, relay, [2; 6], INTERFACE),
                sample::leg(other, relay_for_other, [4; 6], INTERFACE),
            ],
            ..sample::session(INTERFACE)
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
    apply(&mut frame, &config, INTERFACE, || NOW, |_| Some(session))
}

proptest! {
    #[test]
    fn a_rewritten_frame_has_the_checksums_of_a_full_recompute((session, mut frame) in any_session()) {
        // One frame in 65,536 looks as if its checksum was left to the device.
        match apply_to(&mut frame, &session) {
            Ok(_) => {
                let mut recomputed = frame.clone();
                fill_checksums(&mut recomputed);
                prop_assert_eq!(&frame, &recomputed);
                prop_assert_ne!(&frame[40..42], &[0, 0]);
            }
            Err(reason) => prop_assert_eq!(reason, XdpReason::PartialChecksum),
        }
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
        let session = sample::session(INTERFACE);
        let mut frame = bytes.clone();
        let outcome =
            apply(&mut SliceFrame(&mut frame), &sample::config(NOW), INTERFACE, || NOW, |_| Some(&session));
        prop_assert!(outcome.is_ok() || frame == bytes);
    }

    #[test]
    fn a_damaged_frame_takes_some_exit_and_changes_only_if_forwarded(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        refill in any::<bool>(),
    ) {
        let session = sample::session(INTERFACE);
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
        let outcome =
            apply(&mut SliceFrame(&mut frame), &sample::config(NOW), INTERFACE, || NOW, |_| Some(&session));
        prop_assert!(outcome.is_ok() || frame == before);
    }
}
