//! The incoming frames and how slowly receivers take them: the same for every policy.

use std::ops::Range;

use crate::bench::lookup::random::{Random, mix};

/// Room for each read.
pub(super) const READ: usize = 64 * 1024;

/// Bytes in front of a payload in this traffic: its length and its receiver.
pub(super) const HEAD: usize = 5;

/// Number of receivers; one byte identifies a receiver.
pub(super) const RECEIVERS: usize = 64;

/// Frames of mixed lengths for many receivers, as reads of up to 64 KiB.
pub struct Traffic {
    stream: Vec<u8>,
    reads: Vec<Range<usize>>,
    frames: usize,
}

impl Traffic {
    /// Makes `frames` frames; `length` draws the lengths of their payloads.
    pub fn new(frames: usize, seed: u64, mut length: impl FnMut(&mut Random) -> usize) -> Self {
        let mut random = Random(mix(seed));
        let (mut stream, mut reads) = (Vec::new(), Vec::new());
        for _ in 0..frames {
            let length = length(&mut random);
            stream.push(random.below(RECEIVERS as u64) as u8);
            stream.extend_from_slice(&(length as u32).to_be_bytes());
            stream.resize(stream.len() + length, 0x5a);
        }
        let mut at = 0;
        while at < stream.len() {
            // Under load a read is full; otherwise it returns the bytes that have arrived.
            let full = random.below(2) == 0;
            let read = if full { READ } else { 1 + random.below(READ as u64) as usize };
            let end = stream.len().min(at + read);
            reads.push(at..end);
            at = end;
        }
        Self { stream, reads, frames }
    }

    /// Mostly packets of a tunnel, and also every other length: 40 bytes to 64 KiB.
    pub fn mixed(frames: usize, seed: u64) -> Self {
        Self::new(frames, seed, |random| {
            let (low, high) = match random.below(100) {
                0..35 => (40, 200),
                35..85 => (1_000, 1_420),
                85..95 => (1_421, 16_383),
                _ => (16_384, 65_536),
            };
            (low + random.below(high - low + 1)) as usize
        })
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.frames
    }

    pub(super) fn reads(&self) -> impl Iterator<Item = &[u8]> {
        self.reads.iter().map(|range| &self.stream[range.clone()])
    }

    /// The receivers that take all waiting frames after this read: half of the receivers always, a quarter
    /// every eighth time, and a quarter rarely.
    pub(super) fn drained(&self, turn: usize) -> impl Iterator<Item = usize> + use<> {
        (0..RECEIVERS).filter(move |receiver| drains(*receiver, turn))
    }

    /// The receivers that take nothing after this read.
    pub(super) fn slow(&self, turn: usize) -> impl Iterator<Item = usize> + use<> {
        (0..RECEIVERS).filter(move |receiver| !drains(*receiver, turn))
    }
}

fn drains(receiver: usize, turn: usize) -> bool {
    match receiver % 4 {
        0 | 1 => true,
        2 => turn % 8 == receiver / 4 % 8,
        _ => turn % 128 == receiver * 2,
    }
}

const _: () = assert!(HEAD == 5 && RECEIVERS <= 256);
