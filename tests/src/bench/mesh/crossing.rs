//! Rows about a packet that crosses a link: what it costs the sender's relay and the receiver's, how long it
//! takes, and how much more that is than for a packet that stays.

use anyhow::Context as _;

use super::place::{Hosts, Place};
use super::{add, tell};
use crate::bench::load::{Outcome, Plan, Shape};
use crate::bench::report::{Row, Spread, number};
use crate::bench::rivals::{DERPER, Samples};
use crate::bench::{Settings, keep};
use crate::region::Program;

/// The relay of the receivers.
const RECEIVERS: usize = 1;
/// Milliseconds before a measurement: the receivers' keys must have reached relay 1.
const WARM_MS: u64 = 1000;

/// A figure of crossing packets: the row's suffix, the unit, the figure, the goal in words and as a ratio.
type Figure = (&'static str, &'static str, fn(&Outcome) -> f64, &'static str, Option<f64>);

const CPU: &str = "µs of CPU per packet";
const FLIGHT: &str = "µs in flight";
const THIRD: Option<f64> = Some(1.0 / 3.0);
const FIGURES: [Figure; 5] = [
    ("first", CPU, Outcome::server_us, "at most 1/3", THIRD),
    ("second", CPU, |seen| seen.beside_us(0), "at most 1/3", THIRD),
    ("both", CPU, |seen| seen.server_us() + seen.beside_us(0), "at most 1/3", THIRD),
    ("p50", FLIGHT, |seen| seen.p50_us, "none", None),
    ("p99", FLIGHT, |seen| seen.p99_us, "none", None),
];
/// The suffix of the row of crossing packets beside local ones.
const BESIDE: &str = "beside-local";
/// How much more a crossing packet may cost relay 1 than a local one.
const MORE: f64 = 1.25;

/// One load: the prefix of its rows, the plan and where the relays are.
struct Case {
    name: &'static str,
    plan: Plan,
    hosts: Hosts,
}

fn cases(settings: &Settings) -> [Case; 4] {
    let rate = |measure_ms| Plan { rate: 4000.0, warm_ms: WARM_MS, measure_ms, ..Plan::new(Shape::Rate) };
    let ms = settings.sample_ms();
    let full = Plan { threads: 2, warm_ms: WARM_MS, measure_ms: 2 * ms, ..Plan::new(Shape::Window) };
    [
        Case { name: "cross-4000", plan: rate(3 * ms), hosts: Hosts::One },
        Case { name: "cross-full", plan: full.clone(), hosts: Hosts::One },
        Case { name: "cross-full-gathered", plan: Plan { gather: true, ..full }, hosts: Hosts::One },
        Case { name: "cross-4000-own-hosts", plan: rate(3 * ms), hosts: Hosts::Own },
    ]
}

/// Adds all rows of this file.
pub(super) fn rows(settings: &Settings, programs: [&Program; 2], rows: &mut Vec<Row>) -> anyhow::Result<()> {
    for case in cases(settings) {
        let suffixes = FIGURES.iter().map(|figure| figure.0).chain([BESIDE]);
        if suffixes.into_iter().any(|suffix| settings.wants(&format!("{}-{suffix}", case.name))) {
            let (across, local) = measure(settings, programs, &case)?;
            let kept = rows.len();
            table(settings, &case, &across, &local, rows);
            rows[kept..].iter().for_each(tell);
        }
    }
    Ok(())
}

/// Alternating samples, of packets that cross and of packets that stay.
fn measure(settings: &Settings, programs: [&Program; 2], case: &Case) -> anyhow::Result<(Samples, Samples)> {
    let mut places = [Place::start(programs[0], case.hosts)?, Place::start(programs[1], case.hosts)?];
    let mut pair = |number: usize, receivers: Option<usize>| -> anyhow::Result<[Outcome; 2]> {
        let mut one = |side: usize| {
            let seen = places[side].load_to(&case.plan, receivers);
            seen.with_context(|| ["relayd", "the rival"][side])
        };
        if number.is_multiple_of(2) {
            return Ok([one(0)?, one(1)?]);
        }
        let theirs = one(1)?;
        Ok([one(0)?, theirs])
    };
    pair(0, Some(RECEIVERS))?;
    let (mut across, mut local) = (Samples::default(), Samples::default());
    for number in 1..=settings.pairs() {
        across.0.push(pair(number, Some(RECEIVERS))?);
        local.0.push(pair(number, None)?);
    }
    Ok((across, local))
}

fn table(settings: &Settings, case: &Case, across: &Samples, local: &Samples, rows: &mut Vec<Row>) {
    for (suffix, unit, figure, goal, at_most) in FIGURES {
        let mut row = across.judge(
            Row {
                name: format!("{}-{suffix}", case.name),
                load: text(case),
                unit: unit.to_owned(),
                goal: goal.to_owned(),
                at_most,
                ..Row::default()
            },
            figure,
        );
        if suffix == "first" {
            across.add_traffic(&mut row, &case.plan);
            across.add(&mut row, "relay 2: busy cores", |seen| seen.beside_cpu[0] / seen.seconds);
            across.add(&mut row, "relay 3, idle: busy cores", |seen| seen.beside_cpu[1] / seen.seconds);
        }
        if suffix != "second" {
            let alone = if suffix == "both" { Outcome::server_us } else { figure };
            add(&mut row, "a local packet of the same run", local.each(alone));
        }
        keep(rows, settings, row);
    }
    let [ours, rival] = [0, 1].map(|side| {
        let each = across.0.iter().zip(&local.0);
        Spread::of(each.map(|(across, local)| across[side].server_us() / local[side].server_us()))
    });
    let of = |samples: &Samples, side: usize| samples.each(Outcome::server_us)[side].clone();
    let mut row = Row {
        name: format!("{}-{BESIDE}", case.name),
        load: format!(
            "relayd alone: at relay 1, a packet that crosses beside one that stays. {}",
            text(case)
        ),
        unit: CPU.to_owned(),
        ours: of(across, 0),
        rival: of(local, 0),
        rival_name: "relayd, a local packet".to_owned(),
        goal: format!("at most {MORE}"),
        at_most: Some(MORE),
        ..Row::default()
    };
    let ratio = |spread: Option<Spread>| {
        spread.map_or_else(String::new, |spread| {
            format!("{} ({} to {})", number(spread.median), number(spread.low), number(spread.high))
        })
    };
    row.notes.push(format!(
        "Crossing by local at relay 1: relayd {}, {DERPER} {}.",
        ratio(ours),
        ratio(rival)
    ));
    keep(rows, settings, row);
}

/// Describes a load in words.
fn text(case: &Case) -> String {
    let Plan { size, clients, window, rate, threads, measure_ms, .. } = case.plan;
    let pairs = clients / 2;
    let pace = match (case.plan.shape, case.plan.gather) {
        (Shape::Rate, _) => format!("open loop at {} packets/s over {pairs} pairs", number(rate)),
        (_, true) => format!("{pairs} pairs, closed window of {window} per pair, written together"),
        (_, false) => format!("{pairs} pairs, closed window of {window} per pair, each packet its own write"),
    };
    let hosts = match case.hosts {
        Hosts::One => "on one host over loopback",
        Hosts::Own => "on hosts of their own behind two bridges, with the field's socket buffers",
    };
    format!(
        "Three relays {hosts}, senders at relay 1, receivers at relay 2, relay 3 idle; TLS 1.3 with \
         AES-128-GCM; {size} bytes, {pace}; {threads} load thread(s); {measure_ms} ms a sample. \
         derper's queues hold 256 packets, otherwise defaults."
    )
}
