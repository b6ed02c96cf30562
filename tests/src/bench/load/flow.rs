//! One sender's packets to one receiver: which are on their way and which are lost.

use super::scan::Stamp;

/// If nothing arrives for this many nanoseconds, all packets on their way are lost.
const STALL_NS: u64 = 300_000_000;

/// Packets from one client to another.
#[derive(Debug)]
pub(super) struct Flow {
    /// Index of the sender among a thread's clients.
    pub(super) from: usize,
    /// The SendPacket frame; each packet gets a new stamp in it.
    pub(super) frame: Vec<u8>,
    sent: u64,
    /// One more than the highest number that arrived or was given up.
    settled: u64,
    lost: u64,
    heard_ns: u64,
}

impl Flow {
    pub(super) fn new(from: usize, frame: Vec<u8>) -> Flow {
        Flow { from, frame, sent: 0, settled: 0, lost: 0, heard_ns: 0 }
    }

    /// How many more packets may leave until `window` are on their way.
    pub(super) fn credit(&self, window: u64) -> u64 {
        window.saturating_sub(self.sent - self.settled)
    }

    /// The number of the packet that leaves now.
    pub(super) fn next(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }

    /// Counts an arrival. The relay keeps the order, so a gap is a loss.
    pub(super) fn arrived(&mut self, stamp: Stamp, now_ns: u64) {
        self.heard_ns = now_ns;
        if stamp.number >= self.settled {
            self.lost += stamp.number - self.settled;
            self.settled = stamp.number + 1;
        }
    }

    /// Gives up packets that should have arrived long ago.
    pub(super) fn settle(&mut self, now_ns: u64) {
        if self.sent == self.settled {
            self.heard_ns = now_ns;
        } else if now_ns.saturating_sub(self.heard_ns) > STALL_NS {
            self.lost += self.sent - self.settled;
            self.settled = self.sent;
            self.heard_ns = now_ns;
        }
    }

    /// Packets that are known to be lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u64) -> Stamp {
        Stamp { number, time_ns: 0 }
    }

    #[test]
    fn a_window_opens_as_packets_arrive_and_a_gap_is_a_loss() {
        let mut flow = Flow::new(0, Vec::new());
        assert_eq!([flow.next(), flow.next(), flow.next()], [0, 1, 2]);
        assert_eq!(flow.credit(4), 1);
        flow.arrived(stamp(0), 1);
        assert_eq!((flow.credit(4), flow.lost()), (2, 0));
        flow.arrived(stamp(2), 2);
        assert_eq!((flow.credit(4), flow.lost()), (4, 1));
    }

    #[test]
    fn silence_gives_up_on_what_is_on_its_way() {
        let mut flow = Flow::new(0, Vec::new());
        flow.settle(10);
        flow.next();
        flow.settle(10 + STALL_NS);
        assert_eq!((flow.credit(1), flow.lost()), (0, 0));
        flow.settle(11 + STALL_NS);
        assert_eq!((flow.credit(1), flow.lost()), (1, 1));
        flow.arrived(stamp(0), 12 + STALL_NS);
        assert_eq!(flow.lost(), 1, "one given up that arrives after all changes nothing");
    }
}
