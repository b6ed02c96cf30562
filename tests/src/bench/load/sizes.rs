//! Packets of every size, to a client that reads nothing and to nobody: what does keeping one cost the
//! server?
//!
//! What is for nobody is read, opened and looked up like any other packet, and then it is gone. The bytes are
//! sealed before the clock starts, so that the server never waits for them.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use relay_common::key::{NodePrivate, NodePublic};
use serde::{Deserialize, Serialize};

use super::client::{self, Client, Dialer, SCRATCH_BYTES};
use super::{Outcome, Plan};
use crate::bench::usage;

/// Bytes of a packet: usual ones, and such as once made a lane move all it held with every packet.
pub const SIZES: [usize; 13] =
    [64, 256, 1000, 1200, 2000, 3740, 4096, 5720, 8000, 8600, 16_000, 32_000, 60_000];

/// Bytes sent before the measuring, so that every buffer and every queue is full ...
const FILL_BYTES: usize = 8 << 20;
/// ... and packets at least.
const FILL_PACKETS: usize = 600;
/// Packets in one measuring at most.
const MOST_PACKETS: usize = 50_000;
/// Bytes of them at most.
const MOST_BYTES: usize = 64 << 20;
/// To the one who reads nothing (0) and to nobody (1), in both orders: what comes second must not gain by it.
const TURNS: [usize; 4] = [0, 1, 1, 0];

/// CPU of the server for packets of one size.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes of a packet.
    pub size: usize,
    /// Microseconds a packet to a client that reads nothing.
    pub blocked_us: f64,
    /// Microseconds a packet to a key that nobody has.
    pub nobody_us: f64,
}

impl Cost {
    /// How many times as much it costs to keep a packet as to drop it at once.
    pub fn times(&self) -> f64 {
        self.blocked_us / self.nobody_us
    }
}

/// Bytes that a run sends.
pub(super) fn bytes(plan: &Plan) -> usize {
    SIZES.iter().map(|size| size * (fill(*size) + TURNS.len() * count(plan, *size))).sum()
}

/// Packets before the measuring.
fn fill(size: usize) -> usize {
    FILL_PACKETS.max(FILL_BYTES / size)
}

/// Packets in one measuring.
fn count(plan: &Plan, size: usize) -> usize {
    plan.packets.min(MOST_PACKETS).min(MOST_BYTES / size)
}

/// Measures every size with clients of its own.
pub(super) fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let dialer = Dialer::new(plan)?;
    let costs = SIZES
        .iter()
        .map(|size| measure(plan, &dialer, *size).with_context(|| format!("packets of {size} bytes")));
    Ok(Outcome { costs: costs.collect::<anyhow::Result<_>>()?, ..Outcome::default() })
}

fn measure(plan: &Plan, dialer: &Dialer, size: usize) -> anyhow::Result<Cost> {
    let (blocked, mut sender) = (dialer.dial()?, dialer.dial()?);
    let nobody = NodePrivate::generate(&mut rand_core::OsRng).public();
    let (count, targets) = (count(plan, size), [&blocked.key, &nobody]);
    let mut room = Vec::new();
    send(plan, &mut sender, &blocked.key, size, fill(size), &mut room)?;
    thread::sleep(Duration::from_millis(plan.warm_ms));
    let mut us = [0.0; 2];
    for to in TURNS {
        us[to] += send(plan, &mut sender, targets[to], size, count, &mut room)? / 2.0;
    }
    Ok(Cost { size, blocked_us: us[0], nobody_us: us[1] })
}

/// Sends packets, all sealed before the first is written; returns microseconds of server CPU for each.
fn send(
    plan: &Plan,
    sender: &mut Client,
    to: &NodePublic,
    size: usize,
    count: usize,
    room: &mut Vec<u8>,
) -> anyhow::Result<f64> {
    let frame = client::packet_frame(to, size)?;
    room.clear();
    for _ in 0..count {
        sender.wire.seal(&frame, room)?;
    }
    let (mut got, mut scratch) = (Vec::new(), vec![0; SCRATCH_BYTES]);
    let before = usage::cpu(plan.pid)?;
    sender.wire.write(room)?;
    sender.barrier(&mut got, &mut scratch, |_| ())?;
    Ok((usage::cpu(plan.pid)? - before).as_secs_f64() * 1e6 / count as f64)
}
