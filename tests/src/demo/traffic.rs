//! The demo's packets: they are numbered, sent one after another, and timed from the sender's write to the
//! receiver's read.
//!
//! Sender and receiver are the same process, so that a latency is the difference of two readings of one
//! clock. It includes both hosts' socket work and wake-ups as well as the relay's.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::interrupt;
use crate::{
    client::Client,
    udp_client::{DEADLINE, UdpClient},
};

/// Payload bytes of a packet: with a Geneve header, the size of a full WireGuard packet of a tunnel with MTU
/// 1280.
const PAYLOAD: usize = 1312;
/// Bytes of the Geneve header.
const GENEVE: usize = 8;

/// The packets of one path.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Packets sent.
    pub(super) sent: u64,
    /// Packets that arrived with the right bytes.
    pub(super) delivered: u64,
    /// Bytes sent, as the relay counts them.
    pub(super) bytes: u64,
    latencies: Vec<Duration>,
}

impl Traffic {
    /// Traffic of which no packet arrived.
    pub(super) fn undelivered(sent: u64) -> Self {
        Self { sent, ..Self::default() }
    }

    /// The median latency.
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

/// Sends `count` packets through DERP, the clients taking turns.
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

/// Sends `count` packets of a bound session, the clients taking turns. A lost packet is not an error, but
/// does not count as delivered.
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
            // More packets would get lost too; the account reports the loss.
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
