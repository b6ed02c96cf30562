//! "Forwarded, and dropped by the driver": notices it.
//!
//! The program counts a frame as forwarded when it asks the driver to send it (XDP_TX). A driver that cannot
//! send it then, such as a veth whose other end has no XDP program, drops it and tells nobody but its own
//! count of dropped frames, `tx_dropped`.

/// Forwarded frames between two judgements: so few drops as there may always be weigh little in them.
const FRAMES: u64 = 1000;

/// Follows the frames that the program forwarded and those that the interface dropped.
#[derive(Debug, Default)]
pub(super) struct TxDrops {
    /// Both counts at the last judgement.
    base: Option<(u64, u64)>,
    most_are_dropped: bool,
}

impl TxDrops {
    /// Looks at both counts. Returns true when most frames are newly found to be dropped.
    pub(super) fn look(&mut self, forwarded: u64, dropped: u64) -> bool {
        let Some((forwarded_then, dropped_then)) = self.base else {
            self.base = Some((forwarded, dropped));
            return false;
        };
        // An interface that is made anew counts from zero.
        let Some(more_dropped) = dropped.checked_sub(dropped_then) else {
            self.base = Some((forwarded, dropped));
            return false;
        };
        let more = forwarded.saturating_sub(forwarded_then);
        if more < FRAMES {
            return false;
        }
        self.base = Some((forwarded, dropped));
        let before = std::mem::replace(&mut self.most_are_dropped, more_dropped > more / 2);
        self.most_are_dropped && !before
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

    #[test]
    fn frames_that_are_mostly_dropped_are_told_once_until_they_are_not() {
        let mut drops = TxDrops::default();
        assert!(!drops.look(70, 5000), "what was before does not count");
        assert!(!drops.look(1069, 6000), "too few");
        assert!(drops.look(1070, 6000) && drops.most_are_dropped());
        assert!(!drops.look(2070, 7000) && drops.most_are_dropped(), "said once");
        assert!(!drops.look(2500, 7000) && drops.most_are_dropped(), "too few to say otherwise");
        assert!(!drops.look(3070, 7500) && !drops.most_are_dropped(), "half");
        assert!(drops.look(4070, 8001), "and again");
    }

    #[test]
    fn drops_of_an_interface_that_was_made_anew_are_counted_from_there() {
        let mut drops = TxDrops::default();
        assert!(!drops.look(0, 9000));
        assert!(!drops.look(2000, 10), "fewer than before");
        assert!(!drops.look(3000, 20), "10 of 1,000");
        assert!(drops.look(4000, 600));
    }
}
