//! A client of relay 1 that sends all the time to clients of relay 3, whether or not these hear it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use relay_common::key::NodePublic;

use crate::client::{Client, Dial, Message};
use crate::region::Region;

/// The relay of the receivers.
pub(super) const VICTIM: usize = 2;
/// Receivers.
const RECEIVERS: usize = 4;
/// Bytes of a packet.
const SIZE: usize = 1200;
/// Packets that leave together, and the time between two such bursts: a socket's timeout for reading may be
/// as coarse as 10 ms.
const BURST: usize = 10;
const EVERY: Duration = Duration::from_millis(20);
/// How often a receiver looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);

/// Counts of all packets so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub(super) sent: u64,
    pub(super) arrived: u64,
    /// Notices that a receiver is gone.
    pub(super) gone: u64,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    sent: AtomicU64,
    arrived: AtomicU64,
    gone: AtomicU64,
}

/// The running clients.
#[derive(Debug)]
pub(super) struct Talk {
    state: Arc<State>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Talk {
    pub(super) fn start(region: &mut Region) -> Result<Self> {
        let [near, far] = [0, VICTIM].map(|index| region.relay(index).dial());
        let state = Arc::new(State::default());
        let threads = region.clients().enter(|| start(&near, &far, &state))??;
        Ok(Self { state, threads })
    }

    pub(super) fn told(&self) -> Told {
        let [sent, arrived, gone] = [&self.state.sent, &self.state.arrived, &self.state.gone]
            .map(|count| count.load(Ordering::Relaxed));
        Told { sent, arrived, gone }
    }

    /// Ends all clients; returns why some had ended before.
    pub(super) fn stop(mut self) -> Vec<String> {
        self.state.stop.store(true, Ordering::Relaxed);
        let ended =
            self.threads.drain(..).map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?);
        ended.filter_map(|result| Some(format!("{:#}", result.err()?))).collect()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
    }
}

fn start(near: &Dial, far: &Dial, state: &Arc<State>) -> Result<Vec<JoinHandle<Result<()>>>> {
    let sender = Client::connect(near)?;
    let receivers = (0..RECEIVERS).map(|_| Client::connect(far)).collect::<Result<Vec<_>>>()?;
    let keys: Vec<_> = receivers.iter().map(Client::key).collect();
    let shared = Arc::clone(state);
    // A thread is in the namespace of the one that started it.
    let mut threads = vec![thread::spawn(move || send(sender, &keys, &shared))];
    for receiver in receivers {
        let shared = Arc::clone(state);
        threads.push(thread::spawn(move || receive(receiver, &shared)));
    }
    Ok(threads)
}

fn send(mut client: Client, keys: &[NodePublic], state: &State) -> Result<()> {
    let (packet, mut due) = ([0x5a; SIZE], Instant::now());
    let mut keys = keys.iter().cycle();
    while !state.stop.load(Ordering::Relaxed) {
        for key in keys.by_ref().take(BURST) {
            client.send(key, &packet)?;
            state.sent.fetch_add(1, Ordering::Relaxed);
        }
        // A sender that was held up does not catch up.
        due = due.max(Instant::now()) + EVERY;
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if let Some(Message::PeerGone { .. }) = client.recv_within(left)? {
                state.gone.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

fn receive(mut client: Client, state: &State) -> Result<()> {
    while !state.stop.load(Ordering::Relaxed) {
        if let Some(Message::Packet { .. }) = client.recv_within(LOOK)? {
            state.arrived.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
