//! Rows about the number of sessions: what making one costs, what the relay keeps for it, and how long the
//! relay's regular work over all of them takes.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use relay_user::clock;
use serde_json::Value;

use super::bind::Keys;
use super::field::{CLIENTS, Field};
use super::place::{Path, Place};
use super::population::{Population, keys_for, map_bytes};
use super::relay::{PORT, Program, Relay, UPSTREAM, programs};
use crate::bench::report::{Row, number};
use crate::bench::{Settings, keep, usage};

/// Numbers of sessions; a short run leaves the last out.
const COUNTS: [usize; 3] = [1000, 65_536, 1_000_000];
/// Sockets of the clients on each side.
const SOCKETS: usize = 8;
/// Time for a regular sweep and an audit to come by after the last session was bound.
const ROUNDS: Duration = Duration::from_secs(35);
/// Microseconds of CPU that an allocation may cost: 10,000 in a second.
const ALLOCATION_US: f64 = 100.0;
/// Longest time that a worker or the table may be held, in milliseconds.
const HOLD_MS: f64 = 1.0;

/// The relay's own figures of a regular work on all sessions.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Work {
    /// The last round, and the longest hold, in milliseconds.
    last_ms: f64,
    longest_ms: f64,
    /// Holds, and those of more than a millisecond.
    holds: f64,
    long_holds: f64,
}

/// What one relay showed with one number of sessions.
#[derive(Clone, Copy, Debug)]
struct Cost {
    allocation_us: f64,
    bind_us: f64,
    /// Resident and kernel bytes per bound session.
    bytes: [f64; 2],
    seconds: f64,
    /// Sweep and audit; `None`: the relay does not tell.
    work: [Option<Work>; 2],
    /// The longest time between two looks of a thread that did nothing but look at its clock meanwhile, in
    /// milliseconds of that thread's CPU time: what this machine adds to any hold.
    jump_ms: f64,
}

impl Cost {
    fn of(relay: &Relay, before: u64, made: &Population) -> anyhow::Result<Cost> {
        let count = made.sessions.len() as f64;
        let after = held(relay)?;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count;
        Ok(Cost {
            allocation_us: each(made.allocating),
            bind_us: each(made.binding),
            // The maps have their size from the start.
            bytes: [after[0].saturating_sub(before) as f64 / count, after[1] as f64 / count],
            seconds: made.took.as_secs_f64(),
            work: work(&relay.admin.status().unwrap_or(Value::Null)),
            jump_ms: f64::NAN,
        })
    }
}

/// Resident bytes, and bytes of BPF maps.
fn held(relay: &Relay) -> anyhow::Result<[u64; 2]> {
    Ok([usage::resident_bytes(relay.pid())?, map_bytes(relay.pid())?])
}

/// The control thread's own figures of sweep and audit, where the relay has them.
fn work(status: &Value) -> [Option<Work>; 2] {
    ["sweep", "audit"].map(|work| {
        let of = |figure: &str| status["udp"]["control"][work][figure].as_f64();
        Some(Work {
            last_ms: of("last_ns")? / 1e6,
            longest_ms: of("longest_hold_ns")? / 1e6,
            holds: of("holds")?,
            long_holds: of("long_holds")?,
        })
    })
}

/// Looks at this thread's CPU time for `period`; returns the longest time between two looks, in milliseconds.
fn longest_jump(period: Duration) -> f64 {
    let (end, mut last, mut longest) = (Instant::now() + period, clock::thread_ns(), 0);
    while Instant::now() < end {
        let now = clock::thread_ns();
        longest = longest.max(now - last);
        last = now;
    }
    longest as f64 / 1e6
}

/// The rows.
pub(super) fn rows(settings: &Settings, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    for count in &COUNTS[..if settings.quick { 2 } else { 3 }] {
        in_userspace(settings, *count, rows)?;
        with_xdp(settings, *count, rows)?;
    }
    Ok(())
}

/// A figure that is judged: its unit, how it is found, and the most it may be.
type Figure = (&'static str, fn(&Cost) -> f64, Option<f64>);

/// Allocation, binding and resident memory on loopback, beside the rival.
fn in_userspace(settings: &Settings, count: usize, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let names = ["allocate", "bind", "memory"].map(|what| format!("udp-sessions-{count}-{what}"));
    if !names.iter().any(|name| settings.wants(name)) {
        return Ok(());
    }
    let room = (count + 2048).min(1 << 20);
    let sides = programs(settings, &[format!("--relay-max-sessions={room}")])?;
    let costs = alternate(settings, count, |side| {
        let place = Place::new(Path::Loopback)?;
        let args = Relay::long_lived(&sides[side])?;
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        let relay = Relay::start(&place.relay, &sides[side], &[loopback], &args)?;
        let sockets = |side| -> anyhow::Result<Vec<UdpSocket>> {
            (0..SOCKETS).map(|_| place.socket(side, PORT, false)).collect()
        };
        fill(&relay, [sockets(0)?, sockets(1)?], count)
    })?;
    let rival = if settings.against.is_some() { "the other build" } else { UPSTREAM };
    let load = format!("{count} sessions over loopback, without XDP; {SOCKETS} sockets on each side");
    let figures: [Figure; 3] = [
        ("µs of the relay's CPU per allocation", |cost| cost.allocation_us, Some(ALLOCATION_US)),
        ("µs of the relay's CPU per session, both legs bound", |cost| cost.bind_us, None),
        ("resident bytes per bound session", |cost| cost.bytes[0], None),
    ];
    for (name, (unit, figure, ours_at_most)) in names.into_iter().zip(figures) {
        let goal = if ours_at_most.is_some() { "10,000 per CPU-second" } else { "none" };
        let mut row = row(name, &load, unit, &costs, figure);
        row.rival_name = rival.to_owned();
        row.add_seconds(&costs);
        keep(rows, settings, Row { goal: goal.to_owned(), ours_at_most, ..row });
    }
    Ok(())
}

/// Memory with the kernel's maps, and the regular work, beside the build before.
fn with_xdp(settings: &Settings, count: usize, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let names = ["xdp-memory", "sweep", "audit"].map(|what| format!("udp-sessions-{count}-{what}"));
    if !names.iter().any(|name| settings.wants(name)) {
        return Ok(());
    }
    let [ours, theirs] = match &settings.against {
        Some(_) => programs(settings, &[])?.map(Some),
        None => [Some(Program::Relayd(settings.relayd.clone(), settings.relayd_args.clone())), None],
    };
    let ours = ours.context("relayd is always there")?;
    let sides: Vec<&Program> = [&ours].into_iter().chain(&theirs).collect();
    let measure = |side: usize| {
        let field = Field::start(sides[side], count)?;
        let sockets = CLIENTS.map(|ip| field.sockets(ip, SOCKETS));
        let [a, b] = sockets;
        let mut cost = fill(&field.relay, [a?, b?], count)?;
        cost.jump_ms = longest_jump(ROUNDS);
        cost.work = work(&field.relay.admin.status()?);
        anyhow::Ok(cost)
    };
    let costs: Vec<Vec<Cost>> = match sides.len() {
        1 => vec![vec![measure(0)?]],
        _ => alternate(settings, count, measure)?.map(|side| side).into(),
    };
    let costs = [costs[0].clone(), costs.get(1).cloned().unwrap_or_default()];
    let load = format!("{count} sessions, all of them in XDP; {SOCKETS} sockets on each side");
    let [memory, sweep, audit] = names;
    let total: fn(&Cost) -> f64 = |cost| cost.bytes[0] + cost.bytes[1];
    let mut row = row(memory, &load, "resident and kernel bytes per bound session", &costs, total);
    for (kind, name) in
        ["resident bytes per session", "bytes of BPF maps per session"].into_iter().enumerate()
    {
        row.add_medians(name, &costs, |cost| cost.bytes[kind]);
    }
    row.add_seconds(&costs);
    let goal = if theirs.is_some() { "at most 0.6 of the build before" } else { "none without --against" };
    keep(rows, settings, Row { goal: goal.to_owned(), at_most: theirs.is_some().then_some(0.6), ..row });
    for (name, which) in [(sweep, 0), (audit, 1)] {
        if costs[0].iter().any(|cost| cost.work[which].is_none()) {
            eprintln!("{name}: this relayd does not tell (status: udp.control)");
            continue;
        }
        let of =
            |figure: fn(&Work) -> f64| move |cost: &Cost| cost.work[which].as_ref().map_or(f64::NAN, figure);
        let unit = "ms of CPU time that the longest hold took";
        let mut row =
            self::row(name, &load, unit, &[costs[0].clone(), Vec::new()], of(|work| work.longest_ms));
        row.add_medians("ms that the last round took", &costs, of(|work| work.last_ms));
        row.add_medians("holds", &costs, of(|work| work.holds));
        row.add_medians("holds of more than 1 ms", &costs, of(|work| work.long_holds));
        row.add_medians("ms that a thread which only reads its clock was held", &costs, |cost| cost.jump_ms);
        keep(rows, settings, Row { goal: "at most 1 ms".into(), ours_at_most: Some(HOLD_MS), ..row });
    }
    Ok(())
}

/// Measures both sides in turn: often where it takes little, once where it takes minutes.
fn alternate(
    settings: &Settings,
    count: usize,
    measure: impl Fn(usize) -> anyhow::Result<Cost>,
) -> anyhow::Result<[Vec<Cost>; 2]> {
    let rounds = match settings.pairs {
        Some(pairs) => pairs,
        None if settings.quick || count > COUNTS[0] => 1,
        None => 3,
    };
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (side, costs) in costs.iter_mut().enumerate() {
            costs.push(measure(side).with_context(|| format!("{count} sessions, side {side}"))?);
        }
    }
    Ok(costs)
}

fn fill(relay: &Relay, sockets: [Vec<UdpSocket>; 2], count: usize) -> anyhow::Result<Cost> {
    let keys = Keys::new(&relay.admin, keys_for(count))?;
    let before = held(relay)?[0];
    let [a, b] = &sockets;
    let made = Population::load(relay, &keys, [a, b], 0, count)?;
    Cost::of(relay, before, &made)
}

fn row(name: String, load: &str, unit: &str, costs: &[Vec<Cost>; 2], figure: impl Fn(&Cost) -> f64) -> Row {
    let [ours, rival] = [0, 1].map(|side| costs[side].iter().map(&figure).collect());
    let rival_name = if costs[1].is_empty() { String::new() } else { "the other build".to_owned() };
    Row { name, load: load.to_owned(), unit: unit.to_owned(), ours, rival, rival_name, ..Row::default() }
}

impl Row {
    fn add_medians(&mut self, name: &str, costs: &[Vec<Cost>; 2], figure: impl Fn(&Cost) -> f64) {
        let median = |side: &Vec<Cost>| {
            let spread = crate::bench::report::Spread::of(side.iter().map(&figure));
            spread.map_or_else(String::new, |spread| number(spread.median))
        };
        self.add(name, median(&costs[0]), median(&costs[1]));
    }

    fn add_seconds(&mut self, costs: &[Vec<Cost>; 2]) {
        self.add_medians("seconds that the load took for all sessions", costs, |cost| cost.seconds);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_control_threads_figures_are_read_where_they_are() {
        let sweep = json!({ "last_ns": 2_500_000, "longest_hold_ns": 400_000, "holds": 7, "long_holds": 0 });
        let status = json!({ "udp": { "control": { "sweep": sweep } } });
        let wanted = Work { last_ms: 2.5, longest_ms: 0.4, holds: 7.0, long_holds: 0.0 };
        assert_eq!(work(&status), [Some(wanted), None]);
        assert_eq!(work(&Value::Null), [None; 2]);
    }
}
