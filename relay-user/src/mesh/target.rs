//! One address of another relay: when to dial it, when to ask whether its link is alive, when to give it up.
//!
//! ```text
//!             Dial every 0.5 s, also while earlier dials hang                    Probe every second
//!   Down ──────────────────────────────────────────────► Up ───────────────────────────────────► Down
//!    ▲                       │ the relay's key is our own          3 s of silence, 6 s without an answer, or
//! its end
//!    │                       ├──────────────────────► Ourselves, for a minute
//!    └── the other link ends │ the key has a link already, for a minute
//!                            └──────────────────────► Alias
//! ```
//! Upstream waits 5 s between dials, and 120 s for a silent link. This module does no I/O, reads no clock and
//! draws no random numbers.

use std::collections::BTreeMap;

/// Nanoseconds between two dials, before jitter.
pub const DIAL_EVERY_NS: u64 = 500_000_000;
/// The jitter takes away or adds at most this part of the time between two dials: one in so many.
const JITTER_PART: u64 = 5;
/// Nanoseconds after which a dial is given up.
pub const DIAL_LIMIT_NS: u64 = 4_000_000_000;
/// Dials that may hang at once; the oldest is given up for another.
const MAX_DIALS: usize = 10;
/// Nanoseconds between two probes of a link.
pub const PROBE_EVERY_NS: u64 = 1_000_000_000;
/// Nanoseconds of silence after which a link is given up.
pub const SILENCE_LIMIT_NS: u64 = 3_000_000_000;
/// Nanoseconds without an answer to any probe after which a link is given up, whatever else its relay says:
/// it may be talking without taking anything. A Ping waits behind packets on a slow way, so this is longer.
pub const ANSWER_LIMIT_NS: u64 = 6_000_000_000;
/// Nanoseconds after which an address of a relay that has a link, or of our own, is dialled again: another
/// relay may be there by now.
const LOOK_AGAIN_NS: u64 = 60_000_000_000;
/// How often the time between two dials doubles, for a relay that refuses us: to 8 s.
const MAX_DOUBLINGS: u32 = 4;
/// Nanoseconds that must lie between two dials, whatever asks for the second.
const LEAST_PAUSE_NS: u64 = 100_000_000;

/// The name of one dial; later dials have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DialId(pub u64);

/// What the caller has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Begin to dial.
    Dial(DialId),
    /// Give this dial up, also if it has just succeeded.
    Abandon(DialId),
    /// Send a Ping over the link.
    Probe,
    /// End the link: its relay has been silent for too long.
    GiveUp,
}

/// Who answered a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A relay to which there is no link yet.
    New,
    /// A relay to which there is a link already, by another address.
    Linked,
    /// This relay itself.
    Ourselves,
}

/// The state of one address.
#[derive(Clone, Debug)]
pub struct Target {
    state: State,
    next_dial: u64,
    last_dial_ns: Option<u64>,
    /// Links in a row that ended before their relay had told of any client.
    refused: u32,
}

#[derive(Clone, Debug)]
enum State {
    Down {
        /// Hanging dials, and when each began.
        dials: BTreeMap<DialId, u64>,
        next_ns: u64,
    },
    Up {
        heard_ns: u64,
        answered_ns: u64,
        probed_ns: u64,
    },
    Alias {
        since_ns: u64,
    },
    Ourselves {
        since_ns: u64,
    },
}

impl Target {
    /// An address that is dialled at once.
    pub fn new(now_ns: u64) -> Self {
        Self { state: State::down(now_ns), next_dial: 1, last_dial_ns: None, refused: 0 }
    }

    /// Handles the time; `random` is a new random number for each call. Appends what is to be done to `out`,
    /// and returns when this must be called again at the latest; `None`: not before something happens.
    pub fn tick(&mut self, now_ns: u64, random: u64, out: &mut Vec<Act>) -> Option<u64> {
        match &mut self.state {
            State::Down { dials, next_ns } => {
                let late: Vec<_> = dials
                    .iter()
                    .filter(|(_, began)| **began + DIAL_LIMIT_NS <= now_ns)
                    .map(|(id, _)| *id)
                    .collect();
                for id in late {
                    dials.remove(&id);
                    out.push(Act::Abandon(id));
                }
                if *next_ns <= now_ns {
                    if dials.len() == MAX_DIALS
                        && let Some((oldest, _)) = dials.pop_first()
                    {
                        out.push(Act::Abandon(oldest));
                    }
                    let id = DialId(self.next_dial);
                    self.next_dial += 1;
                    dials.insert(id, now_ns);
                    out.push(Act::Dial(id));
                    self.last_dial_ns = Some(now_ns);
                    *next_ns = now_ns + jittered(random);
                }
                let limit = dials.values().min().map_or(u64::MAX, |began| began + DIAL_LIMIT_NS);
                Some(limit.min(*next_ns))
            }
            State::Up { heard_ns, answered_ns, probed_ns } => {
                let limit = (*heard_ns + SILENCE_LIMIT_NS).min(*answered_ns + ANSWER_LIMIT_NS);
                if limit <= now_ns {
                    out.push(Act::GiveUp);
                    self.state = State::down(now_ns);
                    return self.tick(now_ns, random, out);
                }
                if *probed_ns + PROBE_EVERY_NS <= now_ns {
                    *probed_ns = now_ns;
                    out.push(Act::Probe);
                }
                Some((*probed_ns + PROBE_EVERY_NS).min(limit))
            }
            State::Alias { since_ns } | State::Ourselves { since_ns } => {
                let again = *since_ns + LOOK_AGAIN_NS;
                if again > now_ns {
                    return Some(again);
                }
                self.state = State::down(now_ns);
                self.tick(now_ns, random, out)
            }
        }
    }

    /// Handles a dial that came to a logged-in relay. Returns whether its connection becomes the link; if
    /// not, the caller ends it. All other dials are given up.
    pub fn answered(&mut self, id: DialId, answer: Answer, now_ns: u64, out: &mut Vec<Act>) -> bool {
        let State::Down { dials, .. } = &mut self.state else { return false };
        if dials.remove(&id).is_none() {
            return false;
        }
        out.extend(dials.keys().map(|id| Act::Abandon(*id)));
        self.state = match answer {
            Answer::New => State::Up { heard_ns: now_ns, answered_ns: now_ns, probed_ns: now_ns },
            Answer::Linked => State::Alias { since_ns: now_ns },
            Answer::Ourselves => State::Ourselves { since_ns: now_ns },
        };
        answer == Answer::New
    }

    /// Handles a dial that failed.
    pub fn failed(&mut self, id: DialId) {
        if let State::Down { dials, .. } = &mut self.state {
            dials.remove(&id);
        }
    }

    /// Handles that the link's relay was last heard, and last answered a probe, at these times.
    pub fn heard(&mut self, at_ns: u64, answer_ns: u64) {
        if let State::Up { heard_ns, answered_ns, .. } = &mut self.state {
            *heard_ns = (*heard_ns).max(at_ns);
            *answered_ns = (*answered_ns).max(answer_ns);
        }
    }

    /// Handles the end of the link, or of the link of which this address is an alias: it is dialled at once,
    /// if the dial before was not just now. A relay that takes us for a stranger ends each link before it has
    /// told of any client (`joined`): then each time is twice as long as the one before.
    pub fn ended(&mut self, joined: bool, now_ns: u64) {
        if !matches!(self.state, State::Up { .. } | State::Alias { .. }) {
            return;
        }
        let pause = DIAL_EVERY_NS << self.refused.min(MAX_DOUBLINGS);
        self.refused = if joined { 0 } else { self.refused + 1 };
        let soonest = self.last_dial_ns.map_or(now_ns, |last| last + pause);
        self.state = State::down(now_ns.max(soonest));
    }

    /// Handles a sign that the relay is there, such as a connection of its own: if the link is down, it is
    /// dialled at once.
    pub fn hint(&mut self, now_ns: u64) {
        // A relay that refuses us may be the one that has just dialled us.
        if self.refused > 0 {
            return;
        }
        if let State::Down { next_ns, .. } = &mut self.state {
            let soonest = self.last_dial_ns.map_or(now_ns, |last| now_ns.max(last + LEAST_PAUSE_NS));
            *next_ns = soonest.min(*next_ns);
        }
    }

    /// Who answered; `None`: nobody yet, or no more.
    pub fn answer(&self) -> Option<Answer> {
        match self.state {
            State::Down { .. } => None,
            State::Up { .. } => Some(Answer::New),
            State::Alias { .. } => Some(Answer::Linked),
            State::Ourselves { .. } => Some(Answer::Ourselves),
        }
    }

    /// The dials that hang.
    pub fn dials(&self) -> impl Iterator<Item = DialId> + '_ {
        let dials = match &self.state {
            State::Down { dials, .. } => Some(dials),
            State::Up { .. } | State::Alias { .. } | State::Ourselves { .. } => None,
        };
        dials.into_iter().flat_map(|dials| dials.keys().copied())
    }
}

impl State {
    fn down(next_ns: u64) -> Self {
        Self::Down { dials: BTreeMap::new(), next_ns }
    }
}

/// The time between two dials, up to a fifth shorter or longer, so that relays that start together do not
/// dial together for ever.
fn jittered(random: u64) -> u64 {
    let most = DIAL_EVERY_NS / JITTER_PART;
    DIAL_EVERY_NS - most + random % (2 * most + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn acts(act: impl FnOnce(&mut Vec<Act>)) -> Vec<Act> {
        let mut out = Vec::new();
        act(&mut out);
        out
    }

    /// A target at time 0 whose first dial was answered at 10 ms.
    fn up() -> Target {
        let mut target = Target::new(0);
        target.tick(0, 0, &mut Vec::new());
        assert!(target.answered(DialId(1), Answer::New, 10 * MS, &mut Vec::new()));
        assert_eq!(target.answer(), Some(Answer::New));
        target
    }

    #[test]
    fn a_dial_begins_at_once_and_then_every_half_second_while_others_hang() {
        let mut target = Target::new(7);
        let (mut now_ns, mut begun, mut given_up) = (7, Vec::new(), 0);
        while now_ns < 20_000 * MS {
            let mut out = Vec::new();
            let next = target.tick(now_ns, now_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15), &mut out);
            for act in out {
                match act {
                    Act::Dial(_) => begun.push(now_ns),
                    Act::Abandon(_) => given_up += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert!(begun.len() - given_up <= MAX_DIALS);
            now_ns = next.expect("it is down");
        }
        assert_eq!(begun[0], 7);
        let pauses = begun.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(pauses.clone().all(|pause| (400 * MS..=600 * MS).contains(&pause)));
        assert!(pauses.clone().min() != pauses.max(), "there is jitter");
    }

    #[test]
    fn the_first_answer_is_the_link_and_all_other_dials_are_given_up() {
        let mut target = Target::new(0);
        for now_ns in [0, 600 * MS, 1200 * MS] {
            target.tick(now_ns, 0, &mut Vec::new());
        }
        let mut out = Vec::new();
        assert!(target.answered(DialId(2), Answer::New, 1300 * MS, &mut out));
        assert_eq!(out, [Act::Abandon(DialId(1)), Act::Abandon(DialId(3))]);
        assert!(!target.answered(DialId(3), Answer::New, 1300 * MS, &mut Vec::new()), "too late");
        assert_eq!(target.answer(), Some(Answer::New));
    }

    #[test]
    fn a_silent_link_is_probed_each_second_and_given_up_after_three() {
        let mut target = up();
        let mut seen = Vec::new();
        let mut now_ns = 10 * MS;
        for _ in 0..10 {
            let out = acts(|out| now_ns = target.tick(now_ns, 0, out).expect("up or down"));
            seen.extend(out.into_iter().map(|act| (now_ns / MS, act)));
            if target.answer().is_none() {
                break;
            }
        }
        // Each act with the time at which the next one was due.
        let expected =
            [(2010, Act::Probe), (3010, Act::Probe), (3410, Act::GiveUp), (3410, Act::Dial(DialId(2)))];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_word_from_the_relay_keeps_the_link() {
        let mut target = up();
        for second in 1..100 {
            assert!(!acts(|out| _ = target.tick(second * 1000 * MS, 0, out)).contains(&Act::GiveUp));
            let now_ns = second * 1000 * MS + 500 * MS;
            target.heard(now_ns, now_ns);
        }
        assert_eq!(target.answer(), Some(Answer::New));
    }

    #[test]
    fn a_relay_that_talks_but_answers_nothing_is_given_up_too() {
        let mut target = up();
        let mut second = 1;
        while target.answer() == Some(Answer::New) {
            target.heard(second * 1000 * MS, 0);
            target.tick(second * 1000 * MS, 0, &mut Vec::new());
            second += 1;
        }
        assert_eq!(second - 1, (10 * MS + ANSWER_LIMIT_NS).div_ceil(1000 * MS));
    }

    #[test]
    fn ourselves_and_an_alias_are_looked_at_again_after_a_minute_an_alias_also_when_its_link_has_ended() {
        for (answer, at_once) in [(Answer::Ourselves, false), (Answer::Linked, true)] {
            let mut target = Target::new(0);
            target.tick(0, 0, &mut Vec::new());
            assert!(!target.answered(DialId(1), answer, 0, &mut Vec::new()));
            assert_eq!(target.tick(10_000 * MS, 0, &mut Vec::new()), Some(LOOK_AGAIN_NS), "{answer:?}");
            target.hint(10_000 * MS);
            assert_eq!(acts(|out| _ = target.tick(10_000 * MS, 0, out)), [], "{answer:?}");
            let mut ended = target.clone();
            ended.ended(true, 10_000 * MS);
            let dialled = acts(|out| _ = ended.tick(10_000 * MS, 0, out)) == [Act::Dial(DialId(2))];
            assert_eq!(dialled, at_once, "{answer:?}");
            assert_eq!(
                acts(|out| _ = target.tick(LOOK_AGAIN_NS, 0, out)),
                [Act::Dial(DialId(2))],
                "{answer:?}"
            );
        }
    }

    #[test]
    fn a_hint_brings_a_dial_forward_but_not_too_often() {
        let mut target = Target::new(0);
        target.tick(0, 0, &mut Vec::new());
        target.hint(10 * MS);
        assert_eq!(acts(|out| assert_eq!(target.tick(10 * MS, 0, out), Some(100 * MS))), []);
        assert_eq!(acts(|out| _ = target.tick(100 * MS, 0, out)), [Act::Dial(DialId(2))]);
        target.hint(300 * MS);
        assert_eq!(acts(|out| _ = target.tick(300 * MS, 0, out)), [Act::Dial(DialId(3))]);
    }

    #[test]
    fn a_link_that_is_ended_at_once_is_dialled_no_more_often_than_any_other() {
        let mut target = up();
        target.ended(true, 20 * MS);
        assert_eq!(acts(|out| assert_eq!(target.tick(20 * MS, 0, out), Some(500 * MS))), []);
        let mut target = up();
        target.ended(true, 2_000 * MS);
        assert_eq!(
            acts(|out| _ = target.tick(2_000 * MS, 0, out)),
            [Act::Dial(DialId(2))],
            "a link that lasted"
        );
    }

    #[test]
    fn a_relay_that_refuses_us_is_dialled_less_and_less_often() {
        let mut target = Target::new(0);
        let (mut now_ns, mut begun) = (0, Vec::new());
        for dial in 1..=7 {
            let mut out = Vec::new();
            while out.is_empty() {
                let next_ns = target.tick(now_ns, 0, &mut out).expect("it is down");
                now_ns = if out.is_empty() { next_ns } else { now_ns };
            }
            assert_eq!(out, [Act::Dial(DialId(dial))]);
            begun.push(now_ns / MS);
            assert!(target.answered(DialId(dial), Answer::New, now_ns, &mut Vec::new()));
            target.ended(false, now_ns);
        }
        assert_eq!(begun, [0, 500, 1_500, 3_500, 7_500, 15_500, 23_500]);
        target.hint(now_ns + 200 * MS);
        assert_eq!(acts(|out| _ = target.tick(now_ns + 200 * MS, 0, out)), [], "it is there, and refuses us");
    }

    #[test]
    fn a_dial_that_failed_is_not_given_up_again() {
        let mut target = Target::new(0);
        target.tick(0, 0, &mut Vec::new());
        target.failed(DialId(1));
        assert_eq!(acts(|out| _ = target.tick(5_000 * MS, 0, out)), [Act::Dial(DialId(2))]);
        assert!(!target.answered(DialId(1), Answer::New, 5_000 * MS, &mut Vec::new()));
    }
}
