//! Ways to queue a frame for a slow receiver, and the cost of each.
//!
//! Frames are cut from reads of 64 KiB into `BytesMut`, as users of the crate bytes do. A frame is shared (a
//! slice of the read buffer, which stays alive for it) or copied (its own allocation), or it goes through
//! relayd's mailbox.

use std::collections::{HashMap, VecDeque};

use bytes::{Buf as _, Bytes, BytesMut};
use relay_common::derp::message::recv_packet_header;
use relay_common::key::NodePublic;
use relay_user::mailbox::{Lane, MAX_LANE_BYTES, MAX_LANE_FRAMES, MIN_LANE_FRAMES, Mailbox};

use super::traffic::{HEAD, READ, RECEIVERS, Traffic};

/// Minimum room for a read; a system call for less does not pay.
const LEAST_READ: usize = 4 * 1024;

/// Whether to share or to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Share payloads of at least this many bytes: 0 always shares, `usize::MAX` always copies.
    From(usize),
    /// Share payloads that are at least half of the read buffer that they would keep alive.
    Half,
    /// relayd: copy into the receiver's mailbox, which is one buffer.
    Mailbox,
}

/// The result of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Payload bytes copied after the read, including partial frames moved to the front of a new buffer.
    pub copied: usize,
    /// All payload bytes.
    pub payload: usize,
    /// The largest number of bytes that the queues kept alive after a read.
    pub peak_held: usize,
    /// Payload bytes that were queued at that time.
    pub queued_at_peak: usize,
    /// The worst ratio of these two after any read that left at least 64 KiB queued.
    pub worst_ratio: f64,
    /// Frames that full queues dropped.
    pub dropped: usize,
}

/// Carries all traffic. With `track`, it follows the memory held, which takes extra time.
pub fn carry(policy: Policy, traffic: &Traffic, track: bool) -> Outcome {
    match policy {
        Policy::Mailbox => through_mailboxes(traffic, track),
        _ => through_handles(policy, traffic, track),
    }
}

/// Memory that queued handles keep alive: read buffers by number, and copies.
#[derive(Default)]
struct Held {
    blocks: HashMap<u64, (usize, usize)>,
    bytes: usize,
    queued: usize,
}

impl Held {
    fn add(&mut self, item: &Item) {
        self.queued += item.payload.len();
        let (handles, _) = self.blocks.entry(item.block).or_insert_with(|| {
            self.bytes += item.capacity;
            (0, item.capacity)
        });
        *handles += 1;
    }

    fn remove(&mut self, item: &Item) {
        self.queued -= item.payload.len();
        if let Some((handles, capacity)) = self.blocks.get_mut(&item.block) {
            *handles -= 1;
            if *handles == 0 {
                self.bytes -= *capacity;
                self.blocks.remove(&item.block);
            }
        }
    }
}

/// A queued payload and its allocation.
struct Item {
    payload: Bytes,
    block: u64,
    capacity: usize,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    blocked: bool,
}

fn through_handles(policy: Policy, traffic: &Traffic, track: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut queues: Vec<Queue> = (0..RECEIVERS).map(|_| Queue::default()).collect();
    let (mut held, mut input) = (Held::default(), Input::default());
    for (turn, mut read) in traffic.reads().enumerate() {
        while !read.is_empty() {
            outcome.copied += input.make_room();
            read = input.fill(read);
            while let Some((to, payload)) = input.frame() {
                let length = payload.len();
                outcome.payload += length;
                let share = match policy {
                    Policy::Half => 2 * length >= input.capacity,
                    Policy::From(threshold) => length >= threshold,
                    Policy::Mailbox => false,
                };
                let item = if share {
                    Item { payload: payload.freeze(), block: input.block, capacity: input.capacity }
                } else {
                    outcome.copied += length;
                    let block = input.next_block();
                    Item { payload: Bytes::copy_from_slice(&payload), block, capacity: length }
                };
                queues[to].push(item, |old| {
                    outcome.dropped += 1;
                    if track {
                        held.remove(old);
                    }
                });
                if track && let Some(item) = queues[to].items.back() {
                    held.add(item);
                }
            }
        }
        for receiver in traffic.drained(turn) {
            let queue = std::mem::take(&mut queues[receiver]);
            if track {
                queue.items.iter().for_each(|item| held.remove(item));
            }
        }
        traffic.slow(turn).for_each(|receiver| queues[receiver].blocked = true);
        if track {
            outcome.look(held.bytes, held.queued);
        }
    }
    outcome
}

impl Queue {
    /// The queue has the limits of relayd's lanes and drops from the head like them.
    fn push(&mut self, item: Item, mut dropped: impl FnMut(&Item)) {
        let length = item.payload.len();
        let blocked = self.blocked;
        let over = |frames, bytes| blocked || frames >= MAX_LANE_FRAMES || bytes + length > MAX_LANE_BYTES;
        while self.items.len() >= MIN_LANE_FRAMES && over(self.items.len(), self.bytes) {
            let Some(old) = self.items.pop_front() else { break };
            self.bytes -= old.payload.len();
            dropped(&old);
        }
        self.bytes += length;
        self.items.push_back(item);
    }
}

/// The read buffer. It is no larger than [`READ`] or than one longer frame, because a shared slice keeps all
/// of it alive.
#[derive(Default)]
struct Input {
    buffer: BytesMut,
    /// The allocation under the buffer, and its size.
    block: u64,
    capacity: usize,
    blocks: u64,
}

impl Input {
    /// Makes room for the rest of a frame that has begun, or for a read; returns the bytes moved.
    fn make_room(&mut self) -> usize {
        let tail = self.buffer.len();
        let rest = header(&self.buffer).map_or(0, |(_, length)| HEAD + length - tail);
        let room = rest.max(LEAST_READ);
        if self.buffer.capacity() - tail >= room {
            return 0;
        }
        let before = self.buffer.as_ptr();
        if !self.buffer.try_reclaim(room) {
            let mut fresh = BytesMut::with_capacity(READ.max(tail + rest));
            fresh.extend_from_slice(&self.buffer);
            self.buffer = fresh;
        }
        if self.buffer.as_ptr() == before {
            return 0;
        }
        self.block = self.next_block();
        self.capacity = self.buffer.capacity();
        tail
    }

    /// Takes as many bytes as there is room for; returns the rest.
    fn fill<'a>(&mut self, read: &'a [u8]) -> &'a [u8] {
        let room = self.buffer.capacity() - self.buffer.len();
        let (now, later) = read.split_at(room.min(read.len()));
        self.buffer.extend_from_slice(now);
        later
    }

    /// The next whole frame: its receiver and its payload.
    fn frame(&mut self) -> Option<(usize, BytesMut)> {
        let (to, length) = header(&self.buffer).filter(|(_, length)| self.buffer.len() >= HEAD + length)?;
        self.buffer.advance(HEAD);
        Some((to, self.buffer.split_to(length)))
    }

    fn next_block(&mut self) -> u64 {
        self.blocks += 1;
        self.blocks
    }
}

fn through_mailboxes(traffic: &Traffic, track: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mailboxes: Vec<Mailbox> = (0..RECEIVERS).map(|_| Mailbox::default()).collect();
    let from = NodePublic::from_bytes([7; 32]);
    let mut carry = Vec::new();
    for (turn, read) in traffic.reads().enumerate() {
        let mut input = read;
        loop {
            // Like the deframer: whole frames stay where they are, and frames that span reads are collected
            // first.
            let whole = |bytes: &[u8]| header(bytes).filter(|(_, length)| bytes.len() >= HEAD + length);
            let (frame, rest) = if carry.is_empty() {
                let Some((_, length)) = whole(input) else { break };
                input.split_at(HEAD + length)
            } else {
                let wanted = header(&carry).map_or(HEAD, |(_, length)| HEAD + length) - carry.len();
                let (piece, rest) = input.split_at(wanted.min(input.len()));
                outcome.copied += piece.len();
                carry.extend_from_slice(piece);
                input = rest;
                if whole(&carry).is_none() {
                    if input.is_empty() { break } else { continue }
                }
                (carry.as_slice(), rest)
            };
            let Some((to, length)) = header(frame) else { break };
            let head = recv_packet_header(&from, length);
            if let Ok(pushed) = mailboxes[to].push(Lane::Data, &head, &frame[HEAD..], false) {
                outcome.dropped += pushed.dropped.frames;
            }
            outcome.payload += length;
            outcome.copied += length;
            input = rest;
            carry.clear();
        }
        if carry.is_empty() {
            outcome.copied += input.len();
            carry.extend_from_slice(input);
        }
        for receiver in traffic.drained(turn) {
            while !mailboxes[receiver].take().is_empty() {}
        }
        // The other receivers' connections were woken and found their sockets full.
        traffic.slow(turn).for_each(|receiver| mailboxes[receiver].settle());
        if track {
            let held = mailboxes.iter().map(Mailbox::held_bytes).sum();
            outcome.look(held, mailboxes.iter().map(|mailbox| mailbox.depth().bytes).sum());
        }
    }
    outcome
}

/// The receiver and the payload length of the frame at the start of `bytes`.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let [to, a, b, c, d, ..] = bytes else { return None };
    Some((usize::from(*to), u32::from_be_bytes([*a, *b, *c, *d]) as usize))
}

impl Outcome {
    fn look(&mut self, held: usize, queued: usize) {
        if held > self.peak_held {
            (self.peak_held, self.queued_at_peak) = (held, queued);
        }
        // With less, one partial buffer decides the ratio, and little memory is involved.
        if queued >= READ {
            self.worst_ratio = self.worst_ratio.max(held as f64 / queued as f64);
        }
    }
}
