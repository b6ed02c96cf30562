//! Traffic through bound sessions: one thread sends, one receives, and the relay's clocks are read before and
//! after.
//!
//! ```text
//!   UDP payload:  Geneve 8 | WireGuard's head 16 | flow 8 | number 8 | time 8 | filler
//! ```

mod receive;
mod send;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use procfs::{CurrentSI as _, KernelStats};
use rand_core::{OsRng, RngCore as _};
use relay_common::geneve::{GENEVE_LEN, Vni};

use crate::bench::usage;

/// Where the number of the run is: in WireGuard's head.
const RUN: usize = GENEVE_LEN + 4;
/// Where the load's own words begin, behind WireGuard's head.
const STAMP: usize = GENEVE_LEN + 16;
/// Bytes of the smallest datagram: its stamp must fit.
const SMALLEST: usize = STAMP + 24;

/// Bytes of a datagram with `size` bytes behind the Geneve header.
pub(in crate::bench) fn datagram(size: usize) -> usize {
    GENEVE_LEN + size
}

/// One direction of a session.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Flow {
    /// The session.
    pub(in crate::bench) vni: Vni,
    /// The index of the sending socket.
    pub(in crate::bench) from: usize,
    /// The index of the receiving socket.
    pub(in crate::bench) to: usize,
}

/// How much is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::bench) enum Offer {
    /// Packets per second of all flows together.
    Rate(f64),
    /// As many as the sender can, no matter how many arrive.
    Flood,
    /// Each flow keeps at most this many packets on their way.
    Window(u64),
}

/// The task of a run.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Plan {
    /// Bytes behind the Geneve header.
    pub(in crate::bench) size: usize,
    /// How much is sent.
    pub(in crate::bench) offer: Offer,
    /// Packets that a flow sends at once.
    pub(in crate::bench) burst: usize,
    /// Whether a burst is one train (UDP_SEGMENT), and receivers take trains whole (UDP_GRO).
    pub(in crate::bench) trains: bool,
    /// Time before the measurement.
    pub(in crate::bench) warm: Duration,
    /// Time of the measurement.
    pub(in crate::bench) measure: Duration,
}

/// What a run showed.
#[derive(Clone, Debug, Default)]
pub(in crate::bench) struct Seen {
    /// Seconds of the measurement.
    pub(in crate::bench) seconds: f64,
    /// Packets that the sender gave to its sockets.
    pub(in crate::bench) sent: u64,
    /// Packets that arrived.
    pub(in crate::bench) done: u64,
    /// Receive calls that brought them: with trains, the number of trains.
    pub(in crate::bench) trains: u64,
    /// CPU seconds of the relay.
    pub(in crate::bench) relay_cpu: f64,
    /// CPU seconds of the load.
    pub(in crate::bench) load_cpu: f64,
    /// CPU seconds of the machine.
    pub(in crate::bench) machine_cpu: f64,
    /// Median time from sending to reading, in microseconds.
    pub(in crate::bench) p50_us: f64,
    /// The 99th percentile of the same.
    pub(in crate::bench) p99_us: f64,
    /// For each flow: the longest time between two arrivals, in milliseconds.
    pub(in crate::bench) gaps_ms: Vec<f64>,
}

impl Seen {
    /// Microseconds of the relay's CPU for each packet that arrived.
    pub(in crate::bench) fn relay_us(&self) -> f64 {
        self.relay_cpu * 1e6 / self.done.max(1) as f64
    }

    /// Whole packets that arrived per second.
    pub(in crate::bench) fn per_second(&self) -> f64 {
        self.done as f64 / self.seconds
    }

    /// Microseconds of wall clock for each packet that arrived.
    pub(in crate::bench) fn wall_us(&self) -> f64 {
        self.seconds * 1e6 / self.done.max(1) as f64
    }

    /// Packets that did not arrive, of 1,000 sent.
    pub(in crate::bench) fn lost(&self) -> f64 {
        self.sent.saturating_sub(self.done) as f64 * 1e3 / self.sent.max(1) as f64
    }
}

/// What the threads share.
struct Shared<'a> {
    plan: &'a Plan,
    flows: &'a [Flow],
    sockets: &'a [UdpSocket],
    start: Instant,
    /// Tells this run's packets from those of an earlier one that are late.
    number: u32,
    stop: AtomicBool,
    measuring: AtomicBool,
    sent: AtomicU64,
    done: AtomicU64,
    trains: AtomicU64,
    /// By flow: packets that arrived.
    arrived: Vec<AtomicU64>,
}

impl Shared<'_> {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Sends and receives as planned, and reads the clocks of the relay's process.
pub(in crate::bench) fn run(
    plan: &Plan,
    sockets: &[UdpSocket],
    flows: &[Flow],
    relay: u32,
) -> anyhow::Result<Seen> {
    ensure!(!flows.is_empty() && GENEVE_LEN + plan.size >= SMALLEST, "too little to send");
    let shared = Shared {
        plan,
        flows,
        sockets,
        start: Instant::now(),
        number: OsRng.next_u32(),
        stop: AtomicBool::new(false),
        measuring: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        done: AtomicU64::new(0),
        trains: AtomicU64::new(0),
        arrived: flows.iter().map(|_| AtomicU64::new(0)).collect(),
    };
    thread::scope(|scope| {
        // A failure must end the measurement at once.
        let receiver = scope.spawn(|| receive::receive(&shared).inspect_err(|_| shared.stop()));
        let sender = scope.spawn(|| send::send(&shared).inspect_err(|_| shared.stop()));
        let seen = measure(&shared, relay);
        shared.stop();
        sender.join().map_err(|_| anyhow!("the sender panicked"))?.context("sending")?;
        let times = receiver.join().map_err(|_| anyhow!("the receiver panicked"))?.context("receiving")?;
        let us = |quantile| times.latency.value_at_quantile(quantile) as f64 / 1e3;
        let gaps_ms = times.gaps_ns.iter().map(|gap| *gap as f64 / 1e6).collect();
        Ok(Seen { p50_us: us(0.5), p99_us: us(0.99), gaps_ms, ..seen? })
    })
}

fn measure(shared: &Shared<'_>, relay: u32) -> anyhow::Result<Seen> {
    let wait = |time: Duration| {
        let end = Instant::now() + time;
        while Instant::now() < end && !shared.stopped() {
            thread::sleep((end - Instant::now()).min(Duration::from_millis(50)));
        }
    };
    let sample = || -> anyhow::Result<_> {
        let counts = [&shared.sent, &shared.done, &shared.trains].map(|count| count.load(Ordering::Relaxed));
        Ok((Instant::now(), counts, usage::cpu(relay)?, usage::own_cpu()?, machine_cpu()?))
    };
    wait(shared.plan.warm);
    shared.measuring.store(true, Ordering::Relaxed);
    let before = sample()?;
    wait(shared.plan.measure);
    let after = sample()?;
    shared.measuring.store(false, Ordering::Relaxed);
    let [sent, done, trains] = [0, 1, 2].map(|index| after.1[index] - before.1[index]);
    Ok(Seen {
        seconds: (after.0 - before.0).as_secs_f64(),
        sent,
        done,
        trains,
        relay_cpu: (after.2 - before.2).as_secs_f64(),
        load_cpu: (after.3 - before.3).as_secs_f64(),
        machine_cpu: after.4 - before.4,
        ..Seen::default()
    })
}

/// Seconds that the machine's cores have worked, interrupts among them.
fn machine_cpu() -> anyhow::Result<f64> {
    let total = KernelStats::current()?.total;
    let ticks = total.user
        + total.nice
        + total.system
        + total.irq.unwrap_or_default()
        + total.softirq.unwrap_or_default();
    Ok(ticks as f64 / procfs::ticks_per_second() as f64)
}
