//! The bind handshakes of one leg that are in progress.
//!
//! A challenge is made for a handshake and for the number of binds that the leg had completed when the
//! handshake began, so what was recorded before a bind is worth nothing after it. (Upstream remembers only
//! the last handshake and no number: whoever replays an old Bind and Answer moves a leg back, and whoever
//! replays an old Bind alone between a client's Bind and Answer makes the answer worthless.)

/// Handshakes remembered per leg. A handshake that is pushed out counts as one that began just now.
const REMEMBERED: usize = 4;

/// One handshake in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handshake {
    /// The number that the client gave it (upstream's "generation").
    number: u32,
    /// The leg's completed binds when it began.
    binds: u32,
}

/// The latest handshakes of a leg, the newest last.
///
/// Boxed, because a leg has them only while it binds.
#[derive(Clone, Debug, Default)]
pub(super) struct Handshakes(Option<Box<Vec<Handshake>>>);

impl Handshakes {
    /// The client began a handshake. Returns the number of binds that its challenge is for.
    pub(super) fn begin(&mut self, number: u32, binds: u32) -> u32 {
        let known = self.0.get_or_insert_with(|| Box::new(Vec::with_capacity(REMEMBERED)));
        // A repeated Bind does not begin anew: the challenge that is on its way stays good.
        if let Some(same) = known.iter().find(|other| other.number == number) {
            return same.binds;
        }
        if known.len() == REMEMBERED {
            known.remove(0);
        }
        known.push(Handshake { number, binds });
        binds
    }

    /// The number of binds that the handshake's challenge is for, if the leg has now completed `binds`.
    pub(super) fn binds(&self, number: u32, binds: u32) -> u32 {
        let mut known = self.0.iter().flat_map(|known| known.iter());
        known.find(|other| other.number == number).map_or(binds, |known| known.binds)
    }

    /// The handshake is complete: it ends, and with it those that began before it. One that began later may
    /// still be answered, since the client has moved on by then.
    pub(super) fn complete(&mut self, number: u32) {
        let Some(known) = &mut self.0 else { return };
        let newer = known.iter().position(|other| other.number == number).map_or(known.len(), |at| at + 1);
        known.drain(..newer);
        if known.is_empty() {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_before_a_bind_is_worth_nothing_after_it() {
        let mut leg = Handshakes::default();
        assert_eq!(leg.begin(7, 0), 0);
        leg.complete(7);
        assert_eq!(leg.binds(7, 1), 1, "its challenge was for 0");
        assert_eq!(leg.begin(7, 1), 1, "and a replayed Bind gets another one");
    }

    #[test]
    fn a_bind_replayed_between_bind_and_answer_blocks_nothing() {
        let mut leg = Handshakes::default();
        leg.begin(9, 3);
        for old in 1..9 {
            leg.begin(old, 3);
            assert_eq!(leg.binds(9, 3), 3, "after {old}, in memory or pushed out");
        }
    }

    #[test]
    fn an_answer_that_comes_late_does_not_end_the_handshake_that_began_after_it() {
        let mut leg = Handshakes::default();
        leg.begin(1, 5);
        leg.begin(2, 5);
        leg.complete(1);
        assert_eq!(leg.binds(2, 6), 5, "still good");
        leg.complete(2);
        assert_eq!(leg.binds(1, 7), 7, "and the earlier one is not");
        assert!(leg.0.is_none(), "nothing is kept");
    }

    #[test]
    fn a_repeated_bind_keeps_the_challenge_that_is_on_its_way() {
        let mut leg = Handshakes::default();
        leg.begin(1, 5);
        leg.begin(2, 5);
        leg.complete(1);
        assert_eq!(leg.begin(2, 6), 5);
    }
}
