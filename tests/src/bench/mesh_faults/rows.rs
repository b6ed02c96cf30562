//! The rows of finished trials.

use std::time::Duration;

use super::trial::{ROLLING, START, Sample, faults, is_wanted};
use crate::bench::report::{Row, Spread, number};
use crate::bench::{Settings, rivals};
use crate::region::account::{Figures, Pair, Window};
use crate::region::faults::{Restart, VICTIM};

/// What all rows share.
const LOAD: &str = "Three relays with a client each, and two more clients at relay 2; every client sends 100 \
                    bytes to each of its peers every 20 ms";
/// What a row's samples are.
const GAP: &str = "ms, longest time without a packet, of the worst pair";

/// A client that did not send for so long was kept from it by other work on the machine.
const LATE: Duration = Duration::from_millis(100);

/// Pairs of clients with one lot: their name, and who they are.
type Group = (&'static str, fn(&Pair) -> bool);

/// The pairs, by what a fault of relay 1 does to them.
const GROUPS: [Group; 3] = [
    ("its clients", |pair| pair.is_at(VICTIM)),
    ("the others", |pair| !pair.is_at(VICTIM) && !pair.is_local()),
    ("two on one relay", |pair| pair.is_local()),
];

/// A figure of what a group saw: the column's name and the value.
type Column = (&'static str, fn(&Figures) -> f64);

/// A window of a restart, and which pairs count in it.
type Part = fn(&Restart) -> (Window, fn(&Pair, usize) -> bool);

/// The further columns.
const COLUMNS: [Column; 8] = [
    ("longest time without sending, ms", |seen| ms(seen.unsent)),
    ("silences together, ms", |seen| ms(seen.silent)),
    ("silences after the fault, ms", |seen| ms(seen.beyond)),
    ("lost of those sent during the fault", |seen| seen.lost_within as f64),
    ("lost of those sent before or after it", |seen| seen.lost_outside as f64),
    ("sent while both were connected", |seen| seen.sent as f64),
    ("duplicated", |seen| seen.duplicated as f64),
    ("out of order", |seen| seen.reordered as f64),
];

/// The rows of ours and theirs.
pub(super) fn all(settings: &Settings, samples: &[Vec<Sample>; 2]) -> Vec<Row> {
    let sides = |figure: &dyn Fn(&Sample) -> f64| {
        samples.each_ref().map(|samples| samples.iter().map(figure).collect::<Vec<_>>())
    };
    let start_up = sides(&|sample| sample.seen.start_up().map_or(f64::NAN, ms));
    let mut rows =
        vec![row(START, "ms from the start of three relays until every pair has talked", start_up)];
    for (index, (fault, _)) in faults(settings).into_iter().enumerate() {
        for (group, wanted) in GROUPS {
            let name = format!("{fault}: {group}");
            rows.push(of_windows(&name, samples, |sample| {
                let window = &sample.windows[index].1;
                (sample.seen.figures(window, wanted), window.whole)
            }));
        }
    }
    if is_wanted(settings, ROLLING) {
        let parts: [(&str, Part); 3] = [
            ("clients that stay", |seen| (seen.away, |pair, relay| !pair.is_at(relay))),
            ("clients that move", |seen| (seen.away, Pair::is_at)),
            ("clients that come home", |seen| (seen.home, Pair::is_at)),
        ];
        for (group, part) in parts {
            let name = format!("{ROLLING}: {group}");
            let mut row = of_windows(&name, samples, |sample| {
                let each = sample.restarts.iter().map(|seen| {
                    let (window, wanted) = part(seen);
                    (sample.seen.figures(&window, |pair| wanted(pair, seen.relay)), window.whole)
                });
                each.fold((Figures::default(), true), |sum, one| (sum.0.and(one.0), sum.1 && one.1))
            });
            let stopping =
                sides(&|sample| sample.restarts.iter().map(|seen| ms(seen.stopping)).fold(0.0, f64::max));
            add(&mut row, "slowest stop, ms", stopping);
            rows.push(row);
        }
    }
    rows
}

/// A row about what a group saw in a window, and whether all talked at its end.
fn of_windows(name: &str, samples: &[Vec<Sample>; 2], seen: impl Fn(&Sample) -> (Figures, bool)) -> Row {
    let seen = samples.each_ref().map(|samples| samples.iter().map(&seen).collect::<Vec<_>>());
    let each = |figure: fn(&Figures) -> f64| {
        seen.each_ref().map(|seen| seen.iter().map(|(figures, _)| figure(figures)).collect())
    };
    let mut row = row(name, GAP, each(|seen| ms(seen.gap)));
    for (column, figure) in COLUMNS {
        add(&mut row, column, each(figure));
    }
    for (side, seen) in ["relayd", &row.rival_name.clone()].into_iter().zip(&seen) {
        let broken = seen.iter().filter(|(_, whole)| !whole).count();
        if broken > 0 {
            let all = seen.len();
            row.notes.push(format!("**{side} was not whole again** in {broken} of {all} trials."));
        }
        let late = seen.iter().map(|(figures, _)| figures.unsent).max().unwrap_or_default();
        if late > LATE {
            let late = number(ms(late));
            row.notes.push(format!(
                "**A client beside {side} did not send for {late} ms**: the machine was busy, and so long a \
                 silence need not be {side}'s."
            ));
        }
    }
    row
}

fn row(name: &str, unit: &str, [ours, rival]: [Vec<f64>; 2]) -> Row {
    Row {
        name: name.to_owned(),
        load: LOAD.to_owned(),
        unit: unit.to_owned(),
        ours,
        rival,
        rival_name: rivals::DERPER.to_owned(),
        ..Row::default()
    }
}

/// Adds a column with median and range.
fn add(row: &mut Row, name: &str, samples: [Vec<f64>; 2]) {
    let [ours, rival] = samples.map(|samples| match Spread::of(samples) {
        Some(Spread { low, median, high }) if low < high => {
            format!("{} ({} to {})", number(median), number(low), number(high))
        }
        Some(Spread { median, .. }) => number(median),
        None => String::new(),
    });
    row.add(name, ours, rival);
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
