//! When a neighbour is asked after next.

/// First pause after a question, in nanoseconds. The kernel itself asks three times within three seconds.
const FIRST_NS: u64 = 4_000_000_000;

/// Longest pause: a neighbour that has gone may come back without a word.
const LONGEST_NS: u64 = 64_000_000_000;

/// The questions after one neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    not_before_ns: u64,
    in_a_row: u32,
}

impl Backoff {
    /// Whether it may be asked after now; if so, that is noted.
    pub(super) fn ask(&mut self, now_ns: u64) -> bool {
        if now_ns < self.not_before_ns {
            return false;
        }
        let pause = FIRST_NS.saturating_mul(1 << self.in_a_row.min(16)).min(LONGEST_NS);
        self.not_before_ns = now_ns.saturating_add(pause);
        self.in_a_row += 1;
        true
    }

    /// It was heard: the pauses begin anew.
    pub(super) fn over(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_that_does_not_answer_is_asked_less_and_less_often() {
        let mut backoff = Backoff::default();
        let asked: Vec<u64> = (0..300).filter(|second| backoff.ask(second * 1_000_000_000)).collect();
        assert_eq!(asked, [0, 4, 12, 28, 60, 124, 188, 252]);
        backoff.over();
        assert!(backoff.ask(253_000_000_000));
    }
}
