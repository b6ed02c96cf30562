//! Loads of packets with closed windows or fixed rates. Each thread's epoll loop owns both ends of its pairs.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

use anyhow::{Context as _, anyhow};
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::client::{self, Client, SCRATCH_BYTES};
use super::flow::Flow;
use super::scan::Stamp;
use super::{Outcome, Plan, Shape, login};
use crate::bench::usage;

/// Minimum time between ticks of a fixed rate; packets that become due between two ticks leave at the second.
const TICK_NS: f64 = 100_000.0;
/// The timer's token among the events.
const TIMER: u64 = u64::MAX;
/// Milliseconds after which a loop wakes up without an event.
const LOOK_AROUND_MS: u16 = 50;

/// State that the load threads share with the measuring thread.
struct Shared {
    start: Instant,
    stop: AtomicBool,
    measuring: AtomicBool,
    arrived: AtomicU64,
    lost: AtomicU64,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Runs a load of packets to its end.
pub(super) fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    if plan.shape == Shape::Everyone {
        login::first(plan)?;
    }
    let resident_before = usage::resident_bytes(plan.pid)?;
    let mut pairs = login::all(plan, plan.clients, |_| Ok(()))?;
    let shared = Shared {
        start: Instant::now(),
        stop: AtomicBool::new(false),
        measuring: AtomicBool::new(false),
        arrived: AtomicU64::new(0),
        lost: AtomicU64::new(0),
    };
    let share = pairs.len().div_ceil(plan.threads);
    let mut parts = Vec::new();
    while !pairs.is_empty() {
        let rest = pairs.split_off(share.min(pairs.len()));
        parts.push(std::mem::replace(&mut pairs, rest));
    }
    let threads = parts.len() as f64;
    thread::scope(|scope| {
        let shared = &shared;
        let start = |part| {
            scope.spawn(move || {
                let result = Lane::new(plan, part, plan.rate / threads).and_then(|lane| lane.run(shared));
                // A failure must end the measurement at once.
                if result.is_err() {
                    shared.stop.store(true, Ordering::Relaxed);
                }
                result
            })
        };
        let workers: Vec<_> = parts.into_iter().map(start).collect();
        let outcome = measure(plan, shared);
        shared.stop.store(true, Ordering::Relaxed);
        let (mut latency, mut lateness) = (histogram()?, histogram()?);
        for worker in workers {
            let times = worker.join().map_err(|_| anyhow!("a thread panicked"))?.context("under load")?;
            latency.add(&times.latency)?;
            lateness.add(&times.lateness)?;
        }
        let us = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Outcome {
            p50_us: us(&latency, 0.5),
            p99_us: us(&latency, 0.99),
            late_p99_us: us(&lateness, 0.99),
            resident_before,
            ..outcome?
        })
    })
}

/// Waits for the measured time, and reads all clocks and counters before and after it.
fn measure(plan: &Plan, shared: &Shared) -> anyhow::Result<Outcome> {
    let wait = |ms| {
        let end = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < end && !shared.stop.load(Ordering::Relaxed) {
            thread::sleep((end - Instant::now()).min(Duration::from_millis(100)));
        }
    };
    let sample = || -> anyhow::Result<_> {
        let counts = [&shared.arrived, &shared.lost].map(|count| count.load(Ordering::Relaxed));
        let beside = plan.beside.iter().map(|pid| usage::cpu(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
        let queued = usage::queued(process::id())?;
        Ok((Instant::now(), usage::cpu(plan.pid)?, usage::own_cpu()?, counts, queued, beside))
    };
    wait(plan.warm_ms);
    shared.measuring.store(true, Ordering::Relaxed);
    let before = sample()?;
    wait(plan.measure_ms);
    let after = sample()?;
    shared.measuring.store(false, Ordering::Relaxed);
    Ok(Outcome {
        seconds: (after.0 - before.0).as_secs_f64(),
        done: after.3[0] - before.3[0],
        lost: after.3[1] - before.3[1],
        server_cpu: (after.1 - before.1).as_secs_f64(),
        load_cpu: (after.2 - before.2).as_secs_f64(),
        beside_cpu: before
            .5
            .iter()
            .zip(after.5)
            .map(|(before, after)| (after - *before).as_secs_f64())
            .collect(),
        load_queued: after.4.saturating_sub(before.4).as_secs_f64(),
        resident_after: usage::resident_bytes(plan.pid)?,
        ..Outcome::default()
    })
}

/// The times that one thread measured.
struct Times {
    latency: Histogram<u64>,
    lateness: Histogram<u64>,
}

/// One thread's clients and their flows.
struct Lane<'p> {
    plan: &'p Plan,
    clients: Vec<Client>,
    flows: Vec<Flow>,
    /// By receiver: the flow that ends there.
    flow_to: Vec<Option<usize>>,
    /// By sender: the flow that begins there.
    flow_from: Vec<Option<usize>>,
    /// Packets per second; `None` for a closed window.
    rate: Option<f64>,
    epoll: Epoll,
    timer: TimerFd,
    times: Times,
    out: Vec<u8>,
}

impl<'p> Lane<'p> {
    fn new(plan: &'p Plan, pairs: Vec<[Client; 2]>, rate: f64) -> anyhow::Result<Lane<'p>> {
        let clients: Vec<Client> = pairs.into_iter().flatten().collect();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        for (index, client) in (0..).zip(&clients) {
            client.wire.tcp.set_read_timeout(None)?;
            client.wire.tcp.set_nonblocking(true)?;
            epoll.add(&client.wire.tcp, EpollEvent::new(events, index))?;
        }
        let both_ways = plan.shape == Shape::Everyone;
        let (mut flows, mut flow_to) = (Vec::new(), vec![None; clients.len()]);
        let mut flow_from = flow_to.clone();
        for from in (0..clients.len()).step_by(if both_ways { 1 } else { 2 }) {
            flow_from[from] = Some(flows.len());
            flow_to[from ^ 1] = Some(flows.len());
            flows.push(Flow::new(from, client::packet_frame(&clients[from ^ 1].key, plan.size)?));
        }
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let rate = (plan.shape != Shape::Window).then_some(rate);
        let times = Times { latency: histogram()?, lateness: histogram()? };
        Ok(Lane { plan, clients, flows, flow_to, flow_from, rate, epoll, timer, times, out: Vec::new() })
    }

    fn run(mut self, shared: &Shared) -> anyhow::Result<Times> {
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut events = vec![EpollEvent::empty(); 256];
        let mut touched: Vec<usize> = Vec::new();
        let mut schedule = self.rate.map(|rate| Schedule::new(rate, shared.now_ns()));
        match &schedule {
            Some(schedule) => {
                let tick =
                    Expiration::Interval(TimeSpec::from(Duration::from_nanos(schedule.tick_ns as u64)));
                self.timer.set(tick, TimerSetTimeFlags::empty())?;
            }
            None => touched.extend(0..self.flows.len()),
        }
        let (mut looked_ns, mut told) = (shared.now_ns(), 0);
        while !shared.stop.load(Ordering::Relaxed) {
            if self.rate.is_none() {
                for flow in touched.drain(..) {
                    self.fill_window(flow, shared)?;
                }
            }
            let count = match self.epoll.wait(&mut events, EpollTimeout::from(LOOK_AROUND_MS)) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                if event.data() == TIMER {
                    let _ = self.timer.wait();
                    if let Some(schedule) = &mut schedule {
                        self.send_due(schedule, shared)?;
                    }
                    continue;
                }
                let index = usize::try_from(event.data())?;
                let wire = &mut self.clients[index].wire;
                if !wire.has_room() && event.events().contains(EpollFlags::EPOLLOUT) && wire.flush()? {
                    touched.extend(self.flow_from[index]);
                }
                if event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP) {
                    self.receive(index, &mut scratch, shared)?;
                    touched.extend(self.flow_to[index]);
                }
            }
            let now_ns = shared.now_ns();
            if now_ns - looked_ns > u64::from(LOOK_AROUND_MS) * 1_000_000 {
                looked_ns = now_ns;
                self.flows.iter_mut().for_each(|flow| flow.settle(now_ns));
                touched.extend(0..self.flows.len());
                let lost: u64 = self.flows.iter().map(Flow::lost).sum();
                shared.lost.fetch_add(lost - told, Ordering::Relaxed);
                told = lost;
            }
        }
        Ok(self.times)
    }

    fn receive(&mut self, index: usize, scratch: &mut [u8], shared: &Shared) -> anyhow::Result<()> {
        let measuring = shared.measuring.load(Ordering::Relaxed);
        let (mut arrived, mut more) = (0, true);
        let mut flow = self.flow_to[index].and_then(|flow| self.flows.get_mut(flow));
        let latency = &mut self.times.latency;
        while more {
            // One reading of the clock for all packets of one read.
            let now_ns = shared.now_ns();
            more = self.clients[index].receive(scratch, |stamp| {
                arrived += 1;
                if let Some(flow) = &mut flow {
                    flow.arrived(stamp, now_ns);
                }
                if measuring {
                    latency.saturating_record(now_ns.saturating_sub(stamp.time_ns));
                }
            })?;
        }
        shared.arrived.fetch_add(arrived, Ordering::Relaxed);
        Ok(())
    }

    fn fill_window(&mut self, index: usize, shared: &Shared) -> anyhow::Result<()> {
        let flow = &mut self.flows[index];
        let wire = &mut self.clients[flow.from].wire;
        let credit = flow.credit(self.plan.window);
        self.out.clear();
        for _ in 0..credit {
            if !wire.has_room() {
                break;
            }
            let number = flow.next();
            client::stamp(&mut flow.frame, Stamp { number, time_ns: shared.now_ns() });
            if self.plan.gather {
                wire.seal(&flow.frame, &mut self.out)?;
            } else {
                wire.send(&flow.frame, &mut self.out)?;
            }
        }
        if self.plan.gather && !self.out.is_empty() {
            wire.write(&self.out)?;
        }
        Ok(())
    }

    fn send_due(&mut self, schedule: &mut Schedule, shared: &Shared) -> anyhow::Result<()> {
        let measuring = shared.measuring.load(Ordering::Relaxed);
        while let Some((turn, time_ns)) = schedule.due(shared.now_ns()) {
            let at = usize::try_from(turn)? % self.flows.len();
            let flow = &mut self.flows[at];
            let wire = &mut self.clients[flow.from].wire;
            let number = flow.next();
            client::stamp(&mut flow.frame, Stamp { number, time_ns });
            wire.send(&flow.frame, &mut self.out)?;
            if measuring {
                self.times.lateness.saturating_record(shared.now_ns().saturating_sub(time_ns));
            }
        }
        Ok(())
    }
}

/// The times at which the packets of a fixed rate leave.
#[derive(Debug)]
pub(super) struct Schedule {
    start_ns: u64,
    gap_ns: f64,
    tick_ns: f64,
    next: u64,
}

impl Schedule {
    pub(super) fn new(rate: f64, start_ns: u64) -> Schedule {
        let gap_ns = 1e9 / rate;
        Schedule { start_ns, gap_ns, tick_ns: gap_ns.max(TICK_NS), next: 0 }
    }

    /// The next packet that is due: its number and the time of its tick.
    pub(super) fn due(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        let tick = (self.next as f64 * self.gap_ns / self.tick_ns).ceil();
        let time_ns = self.start_ns + (tick * self.tick_ns) as u64;
        (time_ns <= now_ns).then(|| {
            self.next += 1;
            (self.next - 1, time_ns)
        })
    }
}

/// A histogram of times in nanoseconds.
pub(super) fn histogram() -> anyhow::Result<Histogram<u64>> {
    // One minute in nanoseconds, to three digits.
    Ok(Histogram::new_with_max(60_000_000_000, 3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_keeps_its_rate_in_ticks() {
        let mut slow = Schedule::new(1000.0, 5);
        assert_eq!([slow.due(5), slow.due(6)], [Some((0, 5)), None]);
        assert_eq!(slow.due(1_000_005), Some((1, 1_000_005)));
        let mut fast = Schedule::new(40_000.0, 0);
        let mut count = 0;
        while let Some((number, time_ns)) = fast.due(1_000_000) {
            assert_eq!((number, time_ns % 100_000), (count, 0));
            count += 1;
        }
        assert_eq!(count, 41);
    }
}
