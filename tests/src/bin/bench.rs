//! The benchmark's program; `cargo xtask bench` builds and starts it. See `relay_tests::bench`.
#![forbid(unsafe_code)]

use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use relay_tests::bench::{
    Settings, derp, load, lookup, machine, mesh, mesh_faults, mux,
    report::{Report, Row},
    scale, slow, udp, udp_flaps, workers,
};

/// Compares relayd and its parts with alternatives.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Finding a peer by its key
    Lookup,
    /// relayd and derper as processes, under the same load
    Derp,
    /// Many streams in one
    Mux,
    /// Thousands of clients that each say little
    Scale,
    /// Receivers that read slowly or not at all
    Slow,
    /// relayd with two workers and with one
    Workers,
    /// The UDP relay and upstream's peer relay, with few sessions and with very many
    Udp,
    /// The UDP relay with a million sessions while a route flaps and a neighbour is dead
    UdpFlaps,
    /// Regions of three relays: packets that cross a link, clients that come and go, a frozen relay
    Mesh,
    /// Regions of three relays while one of them is cut off, frozen, killed or restarted
    MeshFaults,
    /// All groups except the regions, which take long
    All,
    /// One load process; the other commands start it
    #[command(hide = true)]
    Load(Box<load::Plan>),
}

#[derive(Args, Debug)]
struct How {
    /// Take fewer and shorter samples, to see that everything works
    #[arg(long, global = true)]
    quick: bool,
    /// Pairs of samples per row, if a row has pairs; use more where a difference is small
    #[arg(long, global = true, value_name = "COUNT")]
    pairs: Option<NonZero<usize>>,
    /// Measure only rows whose name contains this
    #[arg(long, global = true, value_name = "PART")]
    row: Option<String>,
    /// The daemon, built with --release
    #[arg(long, global = true, env = "RELAYD_BIN", default_value = "target/release/relayd")]
    relayd: PathBuf,
    /// An additional argument for every relayd, such as --relayd-arg=--workers=2
    #[arg(long, global = true, value_name = "ARG", allow_hyphen_values = true)]
    relayd_arg: Vec<String>,
    /// Sessions of `udp-flaps`
    #[arg(long, global = true, value_name = "COUNT")]
    sessions: Option<usize>,
    /// Another build of the daemon, which takes derper's place, to compare a change with the build before it
    #[arg(long, global = true, value_name = "PATH")]
    against: Option<PathBuf>,
    /// Directory for the report
    #[arg(long, global = true, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Also write the page and its plot, with this date, to the daemon's documents
    #[arg(long, global = true, value_name = "DATE")]
    commit_report: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let Cli { verb, how } = Cli::parse();
    let settings = Settings {
        quick: how.quick,
        pairs: how.pairs.map(NonZero::get),
        row: how.row.clone(),
        relayd: how.relayd.clone(),
        relayd_args: how.relayd_arg.clone(),
        sessions: how.sessions,
        against: how.against.clone(),
    };
    let suites: &[(&str, Suite)] = match verb {
        Verb::Lookup => &[LOOKUP],
        Verb::Derp => &[DERP],
        Verb::Mux => &[MUX],
        Verb::Scale => &[SCALE],
        Verb::Slow => &[SLOW],
        Verb::Workers => &[WORKERS],
        Verb::Udp => &[UDP],
        Verb::UdpFlaps => &[UDP_FLAPS],
        Verb::Mesh => &[MESH],
        Verb::MeshFaults => &[MESH_FAULTS],
        Verb::All => &[LOOKUP, DERP, MUX, SCALE, SLOW, WORKERS],
        Verb::Load(plan) => {
            return load::run(&plan);
        }
    };
    report(&how, suites, &settings)
}

type Suite = fn(&Settings) -> anyhow::Result<Vec<Row>>;
const LOOKUP: (&str, Suite) = ("lookup", lookup::rows);
const DERP: (&str, Suite) = ("derp", derp::rows);
const SCALE: (&str, Suite) = ("scale", scale::rows);
const MUX: (&str, Suite) = ("mux", mux::rows);
const SLOW: (&str, Suite) = ("slow", slow::rows);
const WORKERS: (&str, Suite) = ("workers", workers::rows);
const UDP: (&str, Suite) = ("udp", udp::rows);
const UDP_FLAPS: (&str, Suite) = ("udp-flaps", udp_flaps::rows);
const MESH: (&str, Suite) = ("mesh", mesh::rows);
const MESH_FAULTS: (&str, Suite) = ("mesh-faults", mesh_faults::rows);

fn report(how: &How, suites: &[(&str, Suite)], settings: &Settings) -> anyhow::Result<()> {
    let any = |names: &[&str]| suites.iter().any(|(name, _)| names.contains(name));
    let mut facts =
        match (any(&["derp", "scale", "slow", "mesh", "mesh-faults"]), any(&["workers", "udp", "udp-flaps"]))
        {
            (true, _) => derp::facts(settings)?,
            (false, true) => workers::facts(settings)?,
            _ => Vec::new(),
        };
    let busy = machine::load_average().map_or_else(String::new, |load| load.to_string());
    facts.push(("load average before the run", busy));
    let mut rows = Vec::new();
    for (name, suite) in suites {
        rows.extend(suite(settings).with_context(|| format!("bench {name}"))?);
    }
    let verb = if let [(name, _)] = suites { name } else { "all" };
    let mut command = format!("cargo xtask bench {verb}");
    if how.quick {
        command.push_str(" --quick");
    }
    if let Some(pairs) = how.pairs {
        command.push_str(&format!(" --pairs {pairs}"));
    }
    if let Some(row) = &how.row {
        command.push_str(&format!(" --row {row}"));
    }
    let mut args: Vec<String> = how.relayd_arg.iter().map(|arg| format!("--relayd-arg={arg}")).collect();
    args.extend(how.against.iter().map(|_| "--against OTHER-RELAYD".to_owned()));
    if !args.is_empty() {
        command.push_str(&format!(" -- {}", args.join(" ")));
    }
    let report = Report { command, date: how.commit_report.clone().unwrap_or_default(), facts, rows };
    let page = report.write(&how.out, verb)?;
    println!("{}", page.display());
    if let Some(date) = &how.commit_report {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("relay-user").join("docs/benchmarks");
        report.write_to_docs(&docs, &format!("{date}-{verb}"))?;
    }
    Ok(())
}
