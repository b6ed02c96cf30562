//! The load: DERP clients in a process of their own, which reads the server's clocks itself and prints what
//! it saw as one line of JSON.
//!
//! It is made to cost less than any server: one thread's epoll loop owns both ends of its pairs, so a window
//! needs no acknowledging packets; records are opened where they were read, and of a packet only the stamp at
//! its head is looked at. Every packet is a TLS record of its own, or several if it is longer than one.

mod blocked;
mod client;
mod flow;
mod login;
mod pace;
mod scan;
mod sizes;
mod slow;
mod steady;
mod tls;

use std::net::SocketAddr;
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
pub use sizes::{Cost, SIZES};
pub use slow::{Age, Ages};

/// What a load process does.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Plan {
    /// The server's DERP listener
    #[arg(long)]
    pub addr: SocketAddr,
    /// The server's process
    #[arg(long)]
    pub pid: u32,
    /// Without TLS
    #[arg(long)]
    pub plain: bool,
    /// What kind of load
    #[arg(long, value_enum, default_value_t = Shape::Window)]
    pub shape: Shape,
    /// Connected clients; every even one sends to the next
    #[arg(long, default_value_t = 20)]
    pub clients: usize,
    /// Packets on their way at most, for each pair
    #[arg(long, default_value_t = 64)]
    pub window: u64,
    /// Packets per second, all senders together
    #[arg(long, default_value_t = 4000.0)]
    pub rate: f64,
    /// Bytes of a packet
    #[arg(long, default_value_t = 1200)]
    pub size: usize,
    /// When a sender may send several packets, hand the kernel all their records in one write
    #[arg(long)]
    pub gather: bool,
    /// Threads
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Packets for each client that reads nothing
    #[arg(long, default_value_t = 1000)]
    pub packets: usize,
    /// Bytes per second that a slow client reads
    #[arg(long, default_value_t = 80_000.0)]
    pub drain: f64,
    /// Milliseconds of load before the measuring
    #[arg(long, default_value_t = 250)]
    pub warm_ms: u64,
    /// Milliseconds of measuring
    #[arg(long, default_value_t = 1000)]
    pub measure_ms: u64,
}

impl Plan {
    /// A plan for whichever server, with the defaults of the command line.
    pub fn new(shape: Shape) -> Plan {
        Plan {
            addr: SocketAddr::from(([0; 4], 0)),
            pid: 0,
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
            format!("--warm-ms={}", self.warm_ms),
            format!("--measure-ms={}", self.measure_ms),
        ];
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
    /// Packets leave at a fixed rate, whatever comes back
    Rate,
    /// As rate, and every client both sends and receives
    Everyone,
    /// Every client sends and receives one packet, then all stay
    Idle,
    /// Clients come, log in and leave, one after another on each thread
    Logins,
    /// One client reads slowly and steadily, and another floods it
    Slow,
    /// Clients that read nothing are sent packets until well past every queue
    Blocked,
    /// Packets of every size, to a client that reads nothing and to nobody
    Sizes,
}

/// What a load process saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Length of the measuring in seconds.
    pub seconds: f64,
    /// Packets that arrived, or logins done.
    pub done: u64,
    /// Packets that never arrived.
    pub lost: u64,
    /// CPU seconds of the server.
    pub server_cpu: f64,
    /// CPU seconds of this process.
    pub load_cpu: f64,
    /// Seconds that this process's threads were ready and had no core.
    pub load_queued: f64,
    /// Median time from when a packet was to be sent until it was read, in microseconds.
    pub p50_us: f64,
    /// The same at 99 of 100.
    pub p99_us: f64,
    /// How late a packet at a fixed rate was written, at 99 of 100, in microseconds.
    pub late_p99_us: f64,
    /// Resident bytes of the server before the clients came.
    pub resident_before: u64,
    /// Resident bytes of the server with all of them.
    pub resident_after: u64,
    /// Clients that the server cut.
    pub cut: u64,
    /// What a slow client read, and how old it was.
    pub ages: Ages,
    /// What packets cost the server, by size.
    pub costs: Vec<Cost>,
}

impl Outcome {
    /// Microseconds of server CPU for each packet or login.
    pub fn server_us(&self) -> f64 {
        self.server_cpu * 1e6 / self.done.max(1) as f64
    }

    /// Packets or logins per second of wall clock.
    pub fn per_second(&self) -> f64 {
        self.done as f64 / self.seconds
    }

    /// The share of its time that the load, of so many threads, had nothing to do.
    pub fn load_idle(&self, threads: usize) -> f64 {
        1.0 - (self.load_cpu + self.load_queued) / (self.seconds * threads as f64)
    }

    /// Resident bytes that each client added.
    pub fn bytes_per_client(&self, clients: usize) -> f64 {
        (self.resident_after as f64 - self.resident_before as f64) / clients as f64
    }
}

/// Runs a plan to its end.
///
/// # Errors
/// The server does not answer, refuses, or ends.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    give_up_after(Duration::from_millis(plan.warm_ms + plan.measure_ms) + patience(plan.clients));
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of open files")?;
    match plan.shape {
        Shape::Window | Shape::Rate | Shape::Everyone => steady::run(plan),
        Shape::Idle => login::idle(plan),
        Shape::Logins => login::logins(plan),
        Shape::Slow => slow::run(plan),
        Shape::Blocked => blocked::run(plan),
        Shape::Sizes => sizes::run(plan),
    }
}

/// Time beyond the plan's own that a run may take: half a minute, and 20 ms for every login.
fn patience(clients: usize) -> Duration {
    Duration::from_secs(30) + Duration::from_millis(20) * u32::try_from(clients).unwrap_or(u32::MAX)
}

/// No run may hang: this process ends after `limit` whatever happens.
fn give_up_after(limit: Duration) {
    thread::spawn(move || {
        thread::sleep(limit);
        eprintln!("load: not done after {limit:?}");
        process::exit(3);
    });
}
