//! A stream gives the same frames however it is cut, and the deframer holds no buffer between frames.

use super::*;
use crate::derp::{
    frame::FrameType,
    limits::{self, HeaderFault},
};
use core::{cell::Cell, convert::Infallible};
use proptest::prelude::*;

type Frame = (u8, Vec<u8>);

fn stream(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, body) in frames {
        bytes.extend_from_slice(&Header { kind: *kind, len: body.len() as u32 }.encode());
        bytes.extend_from_slice(body);
    }
    bytes
}

/// Pushes `bytes` in pieces of the given lengths, repeated in turn, and returns the delivered frames.
fn deframe(bytes: &[u8], pieces: &[usize]) -> (Deframer, Vec<Frame>) {
    let (mut deframer, mut frames) = (Deframer::new(), Vec::new());
    let (mut rest, mut pieces) = (bytes, pieces.iter().cycle());
    while !rest.is_empty() {
        let len = pieces.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
        let (piece, after) = rest.split_at(len);
        rest = after;
        deframer
            .push(piece, limits::server, |header, body| {
                assert_eq!(header.len as usize, body.len());
                frames.push((header.kind, body.to_vec()));
                Ok::<_, Infallible>(())
            })
            .expect("only legal frames");
    }
    (deframer, frames)
}

#[test]
fn a_frame_whole_in_the_input_is_handed_over_where_it_lies() {
    let bytes = stream(&[(0x04, vec![7; 40]), (0x12, vec![1; 8])]);
    let (mut deframer, mut seen) = (Deframer::new(), Vec::new());
    deframer
        .push(&bytes, limits::server, |header, body| {
            assert!(bytes.as_ptr_range().contains(&body.as_ptr()), "copied");
            seen.push(header);
            Ok::<_, Infallible>(())
        })
        .expect("legal frames");
    assert_eq!(seen, [Header::new(FrameType::SendPacket, 40), Header::new(FrameType::Ping, 8)]);
    assert!(deframer.is_idle());
    assert_eq!(deframer.retained_bytes(), 0);
}

#[test]
fn a_body_whole_after_a_split_header_is_not_copied_either() {
    let bytes = stream(&[(0x04, vec![7; 40])]);
    let mut deframer = Deframer::new();
    deframer.push(&bytes[..3], limits::server, |_, _| Ok::<_, Infallible>(())).expect("no frame yet");
    assert!(!deframer.is_idle());
    let mut delivered = false;
    deframer
        .push(&bytes[3..], limits::server, |_, body| {
            assert!(bytes.as_ptr_range().contains(&body.as_ptr()), "copied");
            delivered = true;
            Ok::<_, Infallible>(())
        })
        .expect("a legal frame");
    assert!(delivered);
}

#[test]
fn the_carry_grows_with_what_has_arrived_and_is_freed_with_its_frame() {
    let bytes = stream(&[(0x04, vec![7; 60_000])]);
    let (mut deframer, mut delivered) = (Deframer::new(), 0);
    for (index, piece) in bytes.chunks(1000).enumerate() {
        deframer
            .push(piece, limits::server, |_, body| {
                delivered += body.len();
                Ok::<_, Infallible>(())
            })
            .expect("a legal frame");
        let arrived = (index + 1) * 1000;
        assert!(deframer.retained_bytes() <= (2 * arrived).max(MIN_CARRY), "after {arrived} bytes");
    }
    assert_eq!((delivered, deframer.retained_bytes()), (60_000, 0));
    assert!(deframer.is_idle());
}

#[test]
fn a_promised_length_alone_holds_no_memory() {
    let mut deframer = Deframer::new();
    let header = Header::new(FrameType::SendPacket, 65_568).encode();
    deframer.push(&header, limits::server, |_, _| Ok::<_, Infallible>(())).expect("legal so far");
    assert_eq!(deframer.retained_bytes(), 0);
    assert!(!deframer.is_idle());
    deframer.push(&[1], limits::server, |_, _| Ok::<_, Infallible>(())).expect("legal so far");
    assert!((1..=MIN_CARRY).contains(&deframer.retained_bytes()));
}

#[test]
fn a_skipped_frame_is_never_held_and_its_limits_are_asked_once() {
    let bytes = stream(&[(0xee, vec![9; 65_568]), (0x12, vec![1; 8])]);
    let (mut deframer, asked, mut delivered) = (Deframer::new(), Cell::new(0), 0);
    for piece in bytes.chunks(7) {
        let limits = |header| {
            asked.set(asked.get() + 1);
            limits::server(header)
        };
        deframer
            .push(piece, limits, |_, _| {
                delivered += 1;
                Ok::<_, Infallible>(())
            })
            .expect("legal frames");
        assert!(deframer.retained_bytes() <= MIN_CARRY);
    }
    assert_eq!((asked.get(), delivered), (2, 1));
    assert!(deframer.is_idle());
}

#[test]
fn an_illegal_length_is_refused_before_any_body_byte() {
    for (kind, len, fault) in [
        (0x04, 31, HeaderFault::TooShort),
        (0x04, 65_569, HeaderFault::TooLong),
        (0xee, 65_569, HeaderFault::TooLong),
        (0x12, 7, HeaderFault::TooShort),
        (0x10, 1, HeaderFault::TooLong),
    ] {
        let header = Header { kind, len };
        let mut deframer = Deframer::new();
        let bytes = header.encode();
        let (first, last) = bytes.split_at(4);
        deframer.push(first, limits::server, |_, _| Ok::<_, Infallible>(())).expect("not known yet");
        let result = deframer.push(last, limits::server, |_, _| Ok::<_, Infallible>(()));
        assert_eq!(result, Err(PushError::Frame(FrameError { header, fault })));
    }
}

#[test]
fn a_refusal_by_the_receiver_comes_back_and_stops_the_input() {
    let bytes = stream(&[(0x12, vec![1; 8]), (0x12, vec![2; 8])]);
    let mut calls = 0;
    let result = Deframer::new().push(&bytes, limits::server, |_, _| {
        calls += 1;
        Err("enough")
    });
    assert_eq!((result, calls), (Err(PushError::Sink("enough")), 1));
}

#[test]
fn pulling_leaves_the_rest_for_other_rules() {
    let bytes = stream(&[(0x02, vec![0; 60]), (0x07, vec![1])]);
    let (mut deframer, mut input) = (Deframer::new(), &bytes[..]);
    let login = deframer.pull(&mut input, limits::login, |header, _| header.kind);
    assert_eq!(login, Ok(Some(0x02)));
    assert_eq!(input, stream(&[(0x07, vec![1])]));
    assert_eq!(deframer.pull(&mut input, limits::server, |header, _| header.kind), Ok(Some(0x07)));
    assert_eq!(deframer.pull(&mut input, limits::server, |header, _| header.kind), Ok(None));
    assert!(input.is_empty());
}

fn frame() -> impl Strategy<Value = Frame> {
    let body = |len: core::ops::RangeInclusive<usize>| prop::collection::vec(any::<u8>(), len);
    prop_oneof![
        4 => body(32..=300).prop_map(|body| (0x04, body)),
        2 => body(64..=5000).prop_map(|body| (0x0a, body)),
        1 => body(1..=1).prop_map(|body| (0x07, body)),
        1 => Just((0x10, Vec::new())),
        1 => body(32..=32).prop_map(|body| (0x11, body)),
        1 => body(8..=1000).prop_map(|body| (0x12, body)),
        2 => body(0..=3000).prop_map(|body| (0xee, body)),
    ]
}

proptest! {
    #[test]
    fn any_cut_of_any_frames_gives_those_frames(
        frames in prop::collection::vec(frame(), 0..12),
        pieces in prop::collection::vec(1usize..700, 1..8),
    ) {
        let wanted: Vec<Frame> = frames.iter().filter(|frame| frame.0 != 0xee).cloned().collect();
        let (deframer, seen) = deframe(&stream(&frames), &pieces);
        prop_assert_eq!(seen, wanted);
        prop_assert!(deframer.is_idle());
        prop_assert_eq!(deframer.retained_bytes(), 0);
    }

    #[test]
    fn any_bytes_are_taken_in_the_same_way_whole_and_in_pieces(
        bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(0x12), Just(8), any::<u8>()], 0..400),
        pieces in prop::collection::vec(1usize..9, 1..5),
    ) {
        let run = |pieces: &[usize]| {
            let (mut deframer, mut seen, mut rest) = (Deframer::new(), Vec::new(), &bytes[..]);
            let mut pieces = pieces.iter().cycle();
            let mut result = Ok(());
            while result.is_ok() && !rest.is_empty() {
                let len = pieces.next().copied().unwrap_or(usize::MAX).min(rest.len());
                result = deframer.push(&rest[..len], limits::server, |header, body| {
                    seen.push((header.kind, body.to_vec()));
                    Ok::<_, Infallible>(())
                });
                rest = &rest[len..];
            }
            (result, seen)
        };
        prop_assert_eq!(run(&pieces), run(&[usize::MAX]));
    }
}
