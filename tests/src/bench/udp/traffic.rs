//! Traffic through bound sessions: one thread sends, one receives, and the relay's clocks are read before and
//! after.
//!
//! ```text
//!   UDP payload:  Geneve 8 | WireGuard's head 16 | flow 8 | number 8 | time 8 | filler
//! ```

use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rand_core::{OsRng, RngCore as _};
use procfs::{CurrentSI as _, KernelStats};
use relay_common::geneve::{GENEVE_LEN, Geneve, Protocol, Vni};

use super::datagrams::{Inbox, send_singles, send_train};
use crate::bench::usage;

/// Where the number of the run is: in WireGuard's head.
const RUN: usize = GENEVE_LEN + 4;
/// Where the load's own words begin, behind WireGuard's head.
const STAMP: usize = GENEVE_LEN + 16;
/// Bytes of the smallest datagram: its stamp must fit.
const SMALLEST: usize = STAMP + 24;
/// A sender that is behind its schedule by more than this gives up what it owes: the load is too much for the
/// machine, and a burst would measure something else.
const LATE: Duration = Duration::from_millis(20);
/// A closed window in which nothing has arrived for this long was lost, and opens again.
const STALL: Duration = Duration::from_millis(20);
/// How long a thread waits for an event before it looks whether the run is over.
const LOOK_MS: u16 = 10;

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
pub(in crate::bench) fn run(plan: &Plan, sockets: &[UdpSocket], flows: &[Flow], relay: u32) -> anyhow::Result<Seen> {
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
        let receiver = scope.spawn(|| receive(&shared).inspect_err(|_| shared.stop()));
        let sender = scope.spawn(|| send(&shared).inspect_err(|_| shared.stop()));
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

/// A flow's next datagrams.
struct Sender {
    bytes: Vec<u8>,
    datagram: usize,
    sent: u64,
    /// Packets that were given up when the window was opened anew.
    lost: u64,
    /// What had arrived when something last did, and when that was.
    seen: u64,
    moved: Instant,
}

impl Sender {
    fn new(flow: Flow, number: usize, run: u32, plan: &Plan) -> Sender {
        let head = Geneve { control: false, protocol: Protocol::WireGuard, vni: flow.vni };
        let datagram = GENEVE_LEN + plan.size;
        let mut one = vec![0x5a; datagram];
        one[..GENEVE_LEN].copy_from_slice(&head.encode());
        // A transport message; its receiver's index is the run.
        one[GENEVE_LEN..][..4].copy_from_slice(&[4, 0, 0, 0]);
        one[RUN..][..4].copy_from_slice(&run.to_be_bytes());
        one[STAMP..][..8].copy_from_slice(&(number as u64).to_be_bytes());
        let bytes = one.repeat(plan.burst);
        Sender { bytes, datagram, sent: 0, lost: 0, seen: 0, moved: Instant::now() }
    }

    fn burst(&mut self, socket: &UdpSocket, plan: &Plan, now_ns: u64) -> anyhow::Result<u64> {
        for one in self.bytes.chunks_mut(self.datagram) {
            one[STAMP + 8..][..8].copy_from_slice(&self.sent.to_be_bytes());
            one[STAMP + 16..][..8].copy_from_slice(&now_ns.to_be_bytes());
            self.sent += 1;
        }
        if plan.trains && plan.burst > 1 {
            let sent = send_train(socket, &self.bytes, u16::try_from(self.datagram)?)?;
            return Ok(if sent { plan.burst as u64 } else { 0 });
        }
        Ok(send_singles(socket, &self.bytes, self.datagram)? as u64)
    }

    /// Whether a closed window has room for a burst.
    fn has_room(&mut self, arrived: u64, window: u64, burst: u64) -> bool {
        if arrived != self.seen {
            (self.seen, self.moved) = (arrived, Instant::now());
        }
        // What was given up may still come.
        let on_their_way = self.sent.saturating_sub(self.lost + arrived);
        if on_their_way + burst <= window.max(burst) {
            return true;
        }
        if self.moved.elapsed() > STALL {
            self.lost += on_their_way;
            self.moved = Instant::now();
            return true;
        }
        false
    }
}

fn send(shared: &Shared<'_>) -> anyhow::Result<()> {
    let plan = shared.plan;
    let mut senders: Vec<Sender> =
        (0..).zip(shared.flows).map(|(number, flow)| Sender::new(*flow, number, shared.number, plan)).collect();
    let socket = |index: usize| &shared.sockets[shared.flows[index].from];
    let burst = plan.burst as u64;
    let mut turn = 0;
    let mut due = Instant::now();
    let gap = match plan.offer {
        Offer::Rate(rate) => Duration::from_secs_f64(plan.burst as f64 / rate),
        _ => Duration::ZERO,
    };
    while !shared.stopped() {
        match plan.offer {
            Offer::Flood => {}
            Offer::Rate(_) => {
                let now = Instant::now();
                if now < due {
                    thread::sleep(due - now);
                    continue;
                }
                due = if now - due > LATE { now } else { due + gap };
            }
            Offer::Window(window) => {
                let count = senders.len();
                let open = (turn..turn + count).map(|index| index % count).find(|&index| {
                    senders[index].has_room(shared.arrived[index].load(Ordering::Relaxed), window, burst)
                });
                let Some(open) = open else {
                    thread::yield_now();
                    continue;
                };
                turn = open;
            }
        }
        let sent = senders[turn].burst(socket(turn), plan, shared.now_ns())?;
        shared.sent.fetch_add(sent, Ordering::Relaxed);
        turn = (turn + 1) % senders.len();
    }
    Ok(())
}

/// The times that the receiver measured.
struct Times {
    latency: Histogram<u64>,
    gaps_ns: Vec<u64>,
}

fn receive(shared: &Shared<'_>) -> anyhow::Result<Times> {
    let plan = shared.plan;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut ends: Vec<usize> = shared.flows.iter().map(|flow| flow.to).collect();
    ends.sort_unstable();
    ends.dedup();
    for &end in &ends {
        epoll.add(shared.sockets[end].as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, end as u64))?;
    }
    let mut times =
        Times { latency: Histogram::new_with_max(60_000_000_000, 3)?, gaps_ns: vec![0; shared.flows.len()] };
    let (mut inbox, mut events) = (Inbox::new(), vec![EpollEvent::empty(); 128]);
    // By flow: the last arrival, in nanoseconds; 0: none.
    let mut last = vec![0; shared.flows.len()];
    let mut was_measuring = false;
    let mut strays = 0_u64;
    while !shared.stopped() {
        let count = match epoll.wait(&mut events, EpollTimeout::from(LOOK_MS)) {
            Err(nix::errno::Errno::EINTR) => 0,
            count => count?,
        };
        let measuring = shared.measuring.load(Ordering::Relaxed);
        if measuring != was_measuring {
            // The silence that is going on counts from here, or up to here.
            let now_ns = shared.now_ns();
            for (last, gap) in last.iter_mut().zip(&mut times.gaps_ns) {
                *gap = if measuring { 0 } else { (*gap).max(now_ns - *last) };
                *last = now_ns;
            }
            was_measuring = measuring;
        }
        for event in &events[..count] {
            let socket = &shared.sockets[usize::try_from(event.data())?];
            let (mut arrived, now_ns) = (0, shared.now_ns());
            let trains = inbox.receive(socket, plan.trains, |datagram| {
                if datagram.get(RUN..RUN + 4) != Some(&shared.number.to_be_bytes()) {
                    return;
                }
                let Some((flow, time_ns)) = stamp(datagram, plan) else {
                    strays += 1;
                    return;
                };
                let ours = |at: &&Flow| {
                    at.to as u64 == event.data() && datagram[4..7] == at.vni.get().to_be_bytes()[1..]
                };
                if shared.flows.get(flow).filter(ours).is_none() {
                    strays += 1;
                    return;
                }
                arrived += 1;
                shared.arrived[flow].fetch_add(1, Ordering::Relaxed);
                if measuring {
                    times.latency.saturating_record(now_ns.saturating_sub(time_ns));
                    times.gaps_ns[flow] = times.gaps_ns[flow].max(now_ns.saturating_sub(last[flow]));
                    last[flow] = now_ns;
                }
            })?;
            shared.trains.fetch_add(trains as u64, Ordering::Relaxed);
            shared.done.fetch_add(arrived, Ordering::Relaxed);
        }
    }
    if was_measuring {
        let now_ns = shared.now_ns();
        times.gaps_ns.iter_mut().zip(&last).for_each(|(gap, last)| *gap = (*gap).max(now_ns - *last));
    }
    ensure!(strays == 0, "{strays} datagrams came to a socket that is not theirs, or were altered");
    Ok(times)
}

/// The flow and the time in a datagram of this plan's size.
fn stamp(datagram: &[u8], plan: &Plan) -> Option<(usize, u64)> {
    if datagram.len() != GENEVE_LEN + plan.size {
        return None;
    }
    let word = |at: usize| Some(u64::from_be_bytes(*datagram.get(at..)?.first_chunk()?));
    Some((usize::try_from(word(STAMP)?).ok()?, word(STAMP + 16)?))
}
