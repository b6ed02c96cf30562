//! Runs relayd and derper at the same time, and puts the same load on one after the other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};

use super::Settings;
use super::load::{Outcome, Plan, Shape};
use super::report::{Row, Spread, number};
use super::server::Server;
use crate::interop;
use crate::region::{Kind, Program};

/// The rival's name in rows.
pub(super) const DERPER: &str = "derper 1.104.5";

/// A load process that is idle for less than this share of its time may limit the rate. Idle means neither
/// running nor waiting for a core.
const IDLE: f64 = 0.03;

/// At a fixed rate, a load that is idle for less than this share delays packets itself: they wait in its
/// sockets.
const IDLE_AT_A_RATE: f64 = 0.2;

/// How both servers are started for a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Sides {
    /// Run without TLS.
    pub(super) plain: bool,
    /// Give derper a queue that holds a row's window.
    pub(super) long_queue: bool,
    /// Additional arguments for relayd.
    pub(super) relayd_args: Vec<String>,
    /// Additional arguments for both.
    pub(super) both_args: Vec<String>,
}

impl Sides {
    /// Describes the settings in words.
    pub(super) fn text(&self, settings: &Settings) -> String {
        let (name, depth) = super::server::DERPER_QUEUE;
        let queue = self.long_queue.then(|| format!("{name}={depth}"));
        let theirs: Vec<&String> = queue.iter().chain(&self.both_args).collect();
        format!("relayd: {}; derper: {}", self.ours_text(settings), settings_text(&theirs))
    }

    /// Describes relayd's settings in words.
    pub(super) fn ours_text(&self, settings: &Settings) -> String {
        settings_text(&self.all_args(settings).collect::<Vec<_>>())
    }

    /// Starts relayd.
    fn ours(&self, settings: &Settings) -> anyhow::Result<Server> {
        let args: Vec<String> = self.all_args(settings).cloned().collect();
        Server::relayd(&settings.relayd, self.plain, &args)
    }

    /// Starts derper, or the other build of relayd in its place.
    fn theirs(&self, settings: &Settings) -> anyhow::Result<Server> {
        if let Some(other) = &settings.against {
            let args: Vec<String> = self.all_args(settings).cloned().collect();
            return Server::relayd(other, self.plain, &args);
        }
        Server::derper(derper()?, self.plain, self.long_queue, &self.both_args)
    }

    /// The arguments from the command line, and the row's own, which win: relayd takes a flag once.
    fn all_args<'a>(&'a self, settings: &'a Settings) -> impl Iterator<Item = &'a String> {
        let flag = |arg: &String| arg.split('=').next().map(str::to_owned);
        let own = || self.relayd_args.iter().chain(&self.both_args);
        let flags: Vec<_> = own().map(flag).collect();
        settings.relayd_args.iter().filter(move |arg| !flags.contains(&flag(arg))).chain(own())
    }
}

/// A server's settings in the report's form.
fn settings_text(args: &[&String]) -> String {
    if args.is_empty() {
        return "defaults".to_owned();
    }
    format!("`{}`", args.iter().map(|arg| arg.as_str()).collect::<Vec<_>>().join(" "))
}

/// relayd, and derper or the other build of relayd in its place, as relays of a region. `None`: regions need
/// root, and `bench` was skipped by this name.
///
/// # Errors
/// derper cannot be built.
pub(super) fn programs(settings: &Settings, bench: &str) -> anyhow::Result<Option<[Program; 2]>> {
    if !nix::unistd::geteuid().is_root() {
        crate::skip(bench, "network namespaces need root");
        return Ok(None);
    }
    let ours =
        Program { kind: Kind::Relayd, path: settings.relayd.clone(), args: settings.relayd_args.clone() };
    let theirs = match &settings.against {
        Some(other) => Program { path: other.clone(), ..ours.clone() },
        None => Program { kind: Kind::Derper, path: derper()?.to_owned(), args: Vec::new() },
    };
    Ok(Some([ours, theirs]))
}

/// Two running servers.
pub(super) struct Rivals {
    ours: Server,
    theirs: Server,
}

/// The results of alternating loads: pairs of ours and theirs.
#[derive(Debug, Default)]
pub(super) struct Samples(pub(super) Vec<[Outcome; 2]>);

impl Rivals {
    pub(super) fn start(settings: &Settings, sides: &Sides) -> anyhow::Result<Rivals> {
        Ok(Rivals { ours: sides.ours(settings)?, theirs: sides.theirs(settings)? })
    }

    /// relayd, and relayd with other settings as its rival.
    pub(super) fn own(settings: &Settings, [ours, theirs]: [&Sides; 2]) -> anyhow::Result<Rivals> {
        Ok(Rivals { ours: ours.ours(settings)?, theirs: theirs.ours(settings)? })
    }

    /// Puts one uncounted load on each server, then `pairs` counted ones; the servers take turns at being
    /// first.
    pub(super) fn alternate(&self, plan: &Plan, pairs: usize) -> anyhow::Result<Samples> {
        let ours = || self.ours.load(plan).context("relayd");
        let theirs = || self.theirs.load(plan).context("the rival");
        let pair = |number: usize| -> anyhow::Result<[Outcome; 2]> {
            if number.is_multiple_of(2) {
                return Ok([ours()?, theirs()?]);
            }
            let theirs = theirs()?;
            Ok([ours()?, theirs])
        };
        pair(0)?;
        Ok(Samples((1..=pairs).map(pair).collect::<anyhow::Result<_>>()?))
    }
}

/// Starts new servers for each pair of samples, for effects that only a new process shows.
pub(super) fn alternate_fresh(
    settings: &Settings,
    sides: &Sides,
    plan: &Plan,
    pairs: usize,
) -> anyhow::Result<Samples> {
    let pair = || -> anyhow::Result<[Outcome; 2]> {
        // The servers run one after the other, so that neither holds memory while the other is measured.
        let ours = sides.ours(settings)?.load(plan).context("relayd")?;
        Ok([ours, sides.theirs(settings)?.load(plan).context("derper")?])
    };
    Ok(Samples((0..pairs).map(|_| pair()).collect::<anyhow::Result<_>>()?))
}

impl Samples {
    /// One figure of every sample: ours, theirs.
    pub(super) fn each(&self, figure: impl Fn(&Outcome) -> f64) -> [Vec<f64>; 2] {
        [0, 1].map(|side| self.0.iter().map(|pair| figure(&pair[side])).collect())
    }

    /// The median of one figure: ours, theirs.
    pub(super) fn medians(&self, figure: impl Fn(&Outcome) -> f64) -> [f64; 2] {
        self.each(figure).map(|samples| Spread::of(samples).map_or(f64::NAN, |spread| spread.median))
    }

    /// Fills in a row's samples; the rival is derper unless the row names another one.
    pub(super) fn judge(&self, row: Row, figure: impl Fn(&Outcome) -> f64) -> Row {
        let [ours, rival] = self.each(figure);
        let rival_name = if row.rival_name.is_empty() { DERPER.to_owned() } else { row.rival_name };
        Row { ours, rival, rival_name, ..row }
    }

    /// Adds a median as a further column.
    pub(super) fn add(&self, row: &mut Row, name: &str, figure: impl Fn(&Outcome) -> f64) {
        let [ours, theirs] = self.medians(figure);
        row.add(name, number(ours), number(theirs));
    }

    /// Adds the further columns of every row about packets, and a note if the load limited the rate.
    pub(super) fn add_traffic(&self, row: &mut Row, plan: &Plan) {
        self.add(row, "delivered per second", Outcome::per_second);
        self.add(row, "lost, of 1,000 sent", |seen| {
            seen.lost as f64 * 1e3 / (seen.done + seen.lost).max(1) as f64
        });
        self.add(row, "server: busy cores", |seen| seen.server_cpu / seen.seconds);
        self.add(row, "load process: busy cores", |seen| seen.load_cpu / seen.seconds);
        self.add(row, "p50 in flight, µs", |seen| seen.p50_us);
        self.add(row, "p99 in flight, µs", |seen| seen.p99_us);
        let idle = self.medians(|seen| seen.load_idle(plan.threads));
        let least = if plan.shape == Shape::Window { IDLE } else { IDLE_AT_A_RATE };
        let rival = row.rival_name.clone();
        for (name, idle) in ["relayd", &rival].iter().zip(idle) {
            let share = number(idle * 100.0);
            row.notes.push(match (idle > least, plan.shape) {
                (true, _) => {
                    format!("The load waited for {name}: {share} % of its time it had nothing to do.")
                }
                (false, Shape::Window) => {
                    format!("**The load set the pace of {name}**: idle {share} % of its time.")
                }
                (false, _) => format!(
                    "**Packets may have waited in the load beside {name}**: idle {share} % of its time."
                ),
            });
        }
    }
}

/// The compared programs: name and version.
pub(super) fn facts(settings: &Settings) -> anyhow::Result<Vec<(&'static str, String)>> {
    if let Some(other) = &settings.against {
        return Ok(vec![daemon(settings)?, ("rival", version(&other.to_string_lossy(), &["--version"])?)]);
    }
    let derper = derper()?;
    let go = version("go", &["version", &derper.to_string_lossy()])?;
    // `PATH: go1.27.3`
    let go = go.rsplit(' ').next().unwrap_or_default().to_owned();
    Ok(vec![daemon(settings)?, ("rival", format!("{DERPER}, built with {go}"))])
}

/// The version of relayd.
pub(super) fn daemon(settings: &Settings) -> anyhow::Result<(&'static str, String)> {
    Ok(("daemon", version(&settings.relayd.to_string_lossy(), &["--version"])?))
}

fn version(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| program.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The path of derper. It is built at the first call: building it later would disturb samples, and inside a
/// network namespace Go could not fetch anything.
pub(super) fn derper() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(program) = BUILT.get() {
        return Ok(program);
    }
    match interop::build_program("tailscale.com/cmd/derper")? {
        Ok(program) => Ok(BUILT.get_or_init(|| program)),
        Err(reason) => bail!("no derper to compare with: {reason}"),
    }
}
