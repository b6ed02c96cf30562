//! Rows about clients that come and go at relay 1: what they cost relays 2 and 3, and whether these know
//! exactly those who stay.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use super::counters::{is_elsewhere, known};
use super::place::{Hosts, Place};
use super::{add, rounds, tell};
use crate::bench::load::{Plan, Shape};
use crate::bench::report::Row;
use crate::bench::rivals::DERPER;
use crate::bench::{Settings, keep};
use crate::region::{Program, SIZE};

/// Numbers of clients, with the names of their rows.
const CROWDS: [(usize, &str); 2] = [(1_000, "churn-1000"), (10_000, "churn-10000")];
/// Clients that stay.
const STAY: usize = 20;
/// Time after the last client has left, in which the relays may still work for it, and the time before the
/// first one in which an idle relay is measured.
const SETTLE: Duration = Duration::from_secs(2);

/// One crowd: CPU of the relays per client, and how many of those who stay the others know.
struct Sample {
    us: [f64; SIZE],
    /// Busy cores of relay 2 before.
    idle: f64,
    seconds: f64,
    /// Clients of relay 1 that relays 2 and 3 know beyond those that they knew before.
    known: [u64; 2],
    /// Clients of those who stay that relays 2 and 3 do not know, as far as they say.
    missing: Option<usize>,
}

/// Adds all rows of this file.
pub(super) fn rows(settings: &Settings, programs: [&Program; 2], rows: &mut Vec<Row>) -> anyhow::Result<()> {
    for (clients, name) in CROWDS {
        if !settings.wants(name) {
            continue;
        }
        let clients = if settings.quick { clients / 10 } else { clients };
        let mut places = [Place::start(programs[0], Hosts::One)?, Place::start(programs[1], Hosts::One)?];
        let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
        for number in 0..rounds(settings) {
            for side in [number % 2, 1 - number % 2] {
                let seen = crowd(&mut places[side], clients);
                samples[side].push(seen.with_context(|| ["relayd", "the rival"][side])?);
            }
        }
        let kept = rows.len();
        keep(rows, settings, row(name, clients, &samples));
        rows[kept..].iter().for_each(tell);
    }
    Ok(())
}

fn crowd(place: &mut Place, clients: usize) -> anyhow::Result<Sample> {
    let plan = Plan { clients, stay: STAY, threads: 2, warm_ms: 1000, ..Plan::new(Shape::Crowd) };
    let first = place.region.relay(0).name().to_owned();
    let know = |place: &mut Place| -> anyhow::Result<[u64; 2]> {
        Ok([known(place.region.relay(1), &first)?, known(place.region.relay(2), &first)?])
    };
    // Relays are clients of each other, too.
    let relays = know(place)?;
    let quiet = place.cpu()?;
    thread::sleep(SETTLE);
    let before = place.cpu()?;
    let mut running = place.start_load(&plan, None)?;
    let outcome = running.outcome().with_context(|| place.region.logs())?;
    thread::sleep(SETTLE);
    let after = place.cpu()?;
    let mut known = know(place)?;
    known.iter_mut().zip(relays).for_each(|(known, relays)| *known = known.saturating_sub(relays));
    let mut missing = Some(0);
    for index in [1, 2] {
        let relay = place.region.relay(index);
        for key in &outcome.stayers {
            missing = match missing {
                Some(missing) if relay.admin().is_some() => {
                    Some(missing + usize::from(!is_elsewhere(relay, key)?))
                }
                _ => None,
            };
        }
    }
    running.finish()?;
    // Those who stayed have left, too, when the next crowd comes.
    thread::sleep(SETTLE);
    let us = [0, 1, 2].map(|index| (after[index] - before[index]).as_secs_f64() * 1e6 / outcome.done as f64);
    let idle = (before[1] - quiet[1]).as_secs_f64() / SETTLE.as_secs_f64();
    Ok(Sample { us, idle, seconds: outcome.seconds, known, missing })
}

fn row(name: &str, clients: usize, samples: &[Vec<Sample>; 2]) -> Row {
    let each =
        |figure: &dyn Fn(&Sample) -> f64| samples.each_ref().map(|all| all.iter().map(figure).collect());
    let [ours, rival] = each(&|seen| f64::midpoint(seen.us[1], seen.us[2]));
    let mut row = Row {
        name: name.to_owned(),
        load: format!(
            "{clients} TLS 1.3 clients join at relay 1, and all but {STAY} leave; three relays on one host. \
             CPU time of relays 2 and 3, from before the first client until {} s after the last one has left.",
            SETTLE.as_secs()
        ),
        unit: "µs of CPU per client that joins and leaves, mean of relays 2 and 3".to_owned(),
        ours,
        rival,
        rival_name: DERPER.to_owned(),
        goal: "none".to_owned(),
        ..Row::default()
    };
    add(&mut row, "relay 2", each(&|seen| seen.us[1]));
    add(&mut row, "relay 3", each(&|seen| seen.us[2]));
    add(&mut row, "relay 1, with its logins", each(&|seen| seen.us[0]));
    add(&mut row, "seconds until all had joined and left", each(&|seen| seen.seconds));
    add(&mut row, "idle before: busy cores of relay 2", each(&|seen| seen.idle));
    add(&mut row, "clients that relay 2 knows then", each(&|seen| seen.known[0] as f64));
    add(&mut row, "clients that relay 3 knows then", each(&|seen| seen.known[1] as f64));
    for (side, all) in ["relayd", DERPER].iter().zip(samples) {
        let exact = all.iter().filter(|seen| {
            seen.known.iter().all(|known| *known == STAY as u64)
                && seen.missing.is_none_or(|count| count == 0)
        });
        let (exact, rounds) = (exact.count(), all.len());
        let how = match all.first().and_then(|seen| seen.missing) {
            Some(_) => "by number, and each key asked for",
            None => "by number only",
        };
        row.notes.push(format!(
            "{side}: relays 2 and 3 knew exactly the {STAY} who stay ({how}) in {exact} of {rounds} rounds."
        ));
    }
    row
}
