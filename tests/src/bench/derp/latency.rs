//! Rows at fixed rates: how long packets take, and what they cost when the server is not saturated.

use crate::bench::load::{Outcome, Plan, Shape};
use crate::bench::report::{Row, number};
use crate::bench::rivals::{Rivals, Samples, Sides};
use crate::bench::{Settings, keep};

/// A judged figure: the row's name, the figure, its unit, the goal in words and as a ratio.
type Figure = (&'static str, fn(&Outcome) -> f64, &'static str, &'static str, f64);

const LOW: [Figure; 3] = [
    ("rate-4000-p50", |seen| seen.p50_us, "µs in flight", "no worse", 1.0),
    ("rate-4000-p99", |seen| seen.p99_us, "µs in flight", "no worse", 1.0),
    ("rate-4000-cpu", Outcome::server_us, "µs of CPU per packet", "at most 0.55", 0.55),
];
const HALF: [Figure; 3] = [
    ("half-load-p50", |seen| seen.p50_us, "µs in flight", "no worse", 1.0),
    ("half-load-p99", |seen| seen.p99_us, "µs in flight", "at most 3/4", 0.75),
    ("half-load-cpu", Outcome::server_us, "µs of CPU per packet", "", f64::INFINITY),
];

/// Adds all rows of this file; `peak` is derper's packets per second in this run, if known.
pub(super) fn rows(settings: &Settings, rows: &mut Vec<Row>, peak: Option<f64>) -> anyhow::Result<()> {
    let wanted = |figures: &[Figure]| figures.iter().any(|figure| settings.wants(figure.0));
    let sides = Sides { long_queue: true, ..Sides::default() };
    if wanted(&LOW) {
        let rivals = Rivals::start(settings, &sides)?;
        // Four times the usual length: at this rate a percentile needs that many packets.
        let plan = Plan { rate: 4000.0, measure_ms: 4 * settings.sample_ms(), ..Plan::new(Shape::Rate) };
        measure(settings, rows, &rivals, &sides, &plan, &LOW)?;
    }
    if wanted(&HALF) {
        let rivals = Rivals::start(settings, &sides)?;
        let peak = match peak {
            Some(peak) => peak,
            None => {
                let plan = Plan { threads: 2, measure_ms: settings.sample_ms(), ..Plan::new(Shape::Window) };
                rivals.alternate(&plan, 3)?.medians(Outcome::per_second)[1]
            }
        };
        let plan = Plan {
            rate: (peak / 2.0).round(),
            // One thread would be almost saturated at this rate, and its own delays would be measured.
            threads: 2,
            measure_ms: 2 * settings.sample_ms(),
            ..Plan::new(Shape::Rate)
        };
        measure(settings, rows, &rivals, &sides, &plan, &HALF)?;
    }
    Ok(())
}

fn measure(
    settings: &Settings,
    rows: &mut Vec<Row>,
    rivals: &Rivals,
    sides: &Sides,
    plan: &Plan,
    figures: &[Figure],
) -> anyhow::Result<()> {
    let samples = rivals.alternate(plan, settings.pairs())?;
    for (name, figure, unit, goal, at_most) in figures {
        let row = Row {
            name: (*name).to_owned(),
            load: format!(
                "Open loop at {} packets/s over {} pairs; TLS 1.3 with AES-128-GCM; {} bytes, each packet its \
                 own TLS record and write; {} load thread(s); {} ms a sample. A time in flight starts when \
                 the packet was to be sent. {}.",
                number(plan.rate),
                plan.clients / 2,
                plan.size,
                plan.threads,
                plan.measure_ms,
                sides.text(settings),
            ),
            unit: (*unit).to_owned(),
            goal: (*goal).to_owned(),
            at_most: at_most.is_finite().then_some(*at_most),
            ..Row::default()
        };
        keep(rows, settings, finish(row, &samples, plan, *figure));
    }
    Ok(())
}

fn finish(row: Row, samples: &Samples, plan: &Plan, figure: fn(&Outcome) -> f64) -> Row {
    let mut row = samples.judge(row, figure);
    samples.add_traffic(&mut row, plan);
    samples.add(&mut row, "p99 of how late the load wrote, µs", |seen| seen.late_p99_us);
    row
}
