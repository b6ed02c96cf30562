//! Pauses between failed receives, so that a socket whose receives fail again and again does not use a whole
//! core. The pauses grow up to one second, the time that upstream sleeps.

use std::io;
use std::time::Duration;

use crate::clock;
use crate::observe::counters::{Counter, Counters};
use crate::observe::seldom::Seldom;

/// Pause after the first failure: most failures concern one earlier datagram, and the next receive works.
const FIRST: Duration = Duration::from_millis(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(1);

/// The number of failures in a row of one socket.
#[derive(Debug, Default)]
pub struct Setbacks {
    in_a_row: u32,
    told: Seldom,
}

impl Setbacks {
    /// Notes that the socket works.
    pub fn over(&mut self) {
        self.in_a_row = 0;
    }

    /// Counts and logs a failed receive, and waits before the next one.
    pub async fn pause(&mut self, error: &io::Error, what: &str, counter: Counter, counters: &Counters) {
        counters.add(counter, 1);
        if let Some(left_out) = self.told.note(clock::monotonic_ms()) {
            tracing::warn!(%error, left_out, "{what}: cannot receive; trying again");
        }
        tokio::time::sleep(self.next()).await;
    }

    /// The pause after one more failure.
    fn next(&mut self) -> Duration {
        let pause = FIRST * 2u32.saturating_pow(self.in_a_row.min(16));
        self.in_a_row += 1;
        pause.min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_are_forgotten_when_it_works() {
        let mut setbacks = Setbacks::default();
        let all: Vec<_> = (0..100).map(|_| setbacks.next()).collect();
        assert_eq!(all[0], FIRST);
        assert!(all.is_sorted() && all[20..].iter().all(|pause| *pause == LONGEST), "{all:?}");
        setbacks.over();
        assert_eq!(setbacks.next(), FIRST);
    }
}
