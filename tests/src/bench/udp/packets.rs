//! Rows about packets: what one costs the relay, how many are delivered, and how long they take.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::Context as _;

use super::bind::{Keys, drain};
use super::datagrams::longest_train;
use super::place::{Path, Place};
use super::relay::{PORT, Program, Relay, UPSTREAM, programs};
use super::traffic::{Flow, Offer, Plan, Seen, datagram, run};
use crate::bench::report::{Row, number};
use crate::bench::{Settings, keep};

/// Packets that a client without trains sends at once.
const BURST: usize = 8;
/// Trains on their way at a time in the rows about full load: over all sessions, but at least one for each.
const TRAINS: usize = 16;
/// The rate of the rows about latency, in packets per second.
const CALM: f64 = 20_000.0;

/// What a row judges.
#[derive(Clone, Copy, Debug)]
enum Figure {
    Cpu,
    Wall,
    P50,
    P99,
}

impl Figure {
    fn of(self, seen: &Seen) -> f64 {
        match self {
            Figure::Cpu => seen.relay_us(),
            Figure::Wall => seen.wall_us(),
            Figure::P50 => seen.p50_us,
            Figure::P99 => seen.p99_us,
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Figure::Cpu => "µs of the relay's CPU per delivered packet",
            Figure::Wall => "µs of wall clock per delivered packet",
            Figure::P50 | Figure::P99 => "µs from sending to reading",
        }
    }
}

/// A load and the rows that it gives.
struct Case {
    path: Path,
    sessions: usize,
    size: usize,
    offer: Offer,
    trains: bool,
    /// Name, figure, goal in words, largest ratio.
    rows: Vec<(String, Figure, &'static str, f64)>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in [Path::Plain, Path::Loopback] {
        for (sessions, size) in [(4, 1300), (64, 1300), (4, 100), (64, 100)] {
            let name = format!("udp-plain-{}-{sessions}-{size}", path.name());
            let rows = vec![(name, Figure::Cpu, "CPU at most 0.55", 0.55)];
            let offer = Offer::Rate(40_000.0);
            cases.push(Case { path, sessions, size, offer, trains: false, rows });
        }
    }
    for path in [Path::Loopback, Path::Offloads] {
        for sessions in [4, 64] {
            for size in [1300, 100] {
                let name = format!("udp-gso-{}-{sessions}-{size}", path.name());
                let rows = vec![(name.clone(), Figure::Cpu, "CPU at most 2/3", 2.0 / 3.0)];
                let offer = Offer::Rate(100_000.0);
                cases.push(Case { path, sessions, size, offer, trains: true, rows });
                let window = (longest_train(datagram(size)) * (TRAINS / sessions).max(1)) as u64;
                let rows = vec![(format!("{name}-full"), Figure::Wall, "delivered at least 1.3", 1.0 / 1.3)];
                cases.push(Case { path, sessions, size, offer: Offer::Window(window), trains: true, rows });
            }
        }
    }
    for sessions in [4, 64] {
        for size in [1300, 100] {
            let name = format!("udp-overload-veth-{sessions}-{size}");
            let rows = vec![(name, Figure::Wall, "delivered at least 1.1", 1.0 / 1.1)];
            cases.push(Case { path: Path::Plain, sessions, size, offer: Offer::Flood, trains: false, rows });
        }
    }
    let rows = [("p50", Figure::P50), ("p99", Figure::P99)]
        .map(|(name, figure)| (format!("udp-latency-{name}"), figure, "no worse than the spread", 1.05));
    let offer = Offer::Rate(CALM);
    let rows = rows.to_vec();
    cases.push(Case { path: Path::Plain, sessions: 4, size: 1300, offer, trains: false, rows });
    cases
}

/// The rows.
pub(super) fn rows(settings: &Settings, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    for case in cases() {
        if !case.rows.iter().any(|row| settings.wants(&row.0)) {
            continue;
        }
        let [ours, theirs] = programs(settings, &[])?;
        let rival = if settings.against.is_some() { "the other build" } else { UPSTREAM };
        let plan = case.plan(settings);
        let sides = [Side::new(&case, &ours)?, Side::new(&case, &theirs)?];
        let load = |side: usize| {
            sides[side].run(&plan).with_context(|| format!("{} under load", ["relayd", rival][side]))
        };
        let mut samples = Vec::new();
        // The first pair is not counted.
        for pair in 0..=settings.pairs() {
            let seen = if pair.is_multiple_of(2) {
                [load(0)?, load(1)?]
            } else {
                let theirs = load(1)?;
                [load(0)?, theirs]
            };
            samples.push(seen);
        }
        samples.remove(0);
        for (name, figure, goal, at_most) in &case.rows {
            let each = |side: usize| samples.iter().map(|pair| figure.of(&pair[side])).collect();
            let mut row = Row {
                name: name.clone(),
                load: case.text(&plan),
                unit: figure.unit().to_owned(),
                ours: each(0),
                rival_name: rival.to_owned(),
                rival: each(1),
                goal: (*goal).to_owned(),
                at_most: Some(*at_most),
                ..Row::default()
            };
            add_columns(&mut row, &samples);
            keep(rows, settings, row);
        }
    }
    Ok(())
}

impl Case {
    fn plan(&self, settings: &Settings) -> Plan {
        let calm = self.offer == Offer::Rate(CALM);
        let burst = match self.trains {
            true => longest_train(datagram(self.size)),
            false if calm => 1,
            false => BURST,
        };
        Plan {
            size: self.size,
            offer: self.offer,
            burst,
            trains: self.trains,
            warm: Duration::from_millis(250),
            measure: Duration::from_millis(settings.sample_ms()),
        }
    }

    fn text(&self, plan: &Plan) -> String {
        let path = match self.path {
            Path::Loopback => "loopback",
            Path::Offloads => "veth with offloads",
            Path::Plain => "veth without offloads",
        };
        let offer = match plan.offer {
            Offer::Rate(rate) => format!("{} packets/s", number(rate)),
            Offer::Flood => "as much as the sender can".to_owned(),
            Offer::Window(window) => format!("closed window of {window} packets per session"),
        };
        let bursts = match plan.trains {
            true => format!("trains of {} (UDP_SEGMENT, UDP_GRO)", plan.burst),
            false => format!("{} at once, one datagram each", plan.burst),
        };
        format!(
            "{path}; {} sessions, {} bytes behind the Geneve header, {offer}, {bursts}; {} ms a sample",
            self.sessions,
            plan.size,
            plan.measure.as_millis()
        )
    }
}

/// A relay with bound sessions.
struct Side {
    relay: Relay,
    // Dropped after the relay inside.
    _place: Place,
    sockets: Vec<UdpSocket>,
    flows: Vec<Flow>,
}

impl Side {
    fn new(case: &Case, program: &Program) -> anyhow::Result<Side> {
        let place = Place::new(case.path)?;
        let relay = Relay::at(&place, program)?;
        let sockets = (0..2 * case.sessions)
            .map(|number| place.socket(number / case.sessions, PORT, case.trains))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let keys = Keys::new(&relay.admin, case.sessions)?;
        // Every client has a key and a socket of its own.
        let sessions = (0..case.sessions)
            .map(|number| {
                let pair = number * case.sessions + number;
                Ok(keys.allocate(&relay.admin, pair..pair + 1)?[0])
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (a, b) = sockets.split_at(case.sessions);
        keys.bind([a, b], &sessions).with_context(|| relay.log_tail())?;
        drain(&sockets);
        // Half of the sessions send in each direction.
        let flows = sessions.iter().enumerate().map(|(index, session)| {
            let (one, other) = (index, index + case.sessions);
            let (from, to) = if index.is_multiple_of(2) { (one, other) } else { (other, one) };
            Flow { vni: session.vni, from, to }
        });
        let flows = flows.collect();
        Ok(Side { relay, _place: place, sockets, flows })
    }

    fn run(&self, plan: &Plan) -> anyhow::Result<Seen> {
        let seen = run(plan, &self.sockets, &self.flows, self.relay.pid());
        drain(&self.sockets);
        seen.with_context(|| self.relay.log_tail())
    }
}

/// A further figure of a row: its name, and how it is found.
type Column = (&'static str, fn(&Seen) -> f64);

fn add_columns(row: &mut Row, samples: &[[Seen; 2]]) {
    let columns: [Column; 9] = [
        ("delivered per second", Seen::per_second),
        ("lost, of 1,000 sent", Seen::lost),
        ("relay: µs of CPU per packet", Seen::relay_us),
        ("relay: busy cores", |seen| seen.relay_cpu / seen.seconds),
        ("load: busy cores", |seen| seen.load_cpu / seen.seconds),
        ("machine: µs of CPU per packet", |seen| seen.machine_cpu * 1e6 / seen.done.max(1) as f64),
        ("packets per receive call of a client", |seen| seen.done as f64 / seen.trains.max(1) as f64),
        ("p50, µs", |seen| seen.p50_us),
        ("p99, µs", |seen| seen.p99_us),
    ];
    for (name, figure) in columns {
        let median = |side: usize| {
            let samples = samples.iter().map(|pair| figure(&pair[side]));
            crate::bench::report::Spread::of(samples).map_or(f64::NAN, |spread| spread.median)
        };
        row.add(name, number(median(0)), number(median(1)));
    }
}
