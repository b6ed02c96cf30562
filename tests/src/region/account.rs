//! What a window of time was like for an ordered pair of clients: silences, losses, copies and order.

use std::{collections::BTreeSet, time::Duration};

use super::records::{Nanos, Record};

/// The shortest time without arrivals that counts as a silence: ten packets, and more than a busy machine
/// makes of one.
pub(super) const SILENCE: Nanos = 200_000_000;
/// A packet that was sent this shortly before a fault may be on its way when it begins. The same time must a
/// receiver stay connected to count as there.
const FLIGHT: Nanos = 50_000_000;

/// A sender and a receiver, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The sender.
    pub from: usize,
    /// The receiver.
    pub to: usize,
    /// The relays where they are at home, by index.
    pub homes: [usize; 2],
}

impl Pair {
    /// Whether both are at home on one relay.
    pub fn is_local(&self) -> bool {
        self.homes[0] == self.homes[1]
    }

    /// Whether one of them is at home on this relay.
    pub fn is_at(&self, relay: usize) -> bool {
        self.homes.contains(&relay)
    }
}

/// A window of time with a fault in it. All times are of the load's clock.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Where the window begins.
    pub from: Nanos,
    /// Where the fault begins; without a fault, the window's end.
    pub fault_from: Nanos,
    /// Where the fault ends.
    pub fault_to: Nanos,
    /// Where the window ends.
    pub to: Nanos,
    /// Whether every pair talked again at its end.
    pub whole: bool,
}

/// What a pair saw in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The longest time without an arrival.
    pub gap: Duration,
    /// The longest time without a packet of the sender on one connection: a load that is late makes gaps of
    /// its own.
    pub unsent: Duration,
    /// All silences, together.
    pub silent: Duration,
    /// All silences after the fault, together.
    pub beyond: Duration,
    /// Packets that were sent while both were connected.
    pub sent: u64,
    /// Those that were sent during the fault and never arrived.
    pub lost_within: u64,
    /// Those that were sent before or after the fault and never arrived.
    pub lost_outside: u64,
    /// Packets that arrived again.
    pub duplicated: u64,
    /// Packets that arrived after a later one of the same connection of the sender.
    pub reordered: u64,
}

impl Figures {
    /// The worst times and the sum of the counts of several pairs.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            gap: self.gap.max(other.gap),
            unsent: self.unsent.max(other.unsent),
            silent: self.silent.max(other.silent),
            beyond: self.beyond.max(other.beyond),
            sent: self.sent + other.sent,
            lost_within: self.lost_within + other.lost_within,
            lost_outside: self.lost_outside + other.lost_outside,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
        }
    }
}

/// The figures of one pair.
pub(super) fn figures(records: &[Record], pair: Pair, window: &Window) -> Figures {
    let (sender, receiver) = (&records[pair.from], &records[pair.to]);
    let mut figures = Figures::default();
    let (mut seen, mut newest, mut last) = (BTreeSet::new(), (0, 0), window.from);
    let mut silent = |from: Nanos, to: Nanos| {
        let gap = Duration::from_nanos(to.saturating_sub(from));
        figures.gap = figures.gap.max(gap);
        if to.saturating_sub(from) >= SILENCE {
            figures.silent += gap;
            figures.beyond += Duration::from_nanos(to.saturating_sub(from.max(window.fault_to)));
        }
    };
    let within = |at: Nanos| (window.from..window.to).contains(&at);
    for packet in receiver.arrived.iter().filter(|packet| usize::from(packet.from) == pair.from) {
        let is_new = seen.insert(packet.number);
        let is_late = (packet.life, packet.number) < newest && packet.life == newest.0;
        newest = newest.max((packet.life, packet.number));
        if within(packet.at) {
            silent(last, packet.at);
            last = packet.at;
            figures.duplicated += u64::from(!is_new);
            figures.reordered += u64::from(is_new && is_late);
        }
    }
    silent(last, window.to);
    let mut sent_before = window.from;
    for packet in sender.sent.iter().filter(|packet| usize::from(packet.to) == pair.to) {
        if !within(packet.at) {
            continue;
        }
        if !sender.lives.iter().any(|life| (sent_before..packet.at).contains(&life.from)) {
            figures.unsent = figures.unsent.max(Duration::from_nanos(packet.at - sent_before));
        }
        sent_before = packet.at;
        if !receiver.was_connected(packet.at, FLIGHT) {
            continue;
        }
        figures.sent += 1;
        if !seen.contains(&packet.number) {
            let is_within = packet.at + FLIGHT >= window.fault_from && packet.at <= window.fault_to;
            *(if is_within { &mut figures.lost_within } else { &mut figures.lost_outside }) += 1;
        }
    }
    figures
}

/// When the first packet of a pair arrived, if any did.
pub(super) fn first_arrival(records: &[Record], pair: Pair) -> Option<Nanos> {
    let mut arrived = records[pair.to].arrived.iter();
    arrived.find(|packet| usize::from(packet.from) == pair.from).map(|packet| packet.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::records::{Arrived, Life, Sent};

    const MS: Nanos = 1_000_000;

    /// One packet every 20 ms for 2 s; `arrives` says when a packet arrives, in ms, if it does.
    fn records(arrives: impl Fn(u64) -> Vec<u64>) -> Vec<Record> {
        let sent = (0..100).map(|number| Sent { to: 1, number, at: number * 20 * MS }).collect();
        let mut arrived: Vec<_> = (0..100u64)
            .flat_map(|number| arrives(number).into_iter().map(move |at| (number, at)))
            .map(|(number, at)| Arrived { from: 0, life: 1, number, at: at * MS })
            .collect();
        arrived.sort_by_key(|packet| packet.at);
        let lives = vec![Life { from: 0, to: u64::MAX }];
        let sender = Record { lives: lives.clone(), sent, arrived: Vec::new() };
        vec![sender, Record { lives, sent: Vec::new(), arrived }]
    }

    fn of(records: &[Record]) -> Figures {
        let pair = Pair { from: 0, to: 1, homes: [0, 1] };
        let window = Window { from: 0, fault_from: 500 * MS, fault_to: 800 * MS, to: 2000 * MS, whole: true };
        figures(records, pair, &window)
    }

    #[test]
    fn a_quiet_window_has_no_faults() {
        let figures = of(&records(|number| vec![number * 20 + 1]));
        let gap = Duration::from_millis(20);
        assert_eq!(figures, Figures { gap, unsent: gap, sent: 100, ..Figures::default() });
    }

    #[test]
    fn a_silence_counts_from_the_end_of_the_fault() {
        let figures = of(&records(|number| match number {
            25..=49 => vec![],
            _ => vec![number * 20 + 1],
        }));
        assert_eq!(figures.gap, Duration::from_millis(520));
        assert_eq!(figures.silent, figures.gap);
        assert_eq!(figures.beyond, Duration::from_millis(201));
        assert_eq!((figures.lost_within, figures.lost_outside), (16, 9));
    }

    #[test]
    fn late_packets_are_not_lost_and_copies_are_not_late() {
        let figures = of(&records(|number| match number {
            30 => vec![601, 645],
            31 => vec![661],
            _ => vec![number * 20 + 1],
        }));
        assert_eq!((figures.duplicated, figures.reordered), (1, 1));
        assert_eq!(figures.lost_within + figures.lost_outside, 0);
    }

    #[test]
    fn nobody_loses_what_was_sent_to_an_absent_receiver() {
        let mut records = records(|_| vec![]);
        records[1].lives.clear();
        assert_eq!(of(&records).sent, 0);
        assert_eq!(of(&records).beyond, Duration::from_millis(1200));
    }
}
