//! Rows about a second worker: what does it cost if it is not needed?
//!
//! relayd with two workers is compared with relayd with one. At a fixed rate both carry the same packets;
//! with a closed window the faster one carries more.

use super::load::{Outcome, Plan, Shape};
use super::report::{Row, number};
use super::rivals::{self, Rivals, Samples, Sides};
use super::{Settings, keep};

/// Name of relayd with one worker in the rows.
const ONE: &str = "relayd, one worker";
/// The fixed rate, as a share of one worker's rate with closed windows.
const SHARE: f64 = 0.3;
/// The rows' load: name, bytes per packet, pairs, window per pair.
const CASES: [(&str, usize, usize, u64); 3] = [
    ("workers-2-by-1-1200", 1200, 10, 64),
    ("workers-2-by-1-64", 64, 10, 64),
    ("workers-2-by-1-200-pairs", 1200, 200, 8),
];
/// Suffix of the name of a row with closed windows.
const CLOSED: &str = "-closed";

/// All selected rows of `bench workers`.
///
/// # Errors
/// relayd cannot be run, or a load fails.
pub fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let [two, one] =
        [2, 1].map(|workers| Sides { relayd_args: vec![format!("--workers={workers}")], ..Sides::default() });
    for (name, size, pairs, window) in CASES {
        let closed_name = format!("{name}{CLOSED}");
        let (open, closed) = (settings.wants(name), settings.wants(&closed_name));
        if !open && !closed {
            continue;
        }
        let plan = Plan {
            size,
            clients: 2 * pairs,
            window,
            threads: 2,
            measure_ms: settings.sample_ms(),
            ..Plan::new(Shape::Window)
        };
        let rivals = Rivals::own(settings, [&two, &one])?;
        // To find the rate, three samples are enough.
        let samples = rivals.alternate(&plan, if closed { settings.pairs() } else { 3 })?;
        let settings_text = format!("{} against {}", two.ours_text(settings), one.ours_text(settings));
        let how = format!("closed window of {window} per pair");
        let row = judge(&samples, &closed_name, &plan, &how, &settings_text);
        let peak = samples.medians(Outcome::per_second)[1];
        let goal = "none: the faster one carries more".to_owned();
        keep(&mut rows, settings, Row { goal, ..row });
        let plan = Plan { rate: (SHARE * peak).round(), shape: Shape::Rate, ..plan };
        if open {
            let samples = rivals.alternate(&plan, settings.pairs())?;
            let how = format!(
                "open loop at {} packets/s, {} % of what one worker carried with closed windows",
                number(plan.rate),
                number(SHARE * 100.0),
            );
            let row = judge(&samples, name, &plan, &how, &settings_text);
            keep(&mut rows, settings, Row { goal: "at most 1.3".to_owned(), at_most: Some(1.3), ..row });
        }
    }
    Ok(rows)
}

/// The version that `bench workers` compares with itself.
///
/// # Errors
/// relayd is missing.
pub fn facts(settings: &Settings) -> anyhow::Result<Vec<(&'static str, String)>> {
    Ok(vec![rivals::daemon(settings)?])
}

fn judge(samples: &Samples, name: &str, plan: &Plan, how: &str, settings_text: &str) -> Row {
    let row = Row {
        name: name.to_owned(),
        load: format!(
            "TLS 1.3 with AES-128-GCM; {} bytes, {} pairs, {how}; each packet its own TLS record and its own \
             write; {} load thread(s); {} ms a sample. {settings_text}.",
            plan.size,
            plan.clients / 2,
            plan.threads,
            plan.measure_ms,
        ),
        unit: "µs of CPU per packet".to_owned(),
        rival_name: ONE.to_owned(),
        ..Row::default()
    };
    let mut row = samples.judge(row, Outcome::server_us);
    samples.add_traffic(&mut row, plan);
    row
}
