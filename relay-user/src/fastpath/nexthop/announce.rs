//! How the packet workers tell of legs that were bound: without waiting, and so that none is forgotten.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use crate::route::vocabulary::BoundLeg;

/// The workers' end.
#[derive(Clone, Debug)]
pub struct Announce {
    legs: mpsc::Sender<BoundLeg>,
    missed: Arc<Notify>,
}

/// The other end.
#[derive(Debug)]
pub struct Announced {
    /// The legs, in order.
    pub legs: mpsc::Receiver<BoundLeg>,
    /// Notified when there was no room for a leg: any session may have one that was not told of.
    pub missed: Arc<Notify>,
}

impl Announce {
    /// Both ends; `room` legs may wait.
    pub fn new(room: usize) -> (Self, Announced) {
        let (sender, legs) = mpsc::channel(room);
        let missed = Arc::new(Notify::new());
        (Self { legs: sender, missed: Arc::clone(&missed) }, Announced { legs, missed })
    }

    /// Tells of a leg. Never waits.
    pub fn bound(&self, leg: BoundLeg) {
        if self.legs.try_send(leg).is_err() {
            self.missed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::route::vocabulary::LegPath;

    #[test]
    fn legs_for_which_there_is_no_room_are_said_to_be_missed() {
        let (announce, mut announced) = Announce::new(2);
        let path = LegPath { remote: ([192, 0, 2, 1], 1).into(), local: ([192, 0, 2, 2], 7777).into() };
        for vni in 1..=2 {
            announce.bound(BoundLeg { vni, leg: 0, path });
        }
        assert!(announced.missed.notified().now_or_never().is_none());
        (3..=9).for_each(|vni| announce.bound(BoundLeg { vni, leg: 0, path }));
        assert!(announced.missed.notified().now_or_never().is_some());
        assert!(announced.missed.notified().now_or_never().is_none(), "said once");
        assert_eq!(announced.legs.try_recv().map(|leg| leg.vni), Ok(1));
    }
}
