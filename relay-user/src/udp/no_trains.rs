//! Destinations to which the kernel does not send trains for now: their path takes smaller datagrams only, so
//! that each has to be cut into fragments by itself.

use std::net::SocketAddr;

use hashbrown::HashMap;

/// Nanoseconds for which a destination is remembered. Another try costs one call that fails.
const REMEMBERED_NS: u64 = 10_000_000_000;

/// Destinations that are remembered at most.
const MOST: usize = 1024;

/// The destinations of one worker.
#[derive(Debug, Default)]
pub(super) struct NoTrains {
    by: HashMap<SocketAddr, Remembered, foldhash::fast::RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    /// Bytes of the datagrams that were refused.
    size: usize,
    until_ns: u64,
}

impl NoTrains {
    /// Notes that no train of datagrams of `size` bytes or more gets to this destination.
    pub(super) fn note(&mut self, to: SocketAddr, size: usize, now_ns: u64) {
        if self.by.len() >= MOST {
            self.by.retain(|_, one| one.until_ns > now_ns);
        }
        if self.by.len() >= MOST {
            self.by.clear();
        }
        let size =
            self.by.get(&to).filter(|old| old.until_ns > now_ns).map_or(size, |old| old.size.min(size));
        self.by.insert(to, Remembered { size, until_ns: now_ns.saturating_add(REMEMBERED_NS) });
    }

    /// Whether a train of datagrams of `size` bytes may be tried.
    pub(super) fn allows(&self, to: SocketAddr, size: usize, now_ns: u64) -> bool {
        self.by.is_empty() || self.by.get(&to).is_none_or(|one| size < one.size || one.until_ns <= now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn smaller_datagrams_and_other_destinations_go_on_and_time_heals() {
        let mut none = NoTrains::default();
        assert!(none.allows(addr(1), 1400, 0));
        none.note(addr(1), 1400, 0);
        none.note(addr(1), 1450, 5);
        assert!(!none.allows(addr(1), 1400, 5) && !none.allows(addr(1), 1500, 5));
        assert!(none.allows(addr(1), 1399, 5) && none.allows(addr(2), 1400, 5));
        assert!(none.allows(addr(1), 1400, 5 + REMEMBERED_NS));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_over_makes_room() {
        let mut none = NoTrains::default();
        for port in 0..2 * MOST as u16 {
            none.note(addr(port), 1400, u64::from(port));
            assert!(none.by.len() <= MOST && !none.allows(addr(port), 1400, u64::from(port)));
        }
        let mut none = NoTrains::default();
        (0..MOST as u16).for_each(|port| none.note(addr(port), 1400, if port == 7 { 1 } else { 0 }));
        none.note(addr(9999), 1400, REMEMBERED_NS);
        assert_eq!(none.by.len(), 2, "the seventh is not over");
    }
}
