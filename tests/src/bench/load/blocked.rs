//! Clients that read nothing get more packets than all queues hold: how much memory does the server keep?

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use relay_common::derp::message::FromServer;

use super::client::{self, Client, Dialer, SCRATCH_BYTES};
use super::{Outcome, Plan, login};
use crate::bench::usage;

/// Bytes of the packet that each blocked client sends to itself.
const GREETING: usize = 64;

/// Measures the server's memory before the clients connect and after its queues for them are full. All
/// threads send, each one to its share of the clients in turn.
pub(super) fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    login::first(plan)?;
    let resident_before = usage::resident_bytes(plan.pid)?;
    let dialer = Dialer::new(plan)?;
    let pairs = login::all(plan, plan.clients, |_| Ok(()))?;
    let mut blocked: Vec<Client> = pairs.into_iter().flatten().collect();
    let (cpu, start) = (usage::cpu(plan.pid)?, Instant::now());
    let share = blocked.len().div_ceil(plan.threads);
    let cut = thread::scope(|scope| {
        let dialer = &dialer;
        let senders: Vec<_> = blocked
            .chunks_mut(share)
            .map(|blocked| scope.spawn(move || send(plan, dialer, blocked)))
            .collect();
        let ended =
            senders.into_iter().map(|sender| sender.join().map_err(|_| anyhow!("a thread panicked"))?);
        ended.sum::<anyhow::Result<u64>>()
    })?;
    let server_cpu = (usage::cpu(plan.pid)? - cpu).as_secs_f64();
    let seconds = start.elapsed().as_secs_f64();
    thread::sleep(Duration::from_millis(plan.measure_ms));
    let resident_after = usage::resident_bytes(plan.pid)?;
    let done = (blocked.len() * plan.packets) as u64;
    Ok(Outcome { seconds, done, server_cpu, resident_before, resident_after, cut, ..Outcome::default() })
}

/// Sends every packet, and returns how many blocked clients the server disconnected meanwhile.
fn send(plan: &Plan, dialer: &Dialer, blocked: &mut [Client]) -> anyhow::Result<u64> {
    let mut sender = dialer.dial()?;
    let (mut got, mut scratch) = (Vec::new(), vec![0; SCRATCH_BYTES]);
    // The sender gets little data: in 2 of 8 runs, derper never again read from a client that got much data
    // right after its login and did not read it.
    sender.barrier(&mut got, &mut scratch, |_| ())?;
    let mut frames = Vec::new();
    for client in blocked {
        // A server notifies every client that got a packet from this client when this client disconnects.
        client.wire.send(&client::packet_frame(&sender.key, GREETING)?, &mut Vec::new())?;
        frames.push(client::packet_frame(&client.key, plan.size)?);
    }
    let mut out = Vec::new();
    for _ in 0..plan.packets {
        for frame in &frames {
            sender.wire.send(frame, &mut out)?;
        }
    }
    let mut cut = 0;
    let count = |frame: &FromServer<'_>| cut += u64::from(matches!(frame, FromServer::PeerGone { .. }));
    sender.barrier(&mut got, &mut scratch, count).context("after the last packet")?;
    Ok(cut)
}
