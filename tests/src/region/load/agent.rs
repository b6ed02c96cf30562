//! One client of the load: connects, sends on time, receives in between, and connects again.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use relay_common::key::{NodePrivate, NodePublic};

use super::state::{NOWHERE, State};
use crate::{
    client::{Client, Dial, Message},
    region::{
        net::SIZE,
        packet::Stamp,
        records::{Arrived, Life, Record, Sent},
    },
};

/// Time between two packets to one peer.
const TICK: Duration = Duration::from_millis(20);
/// Time between two attempts to connect.
const RETRY: Duration = Duration::from_millis(20);

/// A client with all that its thread needs.
pub(super) struct Agent {
    /// Its number.
    pub(super) me: usize,
    /// The index of its relay.
    pub(super) home: usize,
    pub(super) key: NodePrivate,
    /// The clients to which it sends, by number.
    pub(super) peers: Vec<(usize, NodePublic)>,
    /// How to reach every relay.
    pub(super) doors: [Dial; SIZE],
    pub(super) state: Arc<State>,
}

impl Agent {
    /// Runs until the load stops. A lost connection is recorded; what no relay may do is an error.
    pub(super) fn run(self) -> Result<Record> {
        let mut record = Record::default();
        let mut numbers = vec![0; self.peers.len()];
        while !self.state.stop.load(Ordering::Relaxed) {
            let Some((at, mut client)) = self.connect() else {
                thread::sleep(RETRY);
                continue;
            };
            record.lives.push(Life { from: self.state.now(), to: u64::MAX });
            self.state.at[self.me].store(at, Ordering::Relaxed);
            let lived = self.live(at, &mut client, &mut record, &mut numbers);
            self.state.at[self.me].store(NOWHERE, Ordering::Relaxed);
            if let Some(life) = record.lives.last_mut() {
                life.to = self.state.now();
            }
            lived?;
        }
        Ok(record)
    }

    /// Connects to its own relay or, if it may, to the next one that takes it.
    fn connect(&self) -> Option<(usize, Client)> {
        let doors = if self.state.roam.load(Ordering::Relaxed) { SIZE } else { 1 };
        (0..doors).map(|step| (self.home + step) % SIZE).find_map(|at| {
            let client = Client::connect_as(&self.doors[at], self.key.clone()).ok()?;
            Some((at, client))
        })
    }

    /// Sends and receives on one connection until it ends or must end.
    fn live(&self, at: usize, client: &mut Client, record: &mut Record, numbers: &mut [u64]) -> Result<()> {
        let life = record.lives.len() as u32;
        let mut next = Instant::now();
        loop {
            let may_stay = at == self.home || self.state.roam.load(Ordering::Relaxed);
            if self.state.stop.load(Ordering::Relaxed) || !may_stay {
                return Ok(());
            }
            if Instant::now() >= next {
                // A client that was late sends no burst, which would look like recovered packets.
                next = Instant::now().max(next + TICK);
                for ((to, key), number) in self.peers.iter().zip(&mut *numbers) {
                    let sent_ns = self.state.now();
                    let stamp = Stamp { from: self.me as u8, life, number: *number };
                    if client.send(key, &stamp.encode()).is_err() {
                        return Ok(());
                    }
                    record.sent.push(Sent { to: *to as u8, number: *number, at: sent_ns });
                    *number += 1;
                }
            }
            let Ok(received) = client.recv_within(next.saturating_duration_since(Instant::now())) else {
                return Ok(());
            };
            if let Some(Message::Packet { source, payload }) = received {
                self.note(&source, &payload, record)?;
            }
        }
    }

    fn note(&self, source: &NodePublic, payload: &[u8], record: &mut Record) -> Result<()> {
        let Stamp { from, life, number } = Stamp::decode(payload)?;
        let sender = self.peers.iter().find(|(_, key)| key == source);
        ensure!(sender.is_some_and(|(peer, _)| *peer == usize::from(from)), "a packet of another client");
        let at = self.state.now();
        record.arrived.push(Arrived { from, life, number, at });
        self.state.last[usize::from(from)][self.me].store(at, Ordering::Relaxed);
        Ok(())
    }
}
