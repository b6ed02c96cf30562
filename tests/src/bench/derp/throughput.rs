//! Rows with closed windows: the cost of a packet when the next one always waits.
//!
//! Each packet is one write, as in stock clients. Such a load costs more CPU than the servers, so it has two
//! threads. Rows with gathered writes show the servers when the load does not limit them.

use crate::bench::load::{Outcome, Plan, Shape};
use crate::bench::report::Row;
use crate::bench::rivals::{Rivals, Sides};
use crate::bench::{Settings, keep};

/// Settings of relayd other than the defaults, for rows that show their effect: the suffix of the row's name,
/// the argument, and the goal.
const NO_PAUSE: [&str; 3] = ["no-pause", "--busy-pause=0s", "none: shows what the pause buys"];
const TWO_WORKERS: [&str; 3] = ["two-workers", "--workers=2", "none: shows what one worker buys"];

/// How long packets take under the load of `tls-1200`: name, figure, goal in words and as a ratio.
type Flood = (&'static str, fn(&Outcome) -> f64, &'static str, f64);
const FLOOD: [Flood; 2] = [
    ("flood-p50", |seen| seen.p50_us, "no worse", 1.0),
    ("flood-p99", |seen| seen.p99_us, "at most 3/4", 0.75),
];

/// One row's load, settings and goal.
struct Case {
    name: String,
    plan: Plan,
    sides: Sides,
    goal: &'static str,
    at_most: Option<f64>,
}

/// Adds all rows of this file. Sets `peak` to derper's packets per second with ten pairs.
pub(super) fn rows(settings: &Settings, rows: &mut Vec<Row>, peak: &mut Option<f64>) -> anyhow::Result<()> {
    for case in cases() {
        let flood = case.name == "tls-1200";
        let asked =
            settings.wants(&case.name) || flood && FLOOD.iter().any(|figure| settings.wants(figure.0));
        if !asked {
            continue;
        }
        let rivals = Rivals::start(settings, &case.sides)?;
        let plan = Plan { measure_ms: settings.sample_ms(), ..case.plan };
        let samples = rivals.alternate(&plan, settings.pairs())?;
        let row = Row {
            name: case.name.clone(),
            load: format!("{}. {}.", text(&plan, case.sides.plain), case.sides.text(settings)),
            unit: "µs of CPU per packet".to_owned(),
            goal: case.goal.to_owned(),
            at_most: case.at_most,
            ..Row::default()
        };
        let load = row.load.clone();
        let mut row = samples.judge(row, Outcome::server_us);
        samples.add_traffic(&mut row, &plan);
        keep(rows, settings, row);
        if flood {
            *peak = Some(samples.medians(Outcome::per_second)[1]);
            for (name, figure, goal, at_most) in FLOOD {
                let row = Row {
                    name: name.to_owned(),
                    load: format!("The samples of tls-1200. {load}"),
                    unit: "µs in flight".to_owned(),
                    goal: goal.to_owned(),
                    at_most: Some(at_most),
                    ..Row::default()
                };
                keep(rows, settings, samples.judge(row, figure));
            }
        }
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let plan = |size, pairs: usize, window| Plan {
        size,
        clients: 2 * pairs,
        window,
        threads: pairs.min(2),
        ..Plan::new(Shape::Window)
    };
    let tuned = || Sides { long_queue: true, ..Sides::default() };
    let gathered = |pairs, window| Plan { gather: true, ..plan(1200, pairs, window) };
    let case = |name: &str, plan, goal, at_most| {
        let name = name.to_owned();
        Case { name, plan, sides: tuned(), goal, at_most }
    };
    let (half, third) = (Some(1.0 / 2.0), Some(1.0 / 3.0));
    let (two_fifths, two_sevenths) = (Some(1.0 / 2.5), Some(1.0 / 3.5));
    let mut cases = vec![
        case("tls-1200", plan(1200, 10, 64), "at most 1/3", third),
        case("tls-1200-gathered", gathered(10, 64), "at most 1/3", third),
        Case {
            sides: Sides::default(),
            ..case("tls-1200-defaults", plan(1200, 10, 64), "at most 1/3", third)
        },
        case("tls-64", plan(64, 10, 64), "at most 1/2.5", two_fifths),
        case("tls-8000", plan(8000, 10, 64), "at most 1/2.5", two_fifths),
        case("tls-1-pair", plan(1200, 1, 64), "at most 1/2.5", two_fifths),
        case("tls-1-pair-gathered", gathered(1, 64), "at most 1/2.5", two_fifths),
        case("tls-200-pairs", plan(1200, 200, 8), "at most 1/2", half),
        case("tls-200-pairs-gathered", gathered(200, 8), "at most 1/2", half),
        Case {
            sides: Sides { plain: true, ..tuned() },
            ..case("plain-1200", plan(1200, 10, 64), "at most 1/3.5", two_sevenths)
        },
        case(
            "tls-1200-one-load-thread",
            Plan { threads: 1, ..plan(1200, 10, 64) },
            "none: shows what a load of one thread makes of it",
            None,
        ),
    ];
    for (name, size, pairs, window, [suffix, argument, goal]) in [
        ("tls-1200", 1200, 10, 64, NO_PAUSE),
        ("tls-64", 64, 10, 64, NO_PAUSE),
        ("tls-1-pair", 1200, 1, 64, NO_PAUSE),
        ("tls-200-pairs", 1200, 200, 8, NO_PAUSE),
        ("tls-1200", 1200, 10, 64, TWO_WORKERS),
        ("tls-200-pairs", 1200, 200, 8, TWO_WORKERS),
    ] {
        let case = case(&format!("{name}-{suffix}"), plan(size, pairs, window), goal, None);
        let relayd_args = vec![argument.to_owned()];
        cases.push(Case { sides: Sides { relayd_args, ..tuned() }, ..case });
    }
    cases
}

/// Describes a load in words.
pub(super) fn text(plan: &Plan, plain: bool) -> String {
    let transport = if plain { "plain TCP" } else { "TLS 1.3 with AES-128-GCM" };
    let unit = if plain { "frame" } else { "TLS record" };
    let writes = match plan.gather {
        true => format!("each packet its own {unit}, written together with others that may leave"),
        false => format!("each packet its own {unit} and its own write, as stock clients do"),
    };
    format!(
        "{transport}; {} bytes, {} pairs, closed window of {} per pair; {writes}; {} load thread(s); \
         {} ms a sample",
        plan.size,
        plan.clients / 2,
        plan.window,
        plan.threads,
        plan.measure_ms,
    )
}
