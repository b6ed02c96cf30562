//! One receiver reads 80 kB per second while it is flooded: how old are the pongs, the disco packets and the
//! data that it reads?

use super::{FIELD, pairs};
use crate::bench::load::{Outcome, Plan, Shape};
use crate::bench::report::{Row, number};
use crate::bench::rivals::{DERPER, Samples, Sides, alternate_fresh};
use crate::bench::{Settings, keep};

/// A judged figure: the row's name and the figure.
type Figure = (&'static str, fn(&Outcome) -> f64);

/// The figures of the rows.
pub(super) const FIGURES: [Figure; 6] = [
    ("slow-pong-p50", |seen| seen.ages.pong.p50_ms),
    ("slow-pong-p99", |seen| seen.ages.pong.p99_ms),
    ("slow-disco-p50", |seen| seen.ages.disco.p50_ms),
    ("slow-disco-p99", |seen| seen.ages.disco.p99_ms),
    ("slow-data-p50", |seen| seen.ages.data.p50_ms),
    ("slow-data-p99", |seen| seen.ages.data.p99_ms),
];

/// Adds all rows of this file, from the same samples.
pub(super) fn rows(settings: &Settings, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    if !FIGURES.iter().any(|figure| settings.wants(figure.0)) {
        return Ok(());
    }
    let sides = Sides::default();
    let plan = Plan {
        size: 2000,
        rate: 2000.0,
        drain: 80_000.0,
        warm_ms: 6 * settings.sample_ms(),
        measure_ms: 10 * settings.sample_ms(),
        ..Plan::new(Shape::Slow)
    };
    let samples = alternate_fresh(settings, &sides, &plan, pairs(settings))?;
    for (name, figure) in FIGURES {
        let row = Row {
            name: name.to_owned(),
            load: format!(
                "{FIELD}: one TLS 1.3 client that reads {} bytes a second, steadily, and pings the server 5 \
                 times a second; another sends it {} packets of {} bytes a second, and 10 disco packets. An \
                 age runs from when the frame was sent (of a pong: from its ping) until it was read whole. \
                 {} ms a sample after {} ms to settle, fresh servers for every sample. {}.",
                number(plan.drain),
                number(plan.rate),
                plan.size,
                plan.measure_ms,
                plan.warm_ms,
                sides.text(settings),
            ),
            unit: "ms of age when read".to_owned(),
            goal: "no worse".to_owned(),
            at_most: Some(1.0),
            ..Row::default()
        };
        let mut row = samples.judge(row, figure);
        traffic(&mut row, &samples);
        if name.starts_with("slow-pong") {
            row.notes.push(
                "A ping that the server leaves unanswered, as derper does while it has not written the pong \
                 before, has no age: see how many were read."
                    .to_owned(),
            );
        }
        keep(rows, settings, row);
    }
    Ok(())
}

/// Adds further figures of the same samples.
fn traffic(row: &mut Row, samples: &Samples) {
    samples.add(row, "bytes read per second", |seen| seen.ages.drained);
    samples.add(row, "pongs read", |seen| seen.ages.pong.read as f64);
    samples.add(row, "pings sent meanwhile", |seen| seen.ages.pong.sent as f64);
    samples.add(row, "disco packets read", |seen| seen.ages.disco.read as f64);
    samples.add(row, "disco packets sent meanwhile", |seen| seen.ages.disco.sent as f64);
    samples.add(row, "data packets read", |seen| seen.ages.data.read as f64);
    samples.add(row, "data packets sent meanwhile", |seen| seen.ages.data.sent as f64);
    samples.add(row, "server: CPU, ms per second", |seen| seen.server_cpu * 1e3 / seen.seconds);
    cut(row, samples);
}

/// Notes if a server disconnected clients: its figures then cover less time or fewer clients.
pub(super) fn cut(row: &mut Row, samples: &Samples) {
    for (name, cut) in ["relayd", DERPER].iter().zip(samples.each(|seen| seen.cut as f64)) {
        let cut: f64 = cut.iter().sum();
        if cut > 0.0 {
            row.notes.push(format!("**{name} cut {} client(s)** in all samples together.", number(cut)));
        }
    }
}
