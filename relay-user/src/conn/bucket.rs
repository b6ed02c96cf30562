//! A token bucket. The caller passes the time.

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A bucket that gains `rate` tokens a second and holds at most `burst`.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    token_ns: u64,
    burst_ns: u64,
    // The time up to which tokens are spent stands for the number of tokens: so there are no fractions.
    spent_until_ns: u64,
}

impl Bucket {
    /// Makes a full bucket. `rate` must not be zero.
    pub fn new(rate: u32, burst: u32, now_ns: u64) -> Self {
        let token_ns = SECOND / u64::from(rate.max(1));
        let burst_ns = u64::from(burst) * token_ns;
        Self { token_ns, burst_ns, spent_until_ns: now_ns.saturating_sub(burst_ns) }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now_ns: u64) -> bool {
        let spent_until_ns = self.spent_until_ns.max(now_ns.saturating_sub(self.burst_ns)) + self.token_ns;
        let there_is = spent_until_ns <= now_ns;
        if there_is {
            self.spent_until_ns = spent_until_ns;
        }
        there_is
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_a_second() {
        let start = 1_000 * SECOND;
        let mut bucket = Bucket::new(1, 3, start);
        assert_eq!([(); 5].map(|()| bucket.take(start)), [true, true, true, false, false]);
        assert!(!bucket.take(start + SECOND - 1));
        assert!(bucket.take(start + SECOND));
        assert!(!bucket.take(start + SECOND));
    }

    #[test]
    fn rest_never_earns_more_than_the_burst() {
        let mut bucket = Bucket::new(1, 3, 10 * SECOND);
        let later = 1_000_000 * SECOND;
        assert_eq!((0..10).filter(|_| bucket.take(later)).count(), 3);
    }
}
