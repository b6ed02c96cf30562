//! Rows about a frozen relay: what a local pair at relay 1 notices of it, what relay 1 keeps for it, and what
//! becomes of the packets to its clients.
//!
//! All three phases have the same load, so that what differs is the frozen relay's and not the load's.

mod talk;
mod trial;

use anyhow::Context as _;

use self::trial::{PHASES, Phase, RATE, Sample};
use super::{add, counters, rounds, tell};
use crate::bench::load::Outcome;
use crate::bench::report::{Row, number};
use crate::bench::rivals::DERPER;
use crate::bench::{Settings, keep};
use crate::region::Program;

/// A figure: the row's name, its unit, and its value in a phase. The row's samples are of the freeze.
type Figure = (&'static str, &'static str, fn(&Phase) -> f64);

const MB: f64 = 1e6;
const FIGURES: [Figure; 5] = [
    ("frozen-p50", "µs in flight, local pair", |seen| seen.paced.p50_us),
    ("frozen-p99", "µs in flight, local pair", |seen| seen.paced.p99_us),
    ("frozen-full", "µs per packet of a local pair with a window", |seen| 1e6 / seen.full.per_second()),
    ("frozen-cpu", "µs of CPU of relay 1 per packet of that pair", |seen| seen.full.server_us()),
    ("frozen-memory", "MB resident at most, relay 1", |seen| seen.resident[1] as f64 / MB),
];

/// Adds all rows of this file.
pub(super) fn rows(settings: &Settings, programs: [&Program; 2], rows: &mut Vec<Row>) -> anyhow::Result<()> {
    if !FIGURES.iter().any(|figure| settings.wants(figure.0)) {
        return Ok(());
    }
    let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
    for number in 0..rounds(settings) {
        for side in [number % 2, 1 - number % 2] {
            let seen = trial::run(settings, programs[side]);
            samples[side].push(seen.with_context(|| ["relayd", "the rival"][side])?);
        }
    }
    for (name, unit, figure) in FIGURES {
        let of = |phase: usize| each(&samples, |sample| figure(&sample.phases[phase]));
        let [ours, rival] = of(1);
        let mut row = Row {
            name: name.to_owned(),
            load: text(settings),
            unit: unit.to_owned(),
            ours,
            rival,
            rival_name: DERPER.to_owned(),
            goal: "no change beyond noise from before".to_owned(),
            ..Row::default()
        };
        for (phase, when) in PHASES.iter().enumerate() {
            add(&mut row, when, of(phase));
        }
        let change =
            |phase: usize| each(&samples, |sample| figure(&sample.phases[phase]) / figure(&sample.phases[0]));
        add(&mut row, "during, by before of the same trial", change(1));
        add(&mut row, "after, by before of the same trial (noise)", change(2));
        match name {
            "frozen-p50" => losses(&mut row, &samples, |phase| &phase.paced),
            "frozen-full" => {
                losses(&mut row, &samples, |phase| &phase.full);
                let seconds = |phase: usize| each(&samples, |sample| sample.phases[phase].seconds);
                for (phase, when) in PHASES.iter().enumerate() {
                    add(&mut row, &format!("seconds in which all passers passed, {when}"), seconds(phase));
                }
            }
            "frozen-memory" => memory(&mut row, &samples),
            _ => {}
        }
        let kept = rows.len();
        keep(rows, settings, row);
        rows[kept..].iter().for_each(tell);
    }
    Ok(())
}

/// A figure of every trial of each side.
fn each(samples: &[Vec<Sample>; 2], figure: impl Fn(&Sample) -> f64) -> [Vec<f64>; 2] {
    samples.each_ref().map(|all| all.iter().map(&figure).collect())
}

/// Adds what the local pair lost.
fn losses(row: &mut Row, samples: &[Vec<Sample>; 2], load: fn(&Phase) -> &Outcome) {
    for (phase, when) in PHASES.iter().enumerate() {
        add(
            row,
            &format!("packets of the local pair lost, {when}"),
            each(samples, |sample| load(&sample.phases[phase]).lost as f64),
        );
    }
}

/// Adds memory at the ends of the phases, and what became of the packets to relay 3's clients.
fn memory(row: &mut Row, samples: &[Vec<Sample>; 2]) {
    add(row, "when it was frozen", each(samples, |sample| sample.phases[1].resident[0] as f64 / MB));
    add(row, "when it continued", each(samples, |sample| sample.phases[1].resident[2] as f64 / MB));
    add(row, "at the very end", each(samples, |sample| sample.phases[2].resident[2] as f64 / MB));
    for (side, all) in ["relayd", DERPER].iter().zip(samples) {
        for (trial, sample) in (1..).zip(all) {
            for (when, phase) in PHASES.iter().zip(&sample.phases) {
                let (told, counts) = (phase.told, counters::text(&phase.counts));
                row.notes.push(format!(
                    "{side}, trial {trial}, {when}: {} packets were sent to relay 3's clients, {} arrived, {} notices \
                     that one is gone; relay 1 counted {counts}.",
                    told.sent, told.arrived, told.gone
                ));
            }
            let ended =
                sample.ended.iter().map(|why| format!("{side}, trial {trial}: a client ended: {why}."));
            row.notes.extend(ended);
        }
    }
}

/// Describes the load in words.
fn text(settings: &Settings) -> String {
    let seconds = trial::settle(settings).as_secs();
    format!(
        "Three relays on hosts of their own. At relay 1, {} keys come and go one after another, 500 per \
         second; a local pair exchanges packets of 1200 bytes, first {} per second, then with a \
         window of 64; \
         another client sends 500 packets per second to 4 clients of relay 3. The same before relay 3 is \
         stopped \
         (SIGSTOP), while it is, and from {seconds} s after it continues. derper's queues hold 256 packets.",
        trial::passers(settings),
        number(RATE),
    )
}
