//! Packets of every size, to a client that reads nothing and to an unknown key: what does it cost the server
//! to keep a packet?
//!
//! The server reads, opens and looks up a packet for an unknown key like any other, and then drops it. The
//! bytes are sealed before the clock starts, so that the server never waits for the load.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use relay_common::key::{NodePrivate, NodePublic};
use serde::{Deserialize, Serialize};

use super::client::{self, Client, Dialer, SCRATCH_BYTES};
use super::{Outcome, Plan};
use crate::bench::usage;

/// Sizes of packets in bytes: usual sizes, and sizes with which a lane once moved all of its data for every
/// packet.
pub const SIZES: [usize; 13] =
    [64, 256, 1000, 1200, 2000, 3740, 4096, 5720, 8000, 8600, 16_000, 32_000, 60_000];

/// Bytes sent before the measurement, so that every buffer and every queue is full ...
const FILL_BYTES: usize = 8 << 20;
/// ... and the minimum number of packets for that.
const FILL_PACKETS: usize = 600;
/// Maximum packets of one measurement.
const MOST_PACKETS: usize = 50_000;
/// Maximum bytes of one measurement.
const MOST_BYTES: usize = 64 << 20;
/// 0: the client that reads nothing, 1: the unknown key. Both orders are used, so that neither gains by its
/// place.
const TURNS: [usize; 4] = [0, 1, 1, 0];

/// CPU time of the server for packets of one size.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes of a packet.
    pub size: usize,
    /// Microseconds per packet to a client that reads nothing.
    pub blocked_us: f64,
    /// Microseconds per packet to an unknown key.
    pub nobody_us: f64,
}

impl Cost {
    /// How many times as much it costs to keep a packet as to drop it.
    pub fn times(&self) -> f64 {
        self.blocked_us / self.nobody_us
    }
}

/// Bytes that a run sends.
pub(super) fn bytes(plan: &Plan) -> usize {
    SIZES.iter().map(|size| size * (fill(*size) + TURNS.len() * count(plan, *size))).sum()
}

/// Packets before the measurement.
fn fill(size: usize) -> usize {
    FILL_PACKETS.max(FILL_BYTES / size)
}

/// Packets of one measurement.
fn count(plan: &Plan, size: usize) -> usize {
    plan.packets.min(MOST_PACKETS).min(MOST_BYTES / size)
}

/// Measures every size with new clients.
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

/// Sends packets, all sealed before the first write; returns microseconds of server CPU time per packet.
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
