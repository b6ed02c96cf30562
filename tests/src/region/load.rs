//! The load: clients that send a small packet to each of their peers every 20 ms for as long as they are
//! connected, connect again by themselves, and record everything.
//!
//! Each client is one thread in the clients' namespace. A few hundred packets a second leave the cores to the
//! relays.

mod agent;
mod state;

use std::{
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use rand_core::OsRng;
use relay_common::key::NodePrivate;

use self::{
    agent::Agent,
    state::{HOMES, State},
};
use super::{
    Region, SIZE,
    account::{Pair, SILENCE},
    records::{Nanos, Record},
};

/// Clients that talk with clients of other relays.
const ACROSS: usize = SIZE;
/// How often [`Load::wait_whole`] looks.
const POLL: Duration = Duration::from_millis(10);

/// The running clients.
#[derive(Debug)]
pub struct Load {
    state: Arc<State>,
    threads: Vec<JoinHandle<Result<Record>>>,
}

impl Load {
    /// Starts all clients; no relay has to run yet.
    pub fn start(region: &mut Region) -> Result<Self> {
        let state = Arc::new(State::new());
        let doors = [0, 1, 2].map(|index| region.relay(index).dial());
        let keys = HOMES.map(|_| NodePrivate::generate(&mut OsRng));
        let publics = keys.each_ref().map(NodePrivate::public);
        let agents = (0..).zip(HOMES).zip(keys).map(|((me, home), key)| Agent {
            me,
            home,
            key,
            peers: pairs().filter(|pair| pair.from == me).map(|pair| (pair.to, publics[pair.to])).collect(),
            doors: doors.clone(),
            state: Arc::clone(&state),
        });
        // A thread is in the namespace of the one that started it.
        let start = || agents.map(|agent| thread::spawn(move || agent.run())).collect();
        let threads = region.clients().enter(start)?;
        Ok(Self { state, threads })
    }

    /// The load's clock.
    pub fn now(&self) -> Nanos {
        self.state.now()
    }

    /// Whether a client whose relay is away connects to the next one instead of waiting. At the end, clients
    /// that are elsewhere go home.
    pub fn roam(&self, roam: bool) {
        self.state.roam.store(roam, Ordering::Relaxed);
    }

    /// Waits until all pairs have talked without a silence for `steady`; returns whether they did within
    /// `patience`. Clients that do not roam must also be at home.
    pub fn wait_whole(&self, steady: Duration, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut since = Instant::now();
        while Instant::now() < end {
            if !self.is_whole() {
                since = Instant::now();
            } else if since.elapsed() >= steady {
                return true;
            }
            thread::sleep(POLL);
        }
        false
    }

    fn is_whole(&self) -> bool {
        let State { at, last, roam, .. } = &*self.state;
        let now = self.now();
        let talks = |pair: Pair| {
            let last = last[pair.from][pair.to].load(Ordering::Relaxed);
            last > 0 && now.saturating_sub(last) < SILENCE
        };
        let homes = || at.iter().zip(HOMES).all(|(at, home)| at.load(Ordering::Relaxed) == home);
        pairs().all(talks) && (roam.load(Ordering::Relaxed) || homes())
    }

    /// Ends all clients; returns what they saw.
    pub fn stop(mut self) -> Result<Records> {
        self.state.stop.store(true, Ordering::Relaxed);
        let mut records = Vec::new();
        for (client, thread) in self.threads.drain(..).enumerate() {
            let record = thread.join().map_err(|_| anyhow!("a client's thread panicked"))?;
            records.push(record.with_context(|| format!("client {client} at relay {}", HOMES[client] + 1))?);
        }
        Ok(Records(records))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What it saw is not wanted any more.
            let _ = thread.join();
        }
    }
}

/// What all clients saw.
#[derive(Debug)]
pub struct Records(pub(super) Vec<Record>);

/// All ordered pairs that talk: the first three clients with each other, and the last two.
pub fn pairs() -> impl Iterator<Item = Pair> {
    let clients = 0..HOMES.len();
    let all = clients.clone().flat_map(move |from| clients.clone().map(move |to| (from, to)));
    all.filter(|(from, to)| from != to && (*from < ACROSS) == (*to < ACROSS)).map(|(from, to)| Pair {
        from,
        to,
        homes: [HOMES[from], HOMES[to]],
    })
}
