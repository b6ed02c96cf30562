//! "Forwarded, and dropped by the driver": notices it.
//!
//! The program counts a frame as forwarded when it asks the driver to send it (XDP_TX). A driver that cannot
//! send it then, such as a veth whose other end has no XDP program, drops it and tells nobody but its own
//! count of dropped frames, `tx_dropped`.

/// Forwarded frames between two judgements: so few drops as there may always be weigh little in them.
const FRAMES: u64 = 1000;
/// What was counted longer ago than this is not judged: over days, few drops of the host's own are many.
const WINDOW_NS: u64 = 60_000_000_000;

/// The counts at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// CLOCK_MONOTONIC nanoseconds.
    pub(super) now_ns: u64,
    /// The interface.
    pub(super) ifindex: u32,
    /// Frames that the program forwarded.
    pub(super) forwarded: u64,
    /// Frames that the interface dropped.
    pub(super) dropped: u64,
}

/// Follows the counts.
#[derive(Debug, Default)]
pub(super) struct TxDrops {
    base: Option<Counts>,
    most_are_dropped: bool,
}

impl TxDrops {
    /// Looks at the counts; `None`: the program does not forward now, or the interface does not count.
    /// Returns true when most frames are newly found to be dropped.
    pub(super) fn look(&mut self, counts: Option<Counts>) -> bool {
        let (Some(now), Some(base)) = (counts, self.base) else {
            *self = Self { base: counts, most_are_dropped: false };
            return false;
        };
        // An interface that was made anew counts from zero.
        if now.ifindex != base.ifindex || now.dropped < base.dropped {
            *self = Self { base: counts, most_are_dropped: false };
            return false;
        }
        let forwarded = now.forwarded.saturating_sub(base.forwarded);
        if forwarded < FRAMES {
            if now.now_ns.saturating_sub(base.now_ns) >= WINDOW_NS {
                self.base = counts;
            }
            return false;
        }
        self.base = counts;
        let most = now.dropped - base.dropped > forwarded / 2;
        !std::mem::replace(&mut self.most_are_dropped, most) && most
    }

    /// Whether most frames were dropped when that was last judged.
    pub(super) fn most_are_dropped(&self) -> bool {
        self.most_are_dropped
    }
}

/// What to tell an operator.
pub(super) fn sentence(iface: &str) -> String {
    format!(
        "the driver of {iface} drops most frames that the XDP program forwards: the other end of a veth needs a \
         native XDP program too; a network card may need more queues (`ethtool -L`), or XDP by another interface"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn counts(second: u64, forwarded: u64, dropped: u64) -> Option<Counts> {
        Some(Counts { now_ns: second * SECOND, ifindex: 3, forwarded, dropped })
    }

    #[test]
    fn frames_that_are_mostly_dropped_are_told_once_until_they_are_not() {
        let mut drops = TxDrops::default();
        assert!(!drops.look(counts(0, 70, 5000)), "what was before does not count");
        assert!(!drops.look(counts(1, 1069, 6000)), "too few");
        assert!(drops.look(counts(2, 1070, 6000)) && drops.most_are_dropped());
        assert!(!drops.look(counts(3, 2070, 7000)) && drops.most_are_dropped(), "said once");
        assert!(!drops.look(counts(4, 2500, 7000)) && drops.most_are_dropped(), "too few to say otherwise");
        assert!(!drops.look(counts(5, 3070, 7500)) && !drops.most_are_dropped(), "half");
        assert!(drops.look(counts(6, 4070, 8001)), "and again");
    }

    #[test]
    fn drops_of_another_interface_or_of_a_time_without_the_program_do_not_count() {
        let mut drops = TxDrops::default();
        assert!(!drops.look(counts(0, 0, 9000)));
        assert!(!drops.look(counts(1, 2000, 10)), "fewer than before: made anew");
        assert!(!drops.look(counts(2, 3000, 20)), "10 of 1,000");
        let other = Counts { now_ns: 3 * SECOND, ifindex: 4, forwarded: 4000, dropped: 100_000 };
        assert!(!drops.look(Some(other)), "another interface, with a past of its own");
        let later = Counts { forwarded: 5000, dropped: 100_501, ..other };
        assert!(drops.look(Some(later)));
        assert!(!drops.look(None) && !drops.most_are_dropped(), "switched off");
        assert!(!drops.look(Some(Counts { dropped: 200_000, ..later })), "dropped while it was off");
        assert!(!drops.look(Some(Counts { forwarded: 6000, dropped: 200_000, ..later })));
    }

    #[test]
    fn few_frames_in_a_long_time_say_nothing() {
        let mut drops = TxDrops::default();
        assert!(!drops.look(counts(0, 0, 0)));
        for minute in 1..200 {
            assert!(!drops.look(counts(minute * 60, minute * 500, minute * 400)));
        }
        assert!(!drops.look(counts(199 * 60 + 1, 199 * 500 + 1000, 199 * 400 + 500)));
    }
}
