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

/// The latest handshakes of a leg, the newest last. Empty, and without memory, unless the leg binds just now.
#[derive(Clone, Debug, Default)]
pub(super) struct Handshakes(Vec<Handshake>);

impl Handshakes {
    /// The client began a handshake. Returns the number of binds that its challenge is for.
    pub(super) fn begin(&mut self, number: u32, binds: u32) -> u32 {
        // A repeated Bind does not begin anew: the challenge that is on its way stays good.
        if let Some(same) = self.find(number) {
            return same.binds;
        }
        if self.0.len() == REMEMBERED {
            self.0.remove(0);
        }
        self.0.push(Handshake { number, binds });
        binds
    }

    /// The number of binds that the handshake's challenge is for, if the leg has now completed `binds`.
    pub(super) fn binds(&self, number: u32, binds: u32) -> u32 {
        self.find(number).map_or(binds, |known| known.binds)
    }

    /// The handshake is complete: it ends, and with it those that began before it. One that began later may
    /// still be answered, since the client has moved on by then.
    pub(super) fn complete(&mut self, number: u32) {
        let at = self.0.iter().position(|other| other.number == number);
        self.0.drain(..at.map_or(self.0.len(), |at| at + 1));
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    fn find(&self, number: u32) -> Option<&Handshake> {
        self.0.iter().find(|other| other.number == number)
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
        assert_eq!(leg.0.capacity(), 0, "nothing is kept");
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
