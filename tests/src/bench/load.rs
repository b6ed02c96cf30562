//! The load: DERP clients in a separate process. It reads the server's CPU clock itself and prints its
//! results as one line of JSON.
//!
//! The load shall cost less than any server. One thread's epoll loop owns both ends of its pairs, so a window
//! needs no acknowledgements. Records are opened in the read buffer, and only the stamp at the head of a
//! packet is read. Every packet is one TLS record, or several if it does not fit into one.

mod blocked;
mod churn;
mod client;
mod door;
mod flow;
mod login;
mod outcome;
mod pace;
mod scan;
mod sizes;
mod slow;
mod steady;
mod tls;

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
pub use door::Door;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
pub use outcome::Outcome;
use serde::Serialize;
pub use sizes::{Cost, SIZES};
pub use slow::{Age, Ages};

/// The task of a load process.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Plan {
    /// The server's DERP listener
    #[arg(long)]
    pub addr: SocketAddr,
    /// The server's process
    #[arg(long)]
    pub pid: u32,
    /// The name to ask the server for; without, its address
    #[arg(long)]
    pub name: Option<String>,
    /// Another relay, where every client with an odd number connects
    #[arg(long)]
    pub to: Option<Door>,
    /// More processes whose CPU time is measured
    #[arg(long)]
    pub beside: Vec<u32>,
    /// Connect without TLS
    #[arg(long)]
    pub plain: bool,
    /// Kind of load
    #[arg(long, value_enum, default_value_t = Shape::Window)]
    pub shape: Shape,
    /// Connected clients; every client with an even number sends to the next one
    #[arg(long, default_value_t = 20)]
    pub clients: usize,
    /// Maximum packets on their way, for each pair
    #[arg(long, default_value_t = 64)]
    pub window: u64,
    /// Packets per second of all senders together
    #[arg(long, default_value_t = 4000.0)]
    pub rate: f64,
    /// Bytes of a packet
    #[arg(long, default_value_t = 1200)]
    pub size: usize,
    /// Write the records of several packets at once, when a sender may send several
    #[arg(long)]
    pub gather: bool,
    /// Number of threads
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Packets for each client that reads nothing
    #[arg(long, default_value_t = 1000)]
    pub packets: usize,
    /// Bytes per second that a slow client reads
    #[arg(long, default_value_t = 80_000.0)]
    pub drain: f64,
    /// Clients of a crowd that stay until standard input ends
    #[arg(long, default_value_t = 0)]
    pub stay: usize,
    /// Milliseconds of load before the measurement
    #[arg(long, default_value_t = 250)]
    pub warm_ms: u64,
    /// Milliseconds of the measurement
    #[arg(long, default_value_t = 1000)]
    pub measure_ms: u64,
}

impl Plan {
    /// A plan for any server, with the defaults of the command line.
    pub fn new(shape: Shape) -> Plan {
        Plan {
            addr: SocketAddr::from(([0; 4], 0)),
            pid: 0,
            name: None,
            to: None,
            beside: Vec::new(),
            plain: false,
            shape,
            clients: 20,
            window: 64,
            rate: 4000.0,
            size: 1200,
            gather: false,
            threads: 1,
            packets: 1000,
            drain: 80_000.0,
            stay: 0,
            warm_ms: 250,
            measure_ms: 1000,
        }
    }

    /// The plan as arguments of the load process.
    pub fn args(&self) -> Vec<String> {
        let shape =
            self.shape.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let mut args = vec![
            format!("--addr={}", self.addr),
            format!("--pid={}", self.pid),
            format!("--shape={shape}"),
            format!("--clients={}", self.clients),
            format!("--window={}", self.window),
            format!("--rate={}", self.rate),
            format!("--size={}", self.size),
            format!("--threads={}", self.threads),
            format!("--packets={}", self.packets),
            format!("--drain={}", self.drain),
            format!("--stay={}", self.stay),
            format!("--warm-ms={}", self.warm_ms),
            format!("--measure-ms={}", self.measure_ms),
        ];
        args.extend(self.name.iter().map(|name| format!("--name={name}")));
        args.extend(self.to.iter().map(|door| format!("--to={door}")));
        args.extend(self.beside.iter().map(|pid| format!("--beside={pid}")));
        args.extend(self.plain.then(|| "--plain".to_owned()));
        args.extend(self.gather.then(|| "--gather".to_owned()));
        args
    }
}

/// Kinds of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
pub enum Shape {
    /// Every pair keeps a window of packets on their way
    Window,
    /// Packets leave at a fixed rate, even if none arrive
    Rate,
    /// Like rate, but every client both sends and receives
    Everyone,
    /// Every client sends and receives one packet, then all stay connected
    Idle,
    /// Clients connect, log in and leave, one after another on each thread
    Logins,
    /// All clients connect, then all leave but some
    Crowd,
    /// Clients connect and leave one after another, at a fixed rate
    Passers,
    /// One client reads slowly and steadily, while another floods it
    Slow,
    /// Clients that read nothing are sent more packets than all queues hold
    Blocked,
    /// Packets of every size, to a client that reads nothing and to an unknown key
    Sizes,
}

/// Runs a plan to its end, and prints the results as one line of JSON.
///
/// # Errors
/// The server does not answer, refuses, or ends.
pub fn run(plan: &Plan) -> anyhow::Result<()> {
    give_up_after(Duration::from_millis(plan.warm_ms + plan.measure_ms) + patience(plan));
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of open files")?;
    let mut stayers = Vec::new();
    let outcome = match plan.shape {
        Shape::Window | Shape::Rate | Shape::Everyone => steady::run(plan)?,
        Shape::Idle => login::idle(plan)?,
        Shape::Logins => login::logins(plan)?,
        Shape::Crowd => {
            let (outcome, all) = churn::crowd(plan)?;
            stayers = all;
            outcome
        }
        Shape::Passers => churn::passers(plan)?,
        Shape::Slow => slow::run(plan)?,
        Shape::Blocked => blocked::run(plan)?,
        Shape::Sizes => sizes::run(plan)?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    if !stayers.is_empty() {
        io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

/// Extra time that a run may take beyond the plan: half a minute, 20 ms per login, one second per 10 MB for a
/// load with a fixed amount of data, and the time that passers need at their rate.
fn patience(plan: &Plan) -> Duration {
    let bytes = match plan.shape {
        Shape::Blocked => plan.clients * plan.packets * plan.size,
        Shape::Sizes => sizes::bytes(plan),
        _ => 0,
    };
    let passing = if plan.shape == Shape::Passers { plan.clients as f64 / plan.rate } else { 0.0 };
    let work = Duration::from_millis((20 * plan.clients + bytes / 10_000) as u64);
    Duration::from_secs(30) + work + Duration::from_secs_f64(passing)
}

/// Ends this process after `limit`, so that no run hangs.
fn give_up_after(limit: Duration) {
    thread::spawn(move || {
        thread::sleep(limit);
        eprintln!("load: not done after {limit:?}");
        process::exit(3);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_has_time_for_its_logins_and_for_its_bytes() {
        let seconds = |plan: &Plan| patience(plan).as_secs();
        assert_eq!(seconds(&Plan { clients: 9000, ..Plan::new(Shape::Idle) }), 30 + 180);
        let blocked = Plan { clients: 200, packets: 100, size: 60_000, ..Plan::new(Shape::Blocked) };
        assert_eq!(seconds(&blocked), 30 + 4 + 120);
        let sizes = Plan::new(Shape::Sizes);
        assert!(seconds(&Plan { packets: 100_000, ..sizes.clone() }) > seconds(&sizes));
    }
}
