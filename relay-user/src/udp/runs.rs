//! Splits a train into runs: datagrams behind each other that begin with the same eight bytes, the Geneve
//! header. All of a run is for one session, and is decided about once.

use relay_common::geneve::GENEVE_LEN;

/// Datagrams behind each other with the same header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where the run begins in the message.
    pub at: usize,
    /// Bytes.
    pub len: usize,
    /// Their first eight bytes; `None`: the run is one datagram that is shorter than that.
    pub head: Option<[u8; GENEVE_LEN]>,
}

/// The runs of a message of datagrams of `segment` bytes, of which the last may be shorter; 0: the message is
/// one datagram. Every datagram is in one run, in order.
pub fn runs(message: &[u8], segment: usize) -> impl Iterator<Item = Run> {
    let size = if segment == 0 { message.len().max(1) } else { segment };
    let mut at = 0;
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let head = message.get(at..).and_then(<[u8]>::first_chunk::<GENEVE_LEN>);
        // A datagram may be shorter than the eight bytes that follow its beginning in memory.
        let head = head.filter(|_| size >= GENEVE_LEN).copied();
        let mut end = message.len().min(at + size);
        while head.is_some() && end < message.len() {
            if message[end..].first_chunk::<GENEVE_LEN>() != head.as_ref() {
                break;
            }
            end = message.len().min(end + size);
        }
        let run = Run { at, len: end - at, head };
        (at, done) = (end, end >= message.len());
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A train of datagrams of ten bytes whose headers are these letters; the last has `tail` bytes.
    fn train(letters: &str, tail: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = letters.bytes().flat_map(|letter| [letter; 10]).collect();
        bytes.truncate(bytes.len() - 10 + tail);
        bytes
    }

    #[test]
    fn headers_end_runs_and_nothing_else_does() {
        let cases: &[(&str, usize, &[usize])] = &[
            ("a", 10, &[10]),
            ("aaaa", 10, &[40]),
            ("aaaa", 8, &[38]),
            ("aaaa", 7, &[30, 7]),
            ("aaaa", 1, &[30, 1]),
            ("aabb", 10, &[20, 20]),
            ("abab", 10, &[10, 10, 10, 10]),
            ("aaab", 9, &[30, 9]),
            ("abbb", 3, &[10, 20, 3]),
        ];
        for (letters, tail, expected) in cases {
            let bytes = train(letters, *tail);
            let lengths: Vec<_> = runs(&bytes, 10).map(|run| run.len).collect();
            assert_eq!(lengths, *expected, "{letters} {tail}");
        }
    }

    #[test]
    fn one_datagram_is_one_run_and_short_ones_have_no_header() {
        for (len, segment) in [(10, 0), (10, 10), (10, 99), (0, 0), (7, 0)] {
            let bytes = vec![1; len];
            let all: Vec<_> = runs(&bytes, segment).collect();
            let head = (len >= 8).then_some([1; 8]);
            assert_eq!(all, [Run { at: 0, len, head }]);
        }
        assert_eq!(runs(&[1; 10], 5).map(|run| run.head).collect::<Vec<_>>(), [None, None]);
    }

    proptest! {
        #[test]
        fn every_datagram_is_in_one_run_with_its_header(
            letters in "[ab]{1,40}", tail in 1..=10usize, segment in 0..60usize,
        ) {
            let bytes = train(&letters, tail);
            let size = if segment == 0 { bytes.len() } else { segment };
            let mut end = 0;
            for run in runs(&bytes, segment) {
                prop_assert_eq!(run.at, end);
                end += run.len;
                for datagram in bytes[run.at..end].chunks(size) {
                    prop_assert_eq!(datagram.first_chunk().copied(), run.head);
                }
                prop_assert!(run.head.is_some() || run.len <= size);
            }
            prop_assert_eq!(end, bytes.len());
        }
    }
}
