//! Refusals of a kernel that is made up: what is asked of it how often, and what becomes of each datagram.

use std::collections::BTreeMap;

use super::super::gather::{Piece, Plan, gather};
use super::*;

/// What is asked to be sent: the receiver's port, the length of one datagram, and whether it is a train.
#[derive(Clone, Copy, Debug)]
struct Asked {
    port: u16,
    len: usize,
    train: bool,
}

struct Fake<'a, F> {
    messages: &'a [Message],
    refuses: F,
    /// Messages taken per call at most.
    most: usize,
    calls: usize,
}

impl<F: FnMut(Asked) -> Option<i32>> Fake<'_, F> {
    fn call(&mut self, asked: impl Iterator<Item = Asked>) -> io::Result<usize> {
        self.calls += 1;
        let mut taken = 0;
        for asked in asked.take(self.most) {
            match (self.refuses)(asked) {
                Some(_) if taken > 0 => break,
                Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                None => taken += 1,
            }
        }
        Ok(taken)
    }
}

impl<F: FnMut(Asked) -> Option<i32>> Kernel for Fake<'_, F> {
    fn send(&mut self, messages: Range<usize>) -> io::Result<usize> {
        let asked =
            |one: &Message| Asked { port: one.flow.to.port(), len: one.segment, train: one.is_train() };
        self.call(self.messages[messages].iter().map(asked))
    }

    fn send_apart(&mut self, message: usize, first: usize) -> io::Result<usize> {
        let one = &self.messages[message];
        let len = |index: usize| (one.bytes - index * one.segment).min(one.segment);
        let port = one.flow.to.port();
        self.call((first..one.datagrams).map(|index| Asked { port, len: len(index), train: false }))
    }
}

#[derive(Debug, Default)]
struct Book {
    /// By message and number of the datagram.
    taken: Vec<(usize, usize)>,
    lost: BTreeMap<(usize, usize), Loss>,
    no_trains: usize,
    no_trains_to: Vec<(u16, usize)>,
}

impl Ledger for Book {
    fn taken(&mut self, message: usize, datagrams: Range<usize>) {
        self.taken.extend(datagrams.map(|one| (message, one)));
    }

    fn lost(&mut self, message: usize, datagrams: Range<usize>, why: Loss) {
        for one in datagrams {
            assert_eq!(self.lost.insert((message, one), why), None, "lost twice");
        }
    }

    fn no_trains(&mut self) {
        self.no_trains += 1;
    }

    fn no_trains_to(&mut self, flow: &Flow, size: usize) {
        self.no_trains_to.push((flow.to.port(), size));
    }
}

struct Result {
    book: Book,
    calls: usize,
    room: bool,
}

impl Result {
    fn sent(&self) -> usize {
        self.book.taken.len()
    }

    /// The losses, as (message, why, datagrams).
    fn lost(&self) -> Vec<(usize, Loss, usize)> {
        let mut all: Vec<(usize, Loss, usize)> = Vec::new();
        for ((message, _), why) in &self.book.lost {
            match all.last_mut().filter(|last| (last.0, last.1) == (*message, *why)) {
                Some(last) => last.2 += 1,
                None => all.push((*message, *why, 1)),
            }
        }
        all
    }
}

/// A piece for a port: datagrams of `segment` bytes, `len` together.
fn piece(port: u16, segment: usize, len: usize) -> Piece {
    let flow = Flow { to: ([192, 0, 2, 1], port).into(), from: None, tos: 0 };
    Piece { flow, len, segment }
}

fn run_by(pieces: &[Piece], trains: bool, most: usize, refuses: impl FnMut(Asked) -> Option<i32>) -> Result {
    let mut plan = Plan::default();
    gather(pieces.iter().copied().enumerate(), |_, _| trains, &mut plan);
    let mut kernel = Fake { messages: &plan.messages, refuses, most, calls: 0 };
    let mut book = Book::default();
    let room = deliver(&plan.messages, &mut kernel, &mut book);
    let calls = kernel.calls;
    let all: usize = plan.messages.iter().map(|message| message.datagrams).sum();
    assert_eq!(book.taken.len() + book.lost.len(), all, "each datagram is settled");
    assert!(book.taken.iter().all(|one| !book.lost.contains_key(one)), "once");
    Result { book, calls, room }
}

fn run(pieces: &[Piece], refuses: impl FnMut(Asked) -> Option<i32>) -> Result {
    run_by(pieces, true, usize::MAX, refuses)
}

#[test]
fn what_the_kernel_takes_costs_one_call_and_partial_batches_go_on() {
    let pieces: Vec<_> = (0..10).map(|port| piece(port, 100, 550)).collect();
    let result = run(&pieces, |_| None);
    assert_eq!((result.calls, result.sent(), result.room), (1, 60, true));
    let result = run_by(&pieces, true, 3, |_| None);
    assert_eq!((result.calls, result.sent(), result.room), (4, 60, true));
    assert_eq!(run(&[], |_| None).calls, 0);
}

#[test]
fn one_destination_that_refuses_costs_no_other_and_is_asked_once() {
    for errno in [libc::EPERM, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::EAFNOSUPPORT, libc::EACCES] {
        // One by one, as on a socket without trains: 32 datagrams to each port, in turn.
        let pieces: Vec<_> = (0..64).map(|n| piece(n % 2, 0, 100)).collect();
        let refuses = |asked: Asked| (asked.port == 1).then_some(errno);
        let result = run_by(&pieces, false, usize::MAX, refuses);
        assert_eq!((result.sent(), result.room), (32, true));
        assert!(result.lost().iter().all(|(_, why, _)| *why == Loss::Refused));
        // The first to port 0, the refusal, and then each one for port 0 behind one that is left out.
        assert!(result.calls <= 34, "{} calls", result.calls);
        let all = run_by(&pieces, false, usize::MAX, |_| Some(errno));
        assert_eq!((all.calls, all.sent(), all.lost().len()), (2, 0, 64));
    }
}

#[test]
fn a_full_buffer_ends_the_batch_at_the_first_refusal() {
    for errno in [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM] {
        let pieces: Vec<_> = (0..64).map(|port| piece(port, 100, 500)).collect();
        let mut left = 3;
        let result = run(&pieces, |_| {
            left -= i32::from(left > 0);
            (left == 0).then_some(errno)
        });
        assert_eq!((result.calls, result.sent(), result.room), (2, 10, false));
        assert_eq!(result.book.lost.len(), 62 * 5);
        assert!(result.book.lost.values().all(|why| *why == Loss::NoRoom));
    }
}

#[test]
fn without_checksum_offload_one_train_is_refused_and_all_are_sent_apart() {
    let pieces = [piece(1, 100, 550), piece(2, 0, 100), piece(3, 100, 1000)];
    let result = run(&pieces, |asked| asked.train.then_some(libc::EIO));
    assert_eq!((result.sent(), result.book.no_trains, result.room), (17, 1, true));
    assert_eq!(result.calls, 4, "the refusal, the first train apart, the single one, the second train apart");
    assert!(result.book.no_trains_to.is_empty() && result.book.lost.is_empty());
    let order: Vec<_> = result.book.taken.iter().map(|(message, _)| *message).collect();
    assert!(order.is_sorted());
}

#[test]
fn a_train_too_large_for_its_path_is_sent_apart_and_its_destination_remembered() {
    for errno in [libc::EINVAL, libc::EMSGSIZE] {
        let small = |asked: Asked| (asked.train && asked.port == 1 && asked.len > 1000).then_some(errno);
        let pieces = [piece(1, 1400, 4200), piece(2, 1400, 4200), piece(1, 1300, 3000), piece(1, 200, 600)];
        let result = run(&pieces, small);
        assert_eq!((result.sent(), result.room), (3 + 3 + 3 + 3, true));
        assert_eq!(result.book.no_trains_to, [(1, 1400), (1, 1300)]);
        assert_eq!(result.book.no_trains, 0);
    }
}

#[test]
fn a_destination_that_takes_nothing_is_not_remembered_as_one_without_trains() {
    let result = run(&[piece(1, 100, 6400), piece(2, 100, 6400), piece(1, 50, 100)], |asked| {
        (asked.port == 1).then_some(libc::EINVAL)
    });
    assert_eq!(result.lost(), [(0, Loss::Refused, 64), (2, Loss::Refused, 2)]);
    assert_eq!((result.sent(), result.book.no_trains_to.len()), (64, 0));
    assert_eq!(result.calls, 3, "the train, its first datagram, the other destination");
}

#[test]
fn of_datagrams_that_are_too_long_each_length_is_tried_once() {
    let pieces =
        [piece(1, 0, 3000), piece(1, 0, 3000), piece(1, 0, 4000), piece(1, 0, 1000), piece(2, 0, 3000)];
    let too_long = |asked: Asked| (asked.port == 1 && asked.len > 1500).then_some(libc::EMSGSIZE);
    let result = run_by(&pieces, false, usize::MAX, too_long);
    assert_eq!((result.sent(), result.calls), (2, 2));
    assert_eq!(result.lost().iter().map(|one| one.1).collect::<Vec<_>>(), [Loss::TooLong; 3]);
    // Of a train, the last one may be short enough.
    let result = run(&[piece(1, 3000, 9100), piece(1, 3000, 9000)], too_long);
    assert_eq!(result.lost(), [(0, Loss::TooLong, 3), (1, Loss::TooLong, 3)]);
    assert_eq!(result.sent(), 1);
}

#[test]
fn room_that_ends_within_a_train_sent_apart_ends_the_batch() {
    let mut left = 4;
    let result = run(&[piece(1, 100, 1000), piece(2, 100, 1000)], |asked| {
        if asked.train {
            return Some(libc::EIO);
        }
        left -= i32::from(left > 0);
        (left == 0).then_some(libc::EAGAIN)
    });
    assert_eq!((result.sent(), result.room), (3, false));
    assert_eq!(result.lost(), [(0, Loss::NoRoom, 7), (1, Loss::NoRoom, 10)]);
}

#[test]
fn interrupted_calls_are_made_again_but_not_for_ever() {
    let mut interrupts = 3;
    let result = run(&[piece(1, 0, 100)], |_| {
        interrupts -= 1;
        (interrupts >= 0).then_some(libc::EINTR)
    });
    assert_eq!((result.sent(), result.calls), (1, 4));
    let result = run(&[piece(1, 0, 100)], |_| Some(libc::EINTR));
    assert_eq!((result.sent(), result.calls), (0, MOST_INTERRUPTS + 1));
}

#[test]
fn no_refusal_whatever_makes_it_loop_or_forget_a_datagram() {
    let errors = [
        libc::EAGAIN,
        libc::EIO,
        libc::EINVAL,
        libc::EMSGSIZE,
        libc::EPERM,
        libc::EINTR,
        libc::ENOBUFS,
        libc::EHOSTUNREACH,
        libc::EBADF,
        libc::ECONNREFUSED,
        0,
    ];
    let pieces: Vec<_> = (0..40u16).map(|n| piece(n % 5, 100, 100 + 90 * usize::from(n))).collect();
    // A linear congruential generator (Knuth's) is random enough to meet every pair of refusals.
    let mut state = 1u64;
    for _ in 0..2000 {
        let result = run_by(&pieces, state & 256 == 0, 3, |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (state >> 33) as usize;
            number.is_multiple_of(4).then(|| errors[number / 4 % errors.len()])
        });
        assert!(result.calls < 2000);
    }
}

#[test]
fn many_refusals_cost_a_call_each_and_what_is_between_them_is_sent() {
    let count = 500u16;
    let pieces: Vec<_> = (0..count).map(|port| piece(port, 100, 200)).collect();
    for errno in [libc::EHOSTUNREACH, libc::EMSGSIZE] {
        let refuses = |asked: Asked| (asked.train && asked.port % 2 == 1).then_some(errno);
        let result = run(&pieces, refuses);
        let lost = if errno == libc::EMSGSIZE { 0 } else { usize::from(count) };
        assert_eq!((result.sent(), result.book.lost.len()), (2 * usize::from(count) - lost, lost));
        assert!(result.calls <= 3 * usize::from(count) / 2 + 8, "{} calls", result.calls);
    }
}
