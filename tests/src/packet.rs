//! Random frames from a seed: good frames of the sample session, and damaged ones.

use relay_common::{forward::sample, net::datagram::fill_checksums};

/// A small generator (SplitMix64): the same seed gives the same frames everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts a series.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which must not be zero.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.bits() % limit as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.bits().to_le_bytes()[0]
    }

    fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }
}

/// A good frame of one of the sample session's clients, of any size up to the MTU.
pub fn good_frame(random: &mut Random) -> Vec<u8> {
    let body: Vec<u8> = (0..random.below(1400)).map(|_| random.byte()).collect();
    sample::frame(random.below(2), &sample::geneve(sample::VNI, &body))
}

/// A good frame that was damaged: header bytes changed, cut or padded, or checksums corrected again. Some
/// hundreds of them reach most reasons.
pub fn damaged_frame(random: &mut Random) -> Vec<u8> {
    let mut frame = good_frame(random);
    if random.one_in(4) {
        return frame;
    }
    for _ in 0..random.below(3) {
        let at = random.below(50);
        frame[at] = match random.below(4) {
            0 => 0,
            1 => 0xff,
            2 => frame[at] ^ (1 << random.below(8)),
            _ => random.byte(),
        };
    }
    if random.one_in(8) {
        frame.truncate(14 + random.below(frame.len() - 14));
    }
    if random.one_in(8) {
        frame.extend((0..random.below(40)).map(|_| 0));
    }
    if random.one_in(2) {
        fill_checksums(&mut frame);
    }
    frame
}
