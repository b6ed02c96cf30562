//! Loads about clients, not packets: many clients that stay, and many that connect and leave.

use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use super::client::{self, Client, Dialer, SCRATCH_BYTES};
use super::scan::Stamp;
use super::{Outcome, Plan};
use crate::bench::usage;

/// Clients that connect and leave before the first reading of memory, so that one-time costs of a first
/// client are not counted.
const FIRST: usize = 16;

/// Logs in all clients of a plan on several threads, in pairs, and calls `made` for each pair.
pub(super) fn all(
    plan: &Plan,
    clients: usize,
    made: impl Fn(&mut [Client; 2]) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Vec<[Client; 2]>> {
    let (dialer, threads) = (Dialer::new(plan)?, plan.threads.max(2));
    let pairs = clients.div_ceil(2);
    thread::scope(|scope| {
        let (dialer, made) = (&dialer, &made);
        let workers: Vec<_> = (0..threads)
            .map(|index| {
                let share = pairs / threads + usize::from(index < pairs % threads);
                scope.spawn(move || {
                    let pair = || {
                        let mut pair = [dialer.dial()?, dialer.dial_there()?];
                        made(&mut pair)?;
                        Ok(pair)
                    };
                    iter::repeat_with(pair).take(share).collect::<anyhow::Result<Vec<_>>>()
                })
            })
            .collect();
        let mut all = Vec::with_capacity(pairs);
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        Ok(all)
    })
}

/// Clients that each sent and received one packet; reads the server's memory before and after.
pub(super) fn idle(plan: &Plan) -> anyhow::Result<Outcome> {
    first(plan)?;
    let resident_before = usage::resident_bytes(plan.pid)?;
    let cpu = usage::cpu(plan.pid)?;
    let clients = all(plan, plan.clients, |pair| exchange(pair, plan.size))?;
    let login_cpu = usage::cpu(plan.pid)? - cpu;
    thread::sleep(Duration::from_millis(plan.measure_ms));
    let resident_after = usage::resident_bytes(plan.pid)?;
    Ok(Outcome {
        seconds: plan.measure_ms as f64 / 1e3,
        done: 2 * clients.len() as u64,
        server_cpu: login_cpu.as_secs_f64(),
        resident_before,
        resident_after,
        ..Outcome::default()
    })
}

/// Connects some clients, exchanges packets, disconnects them, and waits until the server has settled.
pub(super) fn first(plan: &Plan) -> anyhow::Result<()> {
    drop(all(plan, FIRST, |pair| exchange(pair, plan.size))?);
    thread::sleep(Duration::from_millis(plan.warm_ms));
    Ok(())
}

/// Sends one packet each way.
fn exchange(pair: &mut [Client; 2], size: usize) -> anyhow::Result<()> {
    // The buffer is small on purpose, because there may be thousands of them.
    let mut scratch = vec![0; SCRATCH_BYTES / 8];
    for (from, to) in [(0, 1), (1, 0)] {
        let mut frame = client::packet_frame(&pair[to].key, size)?;
        client::stamp(&mut frame, Stamp { number: 0, time_ns: 0 });
        pair[from].wire.send(&frame, &mut Vec::new())?;
        let mut found = 0;
        while found == 0 {
            pair[to].receive(&mut scratch, |_| found += 1).context("waiting for a packet")?;
        }
    }
    Ok(())
}

/// Clients that connect and leave, one after another on each thread.
pub(super) fn logins(plan: &Plan) -> anyhow::Result<Outcome> {
    let dialer = Dialer::new(plan)?;
    let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                drop(dialer.dial()?);
                count.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        };
        let workers: Vec<_> = (0..plan.threads).map(|_| scope.spawn(work)).collect();
        thread::sleep(Duration::from_millis(plan.warm_ms));
        let sample = || -> anyhow::Result<_> {
            Ok((usage::cpu(plan.pid)?, usage::own_cpu()?, count.load(Ordering::Relaxed), Instant::now()))
        };
        let before = sample();
        thread::sleep(Duration::from_millis(plan.measure_ms));
        let after = sample();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        let (before, after) = (before?, after?);
        if after.2 == before.2 {
            bail!("not one login");
        }
        Ok(Outcome {
            seconds: (after.3 - before.3).as_secs_f64(),
            done: after.2 - before.2,
            server_cpu: (after.0 - before.0).as_secs_f64(),
            load_cpu: (after.1 - before.1).as_secs_f64(),
            ..Outcome::default()
        })
    })
}
