//! Lanes against a plain model: what is taken is what was pushed, less the oldest that had no room.

use std::collections::VecDeque;

use proptest::prelude::*;
use relay_common::derp::frame::{FrameType, Header};

use super::*;

fn frame(kind: u8, len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut head = vec![kind];
    head.extend_from_slice(&(len as u32).to_be_bytes());
    (head, vec![kind; len])
}

fn lane(index: usize) -> Lane {
    [Lane::Control, Lane::Disco, Lane::Data][index]
}

#[test]
fn a_full_lane_loses_its_oldest_frames_and_no_others() {
    let mailbox = Mailbox::default();
    let (head, body) = frame(1, 10);
    mailbox.push(Lane::Disco, &head, &body).expect("open");
    let mut dropped = 0;
    for n in 0..MAX_LANE_FRAMES + 10 {
        let (head, body) = frame(n as u8, 10);
        dropped += mailbox.push(Lane::Data, &head, &body).expect("open").dropped.frames;
    }
    assert_eq!(dropped, 10);
    let batch = mailbox.take();
    assert_eq!((batch.frames(Lane::Disco), batch.frames(Lane::Data)), (1, MAX_LANE_FRAMES));
    assert_eq!(batch.slices()[2][0], 10, "frames 0 to 9 went");
}

#[test]
fn the_longest_frame_always_fits() {
    let mailbox = Mailbox::default();
    for _ in 0..100 {
        let (head, body) = frame(9, 32 + relay_common::derp::MAX_PACKET);
        mailbox.push(Lane::Data, &head, &body).expect("open");
    }
    let (frames, bytes) = mailbox.depth();
    assert!(frames >= 1 && bytes <= MAX_LANE_BYTES);
}

#[test]
fn only_the_first_push_after_a_take_asks_for_a_wake() {
    let mailbox = Mailbox::default();
    let (head, body) = frame(1, 1);
    assert!(mailbox.push(Lane::Data, &head, &body).expect("open").wake);
    assert!(!mailbox.push(Lane::Control, &head, &body).expect("open").wake);
    mailbox.take();
    assert!(mailbox.push(Lane::Data, &head, &body).expect("open").wake);
}

#[test]
fn a_closed_mailbox_says_what_it_held_and_takes_no_more() {
    let mailbox = Mailbox::default();
    let (head, body) = frame(1, 1);
    for index in [0, 1, 2, 2] {
        mailbox.push(lane(index), &head, &body).expect("open");
    }
    assert_eq!(mailbox.close(), 3, "control frames are the relay's own");
    assert_eq!(mailbox.push(Lane::Data, &head, &body), Err(Closed));
    assert_eq!(mailbox.depth(), (0, 0));
}

proptest! {
    #[test]
    fn lanes_behave_as_bounded_queues(steps in prop::collection::vec((0..4usize, 0..70_000usize), 1..200)) {
        let mailbox = Mailbox::default();
        let mut model: [VecDeque<Vec<u8>>; LANES] = Default::default();
        for (n, (step, len)) in steps.into_iter().enumerate() {
            if step == 3 {
                let batch = mailbox.take();
                for (slice, queue) in batch.slices().into_iter().zip(&mut model) {
                    let wanted: Vec<u8> = queue.drain(..).flatten().collect();
                    prop_assert_eq!(slice, wanted);
                }
                continue;
            }
            let (head, body) = frame(n as u8, len);
            let pushed = mailbox.push(lane(step), &head, &body).expect("open");
            let queue = &mut model[step];
            let before = queue.len();
            let size = |queue: &VecDeque<Vec<u8>>| queue.iter().map(Vec::len).sum::<usize>();
            while queue.len() >= MAX_LANE_FRAMES
                || (!queue.is_empty() && size(queue) + 5 + len > MAX_LANE_BYTES)
            {
                queue.pop_front();
            }
            prop_assert_eq!(pushed.dropped.frames, before - queue.len());
            queue.push_back([head, body].concat());
        }
    }
}

#[test]
fn what_waits_for_a_slow_receiver_never_holds_more_than_twice_its_size() {
    let mailbox = Mailbox::default();
    mailbox.settle();
    // Long frames fill the lane, short ones push them out again, and once more.
    let lengths = [40, 60_000, 100, 1_400, 9_000].iter().flat_map(|len| std::iter::repeat_n(*len, 600));
    for (n, len) in lengths.clone().chain(lengths).enumerate() {
        let head = Header::new(FrameType::RecvPacket, len as u32).encode();
        mailbox.push(Lane::Data, &head, &vec![n as u8; len]).expect("open");
        let ((_, bytes), held) = (mailbox.depth(), mailbox.held_bytes());
        assert!((bytes..=2 * bytes).contains(&held), "{held} for {bytes} after {n}");
    }
    let batch = mailbox.take();
    assert_eq!(batch.slices()[Lane::Data as usize].last(), Some(&(5999_usize as u8)));
}

#[test]
fn settling_keeps_what_waits() {
    let mailbox = Mailbox::default();
    let frame = [&Header::new(FrameType::RecvPacket, 3).encode()[..], b"abc"].concat();
    mailbox.push(Lane::Disco, &frame, &[]).expect("open");
    mailbox.settle();
    assert!(mailbox.held_bytes() <= 2 * frame.len());
    mailbox.push(Lane::Disco, &frame, &[]).expect("open");
    assert_eq!(mailbox.take().slices()[Lane::Disco as usize], frame.repeat(2));
}
