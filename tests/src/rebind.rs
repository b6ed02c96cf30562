//! Rebind stress: clients send packets that name their recipient, while legs move to new ports, sessions end,
//! their ports and table slots are used again, and an attacker replays what it saw from old addresses. Every
//! receiver checks that what it gets is for it.
//!
//! ```text
//!   port:  free ─► a leg's ─► moved away, rests ─► free ─► another session's leg ─► …
//!                        └─► session ended, kept until the relay has forgotten it ─► free
//! ```
//! A port rests until nothing for its last owner can be on its way any more. From then on, a packet for the
//! last owner that arrives there is wrong.

mod attacker;
mod client;
mod ports;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use relay_common::key::DiscoPrivate;
use serde_json::Value;

use self::attacker::Attacker;
use self::client::{Handshake, Pair};
use self::ports::{Owner, Ports};
use crate::admin::{Admin, Refused};
use crate::lab::Netns;
use crate::packet::Random;
use crate::topology::two_keys;

/// The lifetimes with which the relay must be started, so that sessions end during the run.
pub const LIFETIMES: [&str; 2] = ["--relay-bind-lifetime=2s", "--relay-steady-lifetime=3s"];
/// The sessions that the relay must have room for, and hardly more, so that it uses its slots again.
pub const ROOM: u32 = 96;
/// Sessions in use at a time.
const SESSIONS: usize = 32;
/// Ports of the clients.
const PORTS: usize = 176;
/// Packets that a leg sends at once at most.
const BURST: usize = 8;
/// Bursts between two looks at the sockets.
const LOOK: usize = 4;
/// One in this many bursts is followed by a leg that moves.
const ODDS_MOVE: usize = 24;
/// One in this many is followed by an attack.
const ODDS_ATTACK: usize = 12;
/// One in this many is followed by the end of a session.
const ODDS_END: usize = 1000;
/// Sessions at most that their clients have left and the relay still knows.
const MOST_ENDED: usize = 48;
/// Time between two looks whether the relay has forgotten ended sessions.
const FORGOTTEN: Duration = Duration::from_millis(700);
/// Longest time without any arrival.
const STALL: Duration = Duration::from_secs(20);

/// What a run showed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Data packets that clients sent.
    pub sent: u64,
    /// Data packets that arrived where they belong.
    pub right: u64,
    /// Data packets that arrived at a client that they do not name; the first of them in words.
    pub wrong: Vec<String>,
    /// Number of packets of which [`Self::wrong`] has the first few.
    pub wrong_count: u64,
    /// Data packets that arrived at a port that their recipient had just left.
    pub late: u64,
    /// Those of them that came so late that their recipient's leg must have been moved back.
    pub stolen: u64,
    /// Legs that were bound, the first time or anew.
    pub bound: u64,
    /// Binds that got no challenge, or whose answer was not taken.
    pub bind_retries: u64,
    /// Sessions that ended.
    pub ended: u64,
    /// Sessions that were made.
    pub made: u64,
    /// Datagrams that the attacker replayed.
    pub replayed: u64,
    /// Whole handshakes that the attacker replayed.
    pub replayed_handshakes: u64,
}

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The clients' addresses, one for each leg.
    pub clients: [Ipv4Addr; 2],
    /// Where they send to.
    pub relay: SocketAddr,
    /// Data packets to send.
    pub packets: u64,
    /// Whether there is an attacker.
    pub attacks: bool,
    /// The same seed gives the same choices.
    pub seed: u64,
}

/// Runs the stress with clients in `far`.
pub fn stress(admin: &Admin, far: &Netns, plan: &Plan) -> Result<Outcome> {
    far.enter(|| {
        let ports = Ports::open(plan.clients, plan.relay, PORTS)?;
        let outcome = Outcome::default();
        let mut stress = Stress {
            plan,
            admin,
            ports,
            pairs: Vec::new(),
            ended: VecDeque::new(),
            attacker: Attacker::default(),
            random: Random::new(plan.seed),
            outcome,
            serial: 0,
            forgotten: Instant::now(),
        };
        stress.run()?;
        Ok(stress.outcome)
    })?
}

struct Stress<'a> {
    plan: &'a Plan,
    admin: &'a Admin,
    ports: Ports,
    pairs: Vec<Pair>,
    /// Sessions that their clients have left, until the relay has forgotten them.
    ended: VecDeque<Pair>,
    attacker: Attacker,
    random: Random,
    outcome: Outcome,
    serial: u64,
    forgotten: Instant,
}

impl Stress<'_> {
    fn run(&mut self) -> Result<()> {
        let (mut bursts, mut heard, mut right) = (0_usize, Instant::now(), 0);
        while self.outcome.sent < self.plan.packets {
            while self.pairs.len() < SESSIONS && self.make(None)? {}
            ensure!(!self.pairs.is_empty(), "the relay has no room for a session");
            self.burst()?;
            bursts += 1;
            if bursts.is_multiple_of(LOOK) {
                self.look()?;
            }
            if self.random.below(ODDS_MOVE) == 0 {
                let (at, leg) = (self.random.below(self.pairs.len()), self.random.below(2));
                self.rebind(at, leg)?;
            }
            if self.plan.attacks && self.random.below(ODDS_ATTACK) == 0 {
                self.attack()?;
            }
            if self.ended.len() < MOST_ENDED && self.random.below(ODDS_END) == 0 {
                let pair = self.pairs.swap_remove(self.random.below(self.pairs.len()));
                self.end(pair);
            }
            if self.forgotten.elapsed() > FORGOTTEN {
                self.forget()?;
            }
            if self.outcome.right > right {
                (right, heard) = (self.outcome.right, Instant::now());
            }
            ensure!(heard.elapsed() < STALL, "nothing arrives any more: {:?}", self.outcome);
        }
        // What is on its way arrives.
        let quiet = Instant::now() + Duration::from_millis(500);
        while Instant::now() < quiet {
            self.look()?;
        }
        Ok(())
    }

    /// Makes a session, of new clients or of `keys`; returns false if the relay has no room now.
    fn make(&mut self, keys: Option<[DiscoPrivate; 2]>) -> Result<bool> {
        let keys = keys.unwrap_or_else(two_keys);
        let allocated = self.admin.allocate([keys[0].public(), keys[1].public()]);
        let endpoint = match allocated {
            Ok(endpoint) => endpoint,
            Err(error) if error.is::<Refused>() => return Ok(false),
            Err(error) => return Err(error),
        };
        self.serial += 1;
        self.pairs.push(Pair::new(self.serial, endpoint, keys)?);
        self.outcome.made += 1;
        let at = self.pairs.len() - 1;
        for leg in 0..2 {
            if !self.rebind(at, leg)? {
                break;
            }
        }
        Ok(true)
    }

    /// Binds a leg from a free port. A session that does not answer has ended; then it is false.
    fn rebind(&mut self, at: usize, leg: usize) -> Result<bool> {
        let Some(port) = self.ports.take(leg, &mut self.random, &mut self.outcome) else { return Ok(true) };
        let (pair, outcome) = (&mut self.pairs[at], &mut self.outcome);
        // Data may come to the new port as soon as the relay has the answer.
        self.ports.own(leg, port, Owner { serial: pair.serial, leg });
        let (ports, mut retries) = (&self.ports, 0);
        let judge = |datagram: &[u8]| ports.judge(leg, port, datagram, outcome);
        let handshake = pair.bind(leg, ports.socket(leg, port), &mut retries, judge)?;
        self.outcome.bind_retries += retries;
        let Some(Handshake { bind, answer }) = handshake else {
            self.ports.rest(leg, port);
            let pair = self.pairs.swap_remove(at);
            self.end(pair);
            return Ok(false);
        };
        self.outcome.bound += 1;
        self.attacker.saw_handshake(leg, port, bind, answer);
        if let Some(old) = pair.ports[leg].replace(port) {
            self.ports.rest(leg, old);
        }
        Ok(true)
    }

    fn burst(&mut self) -> Result<()> {
        let at = self.random.below(self.pairs.len());
        let (from, count) = (self.random.below(2), 1 + self.random.below(BURST));
        let pair = &self.pairs[at];
        let Some(port) = pair.ports[from] else { return Ok(()) };
        for _ in 0..count {
            let datagram = pair.data(1 - from, self.outcome.sent);
            self.outcome.sent += 1;
            self.ports.send(from, port, &datagram)?;
            if self.random.below(64) == 0 {
                self.attacker.saw_data(pair.serial, from, port, datagram);
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        self.ports.receive(&mut self.outcome)
    }

    fn attack(&mut self) -> Result<()> {
        let ended: Vec<u64> = self.ended.iter().map(|pair| pair.serial).collect();
        let replays = self.attacker.choose(&mut self.random, &ended);
        if replays.len() > 1 {
            self.outcome.replayed_handshakes += 1;
        }
        for replay in replays {
            self.outcome.replayed += 1;
            self.ports.send(replay.leg, replay.port, &replay.datagram)?;
        }
        Ok(())
    }

    /// Both clients of a session fall silent. Their ports stay theirs until the relay has forgotten it.
    fn end(&mut self, pair: Pair) {
        self.ended.push_back(pair);
    }

    /// Frees the ports of sessions that the relay has forgotten. Half of the pairs come back.
    fn forget(&mut self) -> Result<()> {
        self.forgotten = Instant::now();
        for _ in 0..self.ended.len() {
            let Some(pair) = self.ended.pop_front() else { break };
            let vni = pair.endpoint.vni.get();
            let sessions = self.admin.get(&format!("/v1/sessions?filter={vni}"))?;
            let known = sessions.as_array().context("sessions are a list")?.iter();
            if known.clone().any(|session| session.get("vni") == Some(&Value::from(vni))) {
                self.ended.push_back(pair);
                continue;
            }
            self.outcome.ended += 1;
            for (leg, port) in pair.ports.into_iter().enumerate() {
                port.into_iter().for_each(|port| self.ports.rest(leg, port));
            }
            if self.pairs.len() < SESSIONS && self.random.below(2) == 0 {
                self.make(Some(pair.keys))?;
            }
        }
        Ok(())
    }
}
