//! The Internet checksum: full sums (RFC 1071) and incremental updates (RFC 1624).
//!
//! A forwarder updates the checksum and does not recompute it: it reads only the words that change, and a
//! packet that arrives damaged still has a wrong checksum when it leaves.

/// A one's-complement sum of 16-bit words in network order before the carries are folded in. It has room for
/// four thousand million words.
///
/// The words are added in this machine's order, and only the folded sum is turned into network order: a sum
/// of swapped words is the swapped sum (RFC 1071, 2B).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds one word.
    #[must_use]
    #[inline(always)]
    pub fn with(self, word: [u8; 2]) -> Self {
        Self(self.0.wrapping_add(u16::from_ne_bytes(word).into()))
    }

    /// Adds two words, such as an IPv4 address.
    #[must_use]
    #[inline(always)]
    pub fn with4(self, words: [u8; 4]) -> Self {
        Self(self.0.wrapping_add(u32::from_ne_bytes(words).into()))
    }

    /// Adds bytes that begin on a word boundary; an odd last byte counts as if a zero followed.
    #[must_use]
    pub fn with_bytes(self, bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks::<2>();
        let sum = words.iter().fold(self, |sum, &word| sum.with(word));
        tail.iter().fold(sum, |sum, &last| sum.with([last, 0]))
    }

    /// Adds another sum, whose bytes began on a word boundary too.
    #[must_use]
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        self.with(other.fold().to_be_bytes())
    }

    /// The 16-bit sum, not complemented.
    #[inline(always)]
    pub fn fold(self) -> u16 {
        // Of 64 bits 33 are left, then 18, 17 and 16.
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let twice = (once & 0xffff) + (once >> 16);
        let thrice = (twice & 0xffff) + (twice >> 16);
        let last = (thrice & 0xffff) + (thrice >> 16);
        u16::from_be(last as u16)
    }
}

/// The checksum of `bytes`: the complement of their sum.
pub fn full(bytes: &[u8]) -> u16 {
    !Sum::default().with_bytes(bytes).fold()
}

/// Updates a checksum for changed words: RFC 1624, equation 3, `~(~HC + ~m + m')`.
#[derive(Clone, Copy, Debug)]
pub struct Update(Sum);

impl Update {
    /// Starts with the packet's checksum.
    #[must_use]
    #[inline(always)]
    pub fn of(checksum: [u8; 2]) -> Self {
        Self(Sum::default().with(not(checksum)))
    }

    /// Starts without a checksum, to be added to several ([`Self::and`]).
    #[must_use]
    #[inline(always)]
    pub fn none() -> Self {
        Self(Sum::default())
    }

    /// Replaces the words that the other update replaces, too.
    #[must_use]
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(Sum(self.0.0.wrapping_add(other.0.0)))
    }

    /// Replaces one word.
    #[must_use]
    #[inline(always)]
    pub fn replace(self, old: [u8; 2], new: [u8; 2]) -> Self {
        Self(self.0.with(not(old)).with(new))
    }

    /// Replaces two words, such as an IPv4 address.
    #[must_use]
    #[inline(always)]
    pub fn replace4(self, old: [u8; 4], new: [u8; 4]) -> Self {
        Self(self.0.with4(old.map(|byte| !byte)).with4(new))
    }

    /// The checksum of the changed packet.
    #[inline(always)]
    pub fn finish(self) -> u16 {
        !self.0.fold()
    }
}

/// UDP writes a computed zero as all ones (RFC 768), because zero on the wire means that there is no
/// checksum.
#[inline(always)]
pub fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[inline(always)]
fn not([a, b]: [u8; 2]) -> [u8; 2] {
    [!a, !b]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sum_of_rfc_1071_comes_out() {
        let sum = Sum::default().with_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
    }

    #[test]
    fn the_update_of_rfc_1624_section_4_comes_out_as_zero_and_not_all_ones() {
        assert_eq!(Update::of([0xdd, 0x2f]).replace([0x55, 0x55], [0x32, 0x85]).finish(), 0x0000);
    }

    #[test]
    fn the_largest_packet_does_not_overflow_the_sum() {
        let bytes = std::vec![0xff; 65_536];
        assert_eq!(Sum::default().with_bytes(&bytes).with_bytes(&bytes).fold(), 0xffff);
        let most = (0..300_000).fold(Sum::default(), |sum, _| sum.with4([0xff; 4]));
        assert_eq!(most.fold(), 0xffff);
        let carries = [0xff_u8, 0xff, 0xff, 0xfe];
        assert_eq!(Sum::default().with4(carries).with4([0, 0, 0, 2]).fold(), 1);
        assert_eq!(full(&bytes), 0);
    }

    #[test]
    fn an_odd_last_byte_is_the_upper_half_of_its_word() {
        assert_eq!(full(&[0x12]), full(&[0x12, 0x00]));
        assert_eq!(full(&[]), 0xffff);
    }

    #[test]
    fn an_update_that_changes_nothing_keeps_every_checksum_but_the_second_zero() {
        for checksum in 0..=0xffffu16 {
            let same = Update::of(checksum.to_be_bytes()).replace([0x12, 0x34], [0x12, 0x34]).finish();
            // All ones and zero are the same number in one's complement; the sum of a packet that is not
            // empty folds to all ones.
            assert_eq!(same, if checksum == 0xffff { 0 } else { checksum });
        }
    }

    #[test]
    fn a_computed_zero_is_written_as_all_ones() {
        assert_eq!(never_zero(0), 0xffff);
        assert_eq!(never_zero(0xffff), 0xffff);
        assert_eq!(never_zero(1), 1);
    }

    /// Words that are often edge values.
    fn word() -> impl Strategy<Value = [u8; 2]> {
        prop_oneof![Just([0, 0]), Just([0xff, 0xff]), Just([0xff, 0xfe]), Just([0, 1]), any::<[u8; 2]>()]
    }

    proptest! {
        #[test]
        fn an_update_equals_a_full_recompute(
            mut words in proptest::collection::vec(word(), 2..40),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), word()), 0..12),
        ) {
            // One word is never zero, like TTL and protocol in a header.
            words.push([0x40, 17]);
            let changeable = words.len() - 1;
            let mut update = Update::of(full(&words.concat()).to_be_bytes()).replace([0x40, 17], [0x3f, 17]);
            words[changeable] = [0x3f, 17];
            for (index, new) in changes {
                let at = index.index(changeable);
                update = update.replace(words[at], new);
                words[at] = new;
            }
            prop_assert_eq!(update.finish(), full(&words.concat()));
        }

        #[test]
        fn replacements_that_two_checksums_share_are_summed_once(
            [old, new, start, own] in any::<[[u8; 2]; 4]>(),
        ) {
            let shared = Update::none().replace(old, new).replace4([1, 2, 3, 4], [5, 6, 7, 8]);
            let apart = Update::of(start).replace([9, 9], own).replace(old, new);
            let apart = apart.replace4([1, 2, 3, 4], [5, 6, 7, 8]).finish();
            prop_assert_eq!(Update::of(start).replace([9, 9], own).and(shared).finish(), apart);
        }

        #[test]
        fn four_bytes_are_two_words(old in any::<[u8; 4]>(), new in any::<[u8; 4]>(), start in word()) {
            let whole = Update::of(start).replace4(old, new).finish();
            let halves = Update::of(start)
                .replace([old[0], old[1]], [new[0], new[1]])
                .replace([old[2], old[3]], [new[2], new[3]])
                .finish();
            prop_assert_eq!(whole, halves);
            prop_assert_eq!(
                Sum::default().with4(old).fold(),
                Sum::default().with_bytes(&old).fold()
            );
        }
    }
}
