//! Compares the lanes with a plain model: a take returns the pushed frames, less the oldest ones that had no
//! room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use proptest::prelude::*;
use relay_common::derp::frame::{FrameType, Header};
use relay_common::derp::info::AppName;
use relay_common::derp::message::{FromServer, PeerGoneReason, PeerPresentFlags};
use relay_common::derp::{HEADER_LEN, KEY_LEN, MAX_PACKET};

use super::*;

const GONE: News = News::Gone(PeerGoneReason::Disconnected);
/// Bytes of a PeerGone frame: header, key, reason.
const NEWS_BYTES: usize = HEADER_LEN + KEY_LEN + 1;

fn frame(kind: u8, len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut head = vec![kind];
    head.extend_from_slice(&(len as u32).to_be_bytes());
    (head, vec![kind; len])
}

fn lane(index: usize) -> Lane {
    [Lane::Control, Lane::Disco, Lane::Data][index]
}

fn push(mailbox: &Mailbox, lane: Lane, kind: u8, len: usize) -> Pushed {
    let (head, body) = frame(kind, len);
    mailbox.push(lane, &head, &body, false).expect("open")
}

/// Takes everything, in as many takes as needed; each batch must say correctly whether another follows.
fn drain(mailbox: &Mailbox) -> Vec<u8> {
    let (mut all, mut expected) = (Vec::new(), None);
    loop {
        let batch = mailbox.take();
        assert_ne!(expected, Some(batch.is_empty()));
        if batch.is_empty() {
            return all;
        }
        expected = Some(batch.is_followed());
        batch.slices().for_each(|slice| all.extend_from_slice(slice));
    }
}

#[test]
fn a_full_lane_loses_its_oldest_frames_and_no_others() {
    let mailbox = Mailbox::default();
    let _ = push(&mailbox, Lane::Disco, 1, 10);
    let dropped: usize =
        (0..MAX_LANE_FRAMES + 10).map(|n| push(&mailbox, Lane::Data, n as u8, 10).dropped.frames).sum();
    assert_eq!(dropped, 10);
    let batch = mailbox.take();
    assert_eq!((batch.count(Lane::Disco).frames, batch.count(Lane::Data).frames), (1, MAX_LANE_FRAMES));
    assert_eq!(batch.slices().nth(1).expect("data")[0], 10, "frames 0 to 9 went");
}

#[test]
fn a_blocked_lane_holds_32_frames_of_any_size_and_drops_none_of_them() {
    for len in [1, 2_000, KEY_LEN + MAX_PACKET] {
        for blocked in [false, true] {
            let mailbox = Mailbox::default();
            if blocked {
                mailbox.settle();
            }
            for n in 0..MIN_LANE_FRAMES {
                assert_eq!(push(&mailbox, Lane::Data, n as u8, len).dropped, Count::default(), "{len}");
            }
            let more = push(&mailbox, Lane::Data, 32, len).dropped.frames;
            // While the receiver is not blocked: 256 frames or 512 KiB.
            let full = blocked || MIN_LANE_FRAMES * (HEADER_LEN + len) >= MAX_LANE_BYTES;
            assert_eq!(more, usize::from(full), "{len} {blocked}");
            let (head, body) = frame(usize::from(full) as u8, len);
            assert!(drain(&mailbox).starts_with(&[head, body].concat()));
        }
    }
}

#[test]
fn a_receiver_that_blocks_keeps_the_newest_32_of_what_waits() {
    let mailbox = Mailbox::default();
    (0..200).for_each(|n| _ = push(&mailbox, Lane::Data, n, 1_000));
    mailbox.settle();
    assert_eq!(mailbox.depth().frames, 200, "only what comes next pushes them out");
    assert_eq!(push(&mailbox, Lane::Data, 200, 1_000).dropped.frames, 200 + 1 - MIN_LANE_FRAMES);
    assert_eq!(drain(&mailbox)[0], 200 + 1 - MIN_LANE_FRAMES as u8);
}

#[test]
fn a_mailbox_is_blocked_until_it_has_been_found_empty() {
    let mailbox = Mailbox::default();
    mailbox.settle();
    (0..MIN_LANE_FRAMES).for_each(|_| _ = push(&mailbox, Lane::Data, 0, 2_000));
    assert!(mailbox.take().bytes() <= TAKE_BYTES_BLOCKED, "little is sealed ahead of a blocked socket");
    (0..100).for_each(|_| _ = push(&mailbox, Lane::Data, 0, 2_000));
    assert_eq!(mailbox.depth().frames, MIN_LANE_FRAMES);
    drain(&mailbox);
    (0..100).for_each(|_| _ = push(&mailbox, Lane::Data, 0, 2_000));
    assert_eq!(mailbox.depth().frames, 100);
    let taken = mailbox.take().bytes();
    assert!((TAKE_BYTES / 2..=TAKE_BYTES).contains(&taken), "{taken}");
}

#[test]
fn a_receiver_that_takes_much_without_a_refusal_is_not_blocked_any_more() {
    const LEN: usize = 8_000;
    let mailbox = Mailbox::default();
    // Pushes as many frames as are taken, so that the mailbox is never found empty.
    let take_much = |bytes: usize| {
        let mut taken = 0;
        while taken < bytes {
            let batch = mailbox.take().bytes();
            (0..batch / LEN).for_each(|_| _ = push(&mailbox, Lane::Data, 0, LEN));
            taken += batch;
        }
    };
    (0..MIN_LANE_FRAMES).for_each(|_| _ = push(&mailbox, Lane::Data, 0, LEN));
    for _ in 0..2 {
        mailbox.settle();
        take_much(UNBLOCK_BYTES - TAKE_BYTES_BLOCKED);
        (0..2).for_each(|_| _ = push(&mailbox, Lane::Data, 0, LEN));
        assert_eq!(mailbox.depth().frames, MIN_LANE_FRAMES, "a refusal counts anew");
    }
    take_much(TAKE_BYTES_BLOCKED);
    (0..2).for_each(|_| _ = push(&mailbox, Lane::Data, 0, LEN));
    assert!(mailbox.depth().frames > MIN_LANE_FRAMES);
}

#[test]
fn short_memory_makes_every_lane_short() {
    let mailbox = Mailbox::default();
    let (head, body) = frame(1, 10);
    (0..100).for_each(|_| _ = mailbox.push(Lane::Data, &head, &body, true).expect("open"));
    assert_eq!(mailbox.depth().frames, MIN_LANE_FRAMES);
}

#[test]
fn what_comes_later_overtakes_what_has_not_been_taken() {
    let mailbox = Mailbox::default();
    mailbox.settle();
    (0..MIN_LANE_FRAMES).for_each(|_| _ = push(&mailbox, Lane::Data, 3, 8_000));
    drop(mailbox.take());
    let _ = push(&mailbox, Lane::Disco, 2, 100);
    let _ = push(&mailbox, Lane::Control, 1, 8);
    let batch = mailbox.take();
    let kinds: Vec<u8> = batch.slices().map(|slice| slice[0]).collect();
    assert_eq!(kinds[..3], [1, 2, 3]);
}

/// A waker that counts its calls.
#[derive(Debug, Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn whoever_was_registered_last_is_woken_once() {
    let [first, last] = [(); 2].map(|()| Arc::new(Woken::default()));
    let mailbox = Mailbox::default();
    mailbox.wake();
    for woken in [&first, &last] {
        mailbox.register(&Waker::from(Arc::clone(woken)));
    }
    mailbox.wake();
    mailbox.wake();
    assert_eq!([&first, &last].map(|woken| woken.0.load(Ordering::SeqCst)), [0, 1]);
}

#[test]
fn only_the_first_push_after_a_take_asks_for_a_wake() {
    let mailbox = Mailbox::default();
    assert!(push(&mailbox, Lane::Data, 1, 1).wake);
    assert!(!push(&mailbox, Lane::Control, 1, 1).wake);
    mailbox.take();
    assert!(push(&mailbox, Lane::Data, 1, 1).wake);
}

#[test]
fn a_closed_mailbox_says_what_it_held_and_takes_no_more() {
    let mailbox = Mailbox::default();
    for index in [0, 1, 2, 2] {
        let _ = push(&mailbox, lane(index), 1, 1);
    }
    let _ = mailbox.owe(NodePublic::from_bytes([1; 32]), GONE).expect("open");
    let left = mailbox.close();
    assert_eq!((left.packets(), left.count(Lane::Control).frames), (3, 2));
    let (head, body) = frame(1, 1);
    assert_eq!(mailbox.push(Lane::Data, &head, &body, false), Err(Closed));
    let owed = mailbox.owe(NodePublic::from_bytes([1; 32]), GONE);
    assert_eq!(owed, Err(Closed));
    assert_eq!(mailbox.depth(), Count::default());
    assert!(mailbox.close().is_empty());
}

#[test]
fn news_is_owed_once_per_key_and_never_dropped() {
    let mailbox = Mailbox::default();
    mailbox.settle();
    let key = |n: u16| {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        NodePublic::from_bytes(bytes)
    };
    let mut growth = 0;
    for _ in 0..3 {
        for n in 0..400 {
            let pushed = mailbox.owe(key(n), GONE).expect("open");
            growth += pushed.growth;
        }
        (0..100).for_each(|_| _ = push(&mailbox, Lane::Control, 9, 0));
    }
    assert_eq!(growth, 400 * NEWS_BYTES as i64);
    let told = drain(&mailbox);
    let news = told.len() - MIN_LANE_FRAMES * HEADER_LEN;
    assert_eq!(news, 400 * NEWS_BYTES);
}

#[test]
fn a_key_that_left_before_anybody_was_told_of_it_is_no_news() {
    let mailbox = Mailbox::default();
    let key = NodePublic::from_bytes([7; 32]);
    let here = |is_first| {
        let addr = ([192, 0, 2, 1], 7).into();
        let (flags, app_name) = (PeerPresentFlags::REGULAR, AppName::default());
        News::Here(Box::new(Presence { addr, flags, app_name, is_first }))
    };
    let owe = |news| mailbox.owe(key, news).expect("open").growth;
    assert_eq!(
        owe(here(true)) + owe(here(false)) + owe(GONE),
        0,
        "its second connection is no reason to tell"
    );
    assert!(mailbox.take().is_empty());
    let _ = owe(here(true));
    assert!(!mailbox.take().is_empty());
    // The receiver believes the key to be here now: whatever happens, it must learn that the key is gone.
    let _ = owe(GONE) + owe(here(true)) + owe(GONE);
    assert_eq!(drain(&mailbox).len(), NEWS_BYTES);
}

#[test]
fn of_a_key_that_comes_and_goes_only_the_latest_is_told() {
    let mailbox = Mailbox::default();
    let (key, addr) = (NodePublic::from_bytes([7; 32]), ([192, 0, 2, 1], 7).into());
    let flags = PeerPresentFlags::REGULAR;
    let here = |name: &str| {
        let app_name = AppName::new(name).expect("a name");
        News::Here(Box::new(Presence { addr, flags, app_name, is_first: false }))
    };
    let mut growth = 0;
    for name in ["first", "a longer name", "last"] {
        for news in [GONE, here(name)] {
            growth += mailbox.owe(key, news).expect("open").growth;
        }
    }
    let mut told = Vec::new();
    FromServer::PeerPresent { peer: &key, addr: Some(addr), flags, app_name: "last" }.encode(&mut told);
    assert_eq!(mailbox.depth(), Count { frames: 1, bytes: told.len() });
    assert_eq!(growth, told.len() as i64);
    assert_eq!(drain(&mailbox), told);
    assert_eq!(mailbox.depth(), Count::default());
    growth +=
        mailbox.owe(key, here("again")).expect("open").growth + mailbox.owe(key, GONE).expect("open").growth;
    assert_eq!(growth, (told.len() + NEWS_BYTES) as i64, "the news of its going is shorter");
}

#[test]
fn a_links_lane_holds_its_frames_also_while_its_relay_takes_nothing() {
    let mailbox = Mailbox::for_link();
    mailbox.settle();
    let dropped =
        |len| (0..LINK_LANE_FRAMES + 1).map(|_| push(&mailbox, Lane::Data, 1, len).dropped.frames).sum();
    let first: usize = dropped(100);
    assert_eq!(first, 1, "the last one pushed out the first");
    assert_eq!(mailbox.depth().frames, LINK_LANE_FRAMES);
    let _: usize = dropped(2000);
    let held = mailbox.depth().bytes;
    assert!(held <= LINK_LANE_BYTES && held + 2005 > LINK_LANE_BYTES, "{held}");
}

proptest! {
    #[test]
    fn lanes_behave_as_bounded_queues(
        steps in prop::collection::vec((0..5usize, 0..70_000usize), 1..200),
    ) {
        let mailbox = Mailbox::default();
        let mut model: [VecDeque<Vec<u8>>; LANES] = Default::default();
        let (mut blocked, mut held) = (0, 0);
        for (n, (step, len)) in steps.into_iter().enumerate() {
            if step == 3 {
                let batch = mailbox.take();
                held -= batch.bytes() as i64;
                blocked = if batch.is_empty() { 0 } else { blocked.max(batch.bytes()) - batch.bytes() };
                let mut taken = batch.slices().flatten().copied().collect::<Vec<_>>();
                // The lanes in their order, each from its head, as far as there is room.
                for (index, queue) in model.iter_mut().enumerate() {
                    let count = batch.count(lane(index));
                    let wanted: Vec<u8> = queue.drain(..count.frames).flatten().collect();
                    prop_assert_eq!(wanted.len(), count.bytes);
                    let rest = taken.split_off(wanted.len());
                    prop_assert_eq!(std::mem::replace(&mut taken, rest), wanted);
                }
                prop_assert!(taken.is_empty());
                prop_assert!(!batch.is_empty() || model.iter().all(VecDeque::is_empty));
                continue;
            }
            if step == 4 {
                mailbox.settle();
                blocked = UNBLOCK_BYTES;
                continue;
            }
            let pushed = push(&mailbox, lane(step), n as u8, len);
            held += pushed.growth;
            let queue = &mut model[step];
            let before = queue.len();
            let size = |queue: &VecDeque<Vec<u8>>| queue.iter().map(Vec::len).sum::<usize>();
            while queue.len() >= MIN_LANE_FRAMES
                && (blocked > 0
                    || queue.len() >= MAX_LANE_FRAMES
                    || size(queue) + HEADER_LEN + len > MAX_LANE_BYTES)
            {
                queue.pop_front();
            }
            prop_assert_eq!(pushed.dropped.frames, before - queue.len());
            let (head, body) = frame(n as u8, len);
            queue.push_back([head, body].concat());
            prop_assert_eq!(held, mailbox.depth().bytes as i64);
            prop_assert_eq!(mailbox.depth().bytes, model.iter().map(size).sum::<usize>());
            if blocked > 0 {
                prop_assert!(mailbox.held_bytes() <= 2 * mailbox.depth().bytes);
            }
        }
        held -= mailbox.close().bytes() as i64;
        prop_assert_eq!(held, 0);
    }
}

#[test]
fn what_waits_for_a_slow_receiver_never_holds_more_than_twice_its_size() {
    let mailbox = Mailbox::default();
    mailbox.settle();
    // Long frames fill the lane, then short ones push them out, then the same once more.
    let lengths = [40, 60_000, 100, 1_400, 9_000].iter().flat_map(|len| std::iter::repeat_n(*len, 600));
    for (n, len) in lengths.clone().chain(lengths).enumerate() {
        let _ = push(&mailbox, Lane::Data, n as u8, len);
        let (bytes, held) = (mailbox.depth().bytes, mailbox.held_bytes());
        assert!((bytes..=2 * bytes).contains(&held), "{held} for {bytes} after {n}");
    }
    assert_eq!(drain(&mailbox).last(), Some(&(5999_usize as u8)));
}

#[test]
fn settling_keeps_what_waits() {
    let mailbox = Mailbox::default();
    let frame = [&Header::new(FrameType::RecvPacket, 3).encode()[..], b"abc"].concat();
    let _ = mailbox.push(Lane::Disco, &frame, &[], false).expect("open");
    mailbox.settle();
    assert!(mailbox.held_bytes() <= 2 * frame.len());
    let _ = mailbox.push(Lane::Disco, &frame, &[], false).expect("open");
    assert_eq!(drain(&mailbox), frame.repeat(2));
}
