//! What the demo sends: numbered packets, one after the other, timed from the sender's write to the
//! receiver's read.
//!
//! Sender and receiver are this one process, so that a latency is the difference of two readings of one
//! clock. It holds both hosts' socket work and wake-ups beside the relay's.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::interrupt;
use crate::{
    client::Client,
    udp_client::{DEADLINE, UdpClient},
};

/// Payload bytes of a packet: with Geneve in front, what a full WireGuard packet of a tunnel of MTU 1280 has.
const PAYLOAD: usize = 1312;
/// Bytes of the Geneve header.
const GENEVE: usize = 8;

/// Packets of a rung.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Sent.
    pub(super) sent: u64,
    /// Arrived, with the bytes that were sent.
    pub(super) delivered: u64,
    /// Bytes sent, as the relay counts them.
    pub(super) bytes: u64,
    latencies: Vec<Duration>,
}

impl Traffic {
    /// Packets of which none arrived.
    pub(super) fn undelivered(sent: u64) -> Self {
        Self { sent, ..Self::default() }
    }

    /// Half of the packets took longer.
    pub(super) fn median(&self) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    fn arrived(&mut self, sent: Instant) {
        self.delivered += 1;
        self.latencies.push(sent.elapsed());
    }
}

/// Sends `count` packets through DERP, by turns from either client.
pub(super) fn by_derp(alice: &mut Client, bob: &mut Client, count: u64) -> Result<Traffic> {
    let mut traffic = Traffic::default();
    for number in 0..count {
        interrupt::check()?;
        let (from, to) = if number % 2 == 0 { (&mut *alice, &mut *bob) } else { (&mut *bob, &mut *alice) };
        let (payload, sent) = (payload(number), Instant::now());
        from.send(&to.key(), &payload)?;
        traffic.sent += 1;
        traffic.bytes += payload.len() as u64;
        let (source, received) = to.recv_packet()?;
        traffic.arrived(sent);
        ensure!((source, received) == (from.key(), payload), "packet {number} is not what was sent");
    }
    Ok(traffic)
}

/// Sends `count` packets of a bound session, by turns from either client. A lost one is not an error, only
/// not delivered.
pub(super) fn by_udp(clients: &[UdpClient; 2], count: u64) -> Result<Traffic> {
    let [alice, bob] = clients;
    let mut traffic = Traffic::default();
    for number in 0..count {
        interrupt::check()?;
        let (from, to) = if number % 2 == 0 { (alice, bob) } else { (bob, alice) };
        let (payload, sent) = (payload(number), Instant::now());
        from.send(&payload)?;
        traffic.sent += 1;
        traffic.bytes += (GENEVE + payload.len()) as u64;
        match to.recv(DEADLINE)? {
            Some(received) => {
                traffic.arrived(sent);
                ensure!(received == payload, "packet {number} is not what was sent");
            }
            // What is lost will be lost again: the account says so soon enough.
            None => break,
        }
    }
    Ok(traffic)
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = vec![number as u8; PAYLOAD];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload
}
