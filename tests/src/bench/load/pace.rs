//! How much a slow reader may read now, so that its rate is steady.

/// Seconds of delay that a late reader may catch up; a longer delay is forgotten.
const BURST: f64 = 0.05;

/// A steady rate of reading.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_ns: f64,
    /// Maximum bytes of one read.
    burst: f64,
    room: f64,
    last_ns: u64,
}

impl Pace {
    /// A rate in bytes per second that starts now.
    pub(super) fn new(bytes_per_second: f64, now_ns: u64) -> Pace {
        let burst = bytes_per_second * BURST;
        Pace { bytes_per_ns: bytes_per_second / 1e9, burst, room: 0.0, last_ns: now_ns }
    }

    /// Bytes that may be read now.
    pub(super) fn room(&mut self, now_ns: u64) -> usize {
        let passed = now_ns.saturating_sub(self.last_ns);
        self.room = (self.room + passed as f64 * self.bytes_per_ns).min(self.burst);
        self.last_ns = now_ns;
        self.room as usize
    }

    /// Counts bytes that were read.
    pub(super) fn took(&mut self, bytes: usize) {
        self.room -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_reader_on_time_reads_at_its_rate_to_the_byte() {
        let mut pace = Pace::new(80_000.0, 7);
        let mut read = 0;
        for tick in 1..=1000 {
            let room = pace.room(7 + tick * 3 * MS);
            pace.took(room);
            read += room;
        }
        // Three seconds; the last byte may become due a nanosecond later.
        assert!((239_999..=240_000).contains(&read), "{read}");
    }

    #[test]
    fn what_is_not_read_stays_due_up_to_a_burst() {
        let mut pace = Pace::new(80_000.0, 0);
        assert_eq!(pace.room(10 * MS), 800);
        pace.took(500);
        assert_eq!(pace.room(10 * MS), 300);
        assert_eq!(pace.room(20 * MS), 1100);
        assert_eq!(pace.room(10_000 * MS), 4000, "ten seconds late, and no flood for it");
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing() {
        let mut pace = Pace::new(80_000.0, 5);
        assert_eq!([pace.room(5), pace.room(4)], [0, 0]);
    }
}
