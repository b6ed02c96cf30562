//! Clients that join and leave: all of them together, or one after another at a fixed rate.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::client::{Client, Dialer};
use super::{Outcome, Plan, login};
use crate::bench::usage;

/// All clients join, and after a pause all leave but some, evenly picked, which are returned.
pub(super) fn crowd(plan: &Plan) -> anyhow::Result<(Outcome, Vec<Client>)> {
    let (start, cpu) = (Instant::now(), usage::cpu(plan.pid)?);
    let clients: Vec<Client> = login::all(plan, plan.clients, |_| Ok(()))?.into_iter().flatten().collect();
    thread::sleep(Duration::from_millis(plan.warm_ms));
    let resident_after = usage::resident_bytes(plan.pid)?;
    let done = clients.len() as u64;
    let every = clients.len().checked_div(plan.stay).unwrap_or(usize::MAX).max(1);
    let (mut stayers, mut leavers) = (Vec::new(), Vec::new());
    for (index, client) in clients.into_iter().enumerate() {
        let stays = index % every == 0 && stayers.len() < plan.stay;
        (if stays { &mut stayers } else { &mut leavers }).push(client);
    }
    drop(leavers);
    let outcome = Outcome {
        seconds: start.elapsed().as_secs_f64(),
        done,
        server_cpu: (usage::cpu(plan.pid)? - cpu).as_secs_f64(),
        load_cpu: usage::own_cpu()?.as_secs_f64(),
        resident_after,
        stayers: stayers.iter().map(|client| client.key.to_string()).collect(),
        ..Outcome::default()
    };
    Ok((outcome, stayers))
}

/// Each client joins when its turn comes, and leaves at once. A server that is slow delays the next ones.
pub(super) fn passers(plan: &Plan) -> anyhow::Result<Outcome> {
    let (dialer, turns) = (Dialer::new(plan)?, AtomicUsize::new(0));
    let (start, cpu) = (Instant::now(), usage::cpu(plan.pid)?);
    let work = || {
        loop {
            let turn = turns.fetch_add(1, Ordering::Relaxed);
            if turn >= plan.clients {
                return anyhow::Ok(());
            }
            let due = Duration::from_secs_f64(turn as f64 / plan.rate);
            thread::sleep(due.saturating_sub(start.elapsed()));
            drop(dialer.dial()?);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(Outcome {
        seconds: start.elapsed().as_secs_f64(),
        done: plan.clients as u64,
        server_cpu: (usage::cpu(plan.pid)? - cpu).as_secs_f64(),
        load_cpu: usage::own_cpu()?.as_secs_f64(),
        ..Outcome::default()
    })
}
