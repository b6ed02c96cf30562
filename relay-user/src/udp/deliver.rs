//! Sends a plan's messages, and decides what the kernel's refusals mean. A refusal costs no message to
//! another destination, and is not asked for again and again:
//!
//! | refusal | what follows |
//! |---|---|
//! | EAGAIN, ENOBUFS, ENOMEM | the buffer is full: the rest of the plan is lost, and the caller waits |
//! | EIO, of a train | the way out completes no checksums: no more trains from this socket |
//! | EINVAL, EMSGSIZE, of a train | its datagrams do not fit the path: no trains of them for a while |
//! | EMSGSIZE, of a datagram | it and all as long as it to this destination are lost |
//! | anything else | what the plan has for this destination is lost |
//!
//! The datagrams of a train that was refused are sent apart.

use std::io;
use std::ops::Range;

use super::gather::{Flow, Message};

/// Messages per call at most, and refusals that are kept in mind at most, so that the time for a plan does
/// not grow with the square of its messages, whatever is refused.
const MOST_PER_CALL: usize = 64;
const MOST_REFUSALS: usize = 16;

/// How often an interrupted call is made again.
const MOST_INTERRUPTS: usize = 8;

/// The calls that sending needs.
pub trait Kernel {
    /// Sends these messages and returns how many were taken.
    ///
    /// # Errors
    /// Why the first of them was not.
    fn send(&mut self, messages: Range<usize>) -> io::Result<usize>;

    /// Sends the datagrams of one message from the `first` on, each by itself, and returns how many were
    /// taken.
    ///
    /// # Errors
    /// Why the first of them was not.
    fn send_apart(&mut self, message: usize, first: usize) -> io::Result<usize>;
}

/// Where it is written down what became of the messages.
pub trait Ledger {
    /// The kernel took these datagrams of a message.
    fn taken(&mut self, message: usize, datagrams: Range<usize>);
    /// These datagrams of a message are lost.
    fn lost(&mut self, message: usize, datagrams: Range<usize>, why: Loss);
    /// The kernel cannot cut trains up on this socket.
    fn no_trains(&mut self);
    /// The kernel sends no trains of datagrams of `size` bytes or more to this destination.
    fn no_trains_to(&mut self, flow: &Flow, size: usize);
}

/// Why datagrams were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The socket's send buffer was full.
    NoRoom,
    /// They were too long.
    TooLong,
    /// There is no way to the destination, or a rule forbids it.
    Refused,
}

/// What is left to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Again,
    Stop,
    NoTrains,
    NoTrainsThere,
    TooLong,
    Refused,
}

/// Why the next messages to a destination are not even tried.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    flow: Flow,
    /// Datagrams of this length and more are lost.
    from_len: usize,
    why: Loss,
}

/// Sends all messages. Returns whether the socket had room for them.
pub fn deliver(messages: &[Message], kernel: &mut impl Kernel, ledger: &mut impl Ledger) -> bool {
    Delivery { messages, kernel, ledger, refusals: Vec::new(), apart: Apart::default(), interrupts: 0 }.run()
}

struct Delivery<'a, K, L> {
    messages: &'a [Message],
    kernel: &'a mut K,
    ledger: &'a mut L,
    refusals: Vec<Refusal>,
    apart: Apart,
    interrupts: usize,
}

/// Trains that are sent apart without another try.
#[derive(Debug, Default)]
struct Apart {
    all: bool,
    to: Vec<(Flow, usize)>,
}

impl Apart {
    fn covers(&self, message: &Message) -> bool {
        let there = |(flow, size): &(Flow, usize)| *flow == message.flow && message.segment >= *size;
        message.is_train() && (self.all || self.to.iter().any(there))
    }
}

impl<K: Kernel, L: Ledger> Delivery<'_, K, L> {
    fn run(mut self) -> bool {
        let mut at = 0;
        while at < self.messages.len() {
            if self.is_lost(at, 0) {
                at += 1;
            } else if self.apart.covers(&self.messages[at]) {
                if !self.one_by_one(at) {
                    return self.stop(at + 1);
                }
                at += 1;
            } else {
                let most = self.messages.len().min(at + MOST_PER_CALL);
                let end = (at + 1..most).find(|next| !self.is_plain(*next));
                match self.kernel.send(at..end.unwrap_or(most)) {
                    Ok(count @ 1..) => {
                        (at..at + count).for_each(|taken| self.whole(taken));
                        at += count;
                    }
                    // A result of none without an error would mean no progress, so it counts as an error.
                    Ok(0) => at = self.refused(at),
                    Err(error) => match self.judge(&error, self.messages[at].is_train()) {
                        Verdict::Again => {}
                        Verdict::Stop => return self.stop(at),
                        Verdict::NoTrains => {
                            self.apart.all = true;
                            self.ledger.no_trains();
                        }
                        Verdict::NoTrainsThere => {
                            let message = &self.messages[at];
                            push(&mut self.apart.to, (message.flow, message.segment));
                        }
                        Verdict::TooLong => {
                            self.refuse(at, self.messages[at].bytes, Loss::TooLong);
                        }
                        Verdict::Refused => at = self.refused(at),
                    },
                }
            }
        }
        true
    }

    /// Sends the datagrams of a train apart. Returns false if the socket has no room.
    fn one_by_one(&mut self, at: usize) -> bool {
        let message = &self.messages[at];
        let all = message.datagrams;
        let (mut done, mut some) = (0, false);
        while done < all && !self.is_lost(at, done) {
            match self.kernel.send_apart(at, done) {
                Ok(count @ 1..) => {
                    self.ledger.taken(at, done..done + count);
                    (done, some) = (done + count, true);
                }
                Ok(0) => self.refuse(at, 0, Loss::Refused),
                Err(error) => match self.judge(&error, false) {
                    Verdict::Again => {}
                    Verdict::Stop => {
                        self.ledger.lost(at, done..all, Loss::NoRoom);
                        return false;
                    }
                    Verdict::TooLong => {
                        let tail = message.bytes - message.segment * (all - 1);
                        // All but the last are equally long.
                        let last = if tail < message.segment && done + 1 < all { all - 1 } else { all };
                        self.ledger.lost(at, done..last, Loss::TooLong);
                        done = last;
                    }
                    _ => self.refuse(at, 0, Loss::Refused),
                },
            }
        }
        // If no datagram gets there either, trains are not what is wrong.
        if some && !self.apart.all {
            self.ledger.no_trains_to(&message.flow, message.segment);
        }
        true
    }

    /// Whether a message can share a call with those before it.
    fn is_plain(&self, at: usize) -> bool {
        let message = &self.messages[at];
        self.refusal_of(message).is_none() && !self.apart.covers(message)
    }

    /// Why this message would not get there: because nothing gets to its destination or, of one datagram,
    /// because it is too long. Of a train that is too long, the last datagram may yet be short enough.
    fn refusal_of(&self, message: &Message) -> Option<Loss> {
        let meant = |one: &&Refusal| {
            let there = one.flow.to == message.flow.to && one.flow.from == message.flow.from;
            there && (one.from_len == 0 || (!message.is_train() && message.bytes >= one.from_len))
        };
        self.refusals.iter().find(meant).map(|one| one.why)
    }

    /// If this message would not get there, its datagrams from the `first` on are lost.
    fn is_lost(&mut self, at: usize, first: usize) -> bool {
        let message = &self.messages[at];
        let why = self.refusal_of(message);
        if let Some(why) = why {
            self.ledger.lost(at, first..message.datagrams, why);
        }
        why.is_some()
    }

    fn refuse(&mut self, at: usize, from_len: usize, why: Loss) {
        push(&mut self.refusals, Refusal { flow: self.messages[at].flow, from_len, why });
    }

    /// Notes that nothing gets to this message's destination; the message itself is then lost like the
    /// others.
    fn refused(&mut self, at: usize) -> usize {
        self.refuse(at, 0, Loss::Refused);
        at
    }

    fn whole(&mut self, at: usize) {
        self.ledger.taken(at, 0..self.messages[at].datagrams);
    }

    /// Loses all messages from `at` on for lack of room.
    fn stop(self, at: usize) -> bool {
        for (message, index) in self.messages[at..].iter().zip(at..) {
            self.ledger.lost(index, 0..message.datagrams, Loss::NoRoom);
        }
        false
    }

    fn judge(&mut self, error: &io::Error, train: bool) -> Verdict {
        match error.raw_os_error().unwrap_or(0) {
            libc::EINTR if self.interrupts < MOST_INTERRUPTS => {
                self.interrupts += 1;
                Verdict::Again
            }
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Verdict::Stop,
            libc::EIO if train => Verdict::NoTrains,
            libc::EINVAL | libc::EMSGSIZE if train => Verdict::NoTrainsThere,
            libc::EMSGSIZE => Verdict::TooLong,
            _ => Verdict::Refused,
        }
    }
}

/// Keeps something in mind; the oldest is forgotten.
fn push<T>(kept: &mut Vec<T>, one: T) {
    if kept.len() >= MOST_REFUSALS {
        kept.remove(0);
    }
    kept.push(one);
}

#[cfg(test)]
mod tests;
