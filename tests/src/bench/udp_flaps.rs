//! Rows about a relay with very many sessions whose surroundings are restless: a route flaps every second,
//! and a neighbour that many sessions use is dead. The longest silence of a session in XDP, of one in
//! userspace and of a DERP ping, beside the same in calm.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

use super::report::{Row, number};
use super::udp::bind::{Keys, Session};
use super::udp::field::{BEHIND, CLIENTS, Field, MORTAL, PLAIN_CLIENTS, RELAY};
use super::udp::population::{Population, keys_for};
use super::udp::relay::{DERP_PORT, Program};
use super::udp::traffic::{Flow, Offer, Plan, Seen, run};
use super::{Settings, keep};
use crate::client::{Client, Dial, Start, Transport};

/// Bound sessions, without `--sessions`.
const SESSIONS: usize = 1_000_000;
/// The same in a short run.
const QUICK_SESSIONS: usize = 20_000;
/// Sockets of the clients on each side.
const SOCKETS: usize = 8;
/// Sessions whose clients are behind the gateway that changes, and those with a client that vanishes.
const SPECIAL: usize = 256;
/// Watched sessions: in XDP, in XDP behind the gateway that changes, and in userspace.
const WATCHED: [usize; 3] = [12, 4, 4];
/// Packets per second over all watched sessions.
const RATE: f64 = 20_000.0;
/// Bytes behind the Geneve header.
const SIZE: usize = 200;
/// Time between two changes of the route.
const FLAP: Duration = Duration::from_secs(1);
/// Time between two pings of the DERP client.
const PING: Duration = Duration::from_millis(5);
/// Longest time that the watched sessions have to come into the kernel.
const INSTALL: Duration = Duration::from_secs(180);
/// Silence that counts as none: a shared machine's scheduler takes that long.
const GOAL_MS: f64 = 50.0;

/// The rows of `bench udp-flaps`.
///
/// # Errors
/// The relay cannot be run, or the load fails.
pub fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        crate::skip("bench udp-flaps", "network namespaces need root");
        return Ok(rows);
    }
    let count = settings.sessions.unwrap_or(if settings.quick { QUICK_SESSIONS } else { SESSIONS });
    let mut programs = vec![&settings.relayd];
    programs.extend(&settings.against);
    let (mut sides, mut failed) = (Vec::new(), None);
    for (side, path) in programs.into_iter().enumerate() {
        let program = Program::Relayd(path.clone(), settings.relayd_args.clone());
        match Gaps::measure(settings, &program, count) {
            Ok(gaps) => sides.push(gaps),
            // That the other build cannot do it is a result.
            Err(error) if side > 0 => failed = Some(format!("The other build: {error:#}.")),
            Err(error) => return Err(error),
        }
    }
    let load = format!(
        "{count} bound sessions, {RATE} packets/s over {} of them; {} more through a gateway that changes every \
         second, {} more with a client that has vanished",
        WATCHED.iter().sum::<usize>(),
        SPECIAL,
        SPECIAL
    );
    for (figure, what) in FIGURES.iter().enumerate() {
        for (phase, state) in ["calm", "flaps"].into_iter().enumerate() {
            let value =
                |side: usize| sides.get(side).map(|gaps| gaps.phases[phase][figure]).into_iter().collect();
            let mut row = Row {
                name: format!("udp-{state}-{what}"),
                load: load.clone(),
                unit: format!("ms: longest silence of {what}"),
                ours: value(0),
                rival: value(1),
                rival_name: settings.against.as_ref().map_or_else(String::new, |_| "the other build".into()),
                goal: format!("at most {GOAL_MS} ms"),
                ours_at_most: Some(GOAL_MS),
                ..Row::default()
            };
            let text = |side: usize, of: fn(&Gaps) -> f64| {
                sides.get(side).map_or_else(String::new, |g| number(of(g)))
            };
            row.notes.extend(failed.clone());
            row.add("seconds to bind all", text(0, |gaps| gaps.loading), text(1, |gaps| gaps.loading));
            for (name, of) in PHASE_COLUMNS {
                let text = |side: usize| {
                    sides.get(side).map_or_else(String::new, |gaps| number(of(&gaps.seen[phase])))
                };
                row.add(name, text(0), text(1));
            }
            keep(&mut rows, settings, row);
        }
    }
    Ok(rows)
}

const FIGURES: [&str; 4] = ["xdp", "xdp-changing-gateway", "userspace", "derp-ping"];
/// A further figure of a phase: its name, and how it is found.
type Column = (&'static str, fn(&Seen) -> f64);

const PHASE_COLUMNS: [Column; 3] = [
    ("lost, of 1,000 sent", Seen::lost),
    ("p99 in flight, µs", |seen| seen.p99_us),
    ("relay: busy cores", |seen| seen.relay_cpu / seen.seconds),
];

/// The longest silences, by phase (calm, flaps) and by [`FIGURES`], in milliseconds.
struct Gaps {
    phases: [[f64; 4]; 2],
    seen: [Seen; 2],
    loading: f64,
}

impl Gaps {
    fn measure(settings: &Settings, program: &Program, count: usize) -> anyhow::Result<Gaps> {
        let field = Field::start(program, count)?;
        let start = Instant::now();
        let lab = Lab::load(&field, count)?;
        let loading = start.elapsed().as_secs_f64();
        eprintln!("udp-flaps: {count} sessions are bound after {loading:.0} s");
        lab.wait_installed(&field)?;
        // Long enough for each regular round: sweeps, refreshes, audits.
        let time = Duration::from_secs(if settings.quick { 15 } else { 60 });
        let calm = lab.watch(&field, time, |_| Ok(()))?;
        field.vanish()?;
        let flaps = lab.watch(&field, time, |turn| field.flap(turn))?;
        Ok(Gaps { phases: [calm.0, flaps.0], seen: [calm.1, flaps.1], loading })
    }
}

/// The watched sessions.
struct Lab {
    sockets: Vec<UdpSocket>,
    flows: Vec<Flow>,
    /// Watched sessions that the kernel forwards.
    in_kernel: Vec<Session>,
}

impl Lab {
    fn load(field: &Field, count: usize) -> anyhow::Result<Lab> {
        // The keys make more pairs than the crowd's, for the special ones behind it.
        let [changing, userspace] = [count, count + SPECIAL];
        let last = count + 2 * SPECIAL + WATCHED[2];
        let keys = Keys::new(&field.relay.admin, keys_for(last))?;
        let crowd = CLIENTS.map(|ip| field.sockets(ip, SOCKETS));
        let [a, b] = crowd;
        let (a, b) = (a?, b?);
        let load = |sockets: [&[UdpSocket]; 2], from: usize, count: usize| {
            anyhow::Ok(Population::load(&field.relay, &keys, sockets, from, count)?.sessions)
        };
        let behind = field.sockets(BEHIND, 1)?;
        let mortal = field.sockets(MORTAL, 1)?;
        let plain = PLAIN_CLIENTS.map(|ip| field.sockets(ip, 1));
        let [plain_a, plain_b] = plain;
        let (plain_a, plain_b) = (plain_a?, plain_b?);
        let all = load([&a, &b], 0, count)?;
        let changing = load([&behind, &b[..1]], changing, SPECIAL)?;
        let userspace = load([&plain_a, &plain_b], userspace, WATCHED[2])?;
        load([&mortal, &b[..1]], last - SPECIAL, SPECIAL)?;

        // Watched are sessions from all over the crowd.
        let step = (all.len() / WATCHED[0]).max(1);
        let picked: Vec<(usize, Session)> =
            all.iter().copied().enumerate().step_by(step).take(WATCHED[0]).collect();
        let mut sockets: Vec<UdpSocket> = a.into_iter().chain(b).collect();
        let mut flows: Vec<Flow> = picked
            .iter()
            // The same socket as when it was bound: its number within its chunk.
            .map(|(number, session)| {
                let at = number % super::udp::population::CHUNK % SOCKETS;
                Flow { vni: session.vni, from: at, to: SOCKETS + at }
            })
            .collect();
        let mut in_kernel: Vec<Session> = picked.iter().map(|(_, session)| *session).collect();
        sockets.extend(behind);
        let gateway = sockets.len() - 1;
        for session in &changing[..WATCHED[1]] {
            // Towards the client whose route changes.
            flows.push(Flow { vni: session.vni, from: SOCKETS, to: gateway });
            in_kernel.push(*session);
        }
        let at = sockets.len();
        sockets.extend(plain_a.into_iter().chain(plain_b));
        flows.extend(userspace.iter().map(|session| Flow { vni: session.vni, from: at, to: at + 1 }));
        Ok(Lab { sockets, flows, in_kernel })
    }

    /// Waits until the kernel forwards the watched sessions.
    fn wait_installed(&self, field: &Field) -> anyhow::Result<()> {
        let end = Instant::now() + INSTALL;
        for session in &self.in_kernel {
            let vni = session.vni.get();
            while field.installed(vni)? != Some(true) {
                anyhow::ensure!(
                    Instant::now() < end,
                    "session {vni} is in userspace {} s after the last was bound",
                    INSTALL.as_secs()
                );
                thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }

    /// Watches for `time` while `disturb` is called each second.
    fn watch(
        &self,
        field: &Field,
        time: Duration,
        disturb: impl Fn(usize) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<([f64; 4], Seen)> {
        let plan = Plan {
            size: SIZE,
            offer: Offer::Rate(RATE),
            burst: 1,
            trains: false,
            warm: Duration::from_millis(500),
            measure: time,
        };
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let pings = scope.spawn(|| pings(field, &stop));
            let disturbing = scope.spawn(|| -> anyhow::Result<()> {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    disturb(turn)?;
                    thread::sleep(FLAP);
                }
                Ok(())
            });
            let before = forwarded(field)?;
            let seen = run(&plan, &self.sockets, &self.flows, field.relay.pid());
            let by_kernel = forwarded(field)?.saturating_sub(before);
            stop.store(true, Ordering::Relaxed);
            let ping = pings.join().map_err(|_| anyhow!("the DERP client panicked"))??;
            disturbing.join().map_err(|_| anyhow!("the disturber panicked"))??;
            let seen = seen.with_context(|| field.relay.log_tail())?;
            let longest =
                |range: std::ops::Range<usize>| seen.gaps_ms[range].iter().copied().fold(0.0, f64::max);
            eprintln!("    by XDP: {} of {} packets", by_kernel, seen.sent);
            let [xdp, changing, _] = WATCHED;
            let all = seen.gaps_ms.len();
            let gaps = [longest(0..xdp), longest(xdp..xdp + changing), longest(xdp + changing..all)];
            Ok(([gaps[0], gaps[1], gaps[2], ping], seen))
        })
    }
}

/// Packets that the XDP program has forwarded.
fn forwarded(field: &Field) -> anyhow::Result<u64> {
    let status = field.relay.admin.status()?;
    status["xdp"]["reasons"]["forwarded"]["packets"].as_u64().context("no count of forwarded packets")
}

/// Pings over DERP until told to stop; returns the longest round trip in milliseconds. A ping without an
/// answer took as long as the client waited.
fn pings(field: &Field, stop: &AtomicBool) -> anyhow::Result<f64> {
    let dial = Dial { addr: (RELAY, DERP_PORT).into(), transport: Transport::Plain, start: Start::Normal };
    field.far.enter(|| {
        let mut longest = Duration::ZERO;
        let mut client = Some(Client::connect(&dial)?);
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                match client.as_mut().map(Client::ping) {
                    Some(Ok(_)) => break,
                    // Who was cut comes back; until then, it is one long silence.
                    _ => client = Client::connect(&dial).ok(),
                }
            }
            longest = longest.max(asked.elapsed());
            thread::sleep(PING);
        }
        Ok(longest.as_secs_f64() * 1e3)
    })?
}
