//! Random histories against a simple model: after every step both mirrors hold exactly what the table holds.

mod mesh;
mod model;
mod steps;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex as StdMutex;

use bytemuck::Zeroable;
use proptest::prelude::*;
use relay_common::derp::frame::Header;
use relay_common::derp::message::FromServer;
use relay_common::fastpath::SessionEntry;
use relay_common::key::DiscoPrivate;

use self::model::{Model, ModelSession};
use super::*;
use crate::route::model_sessions::ModelSessions;
use crate::route::session_map::{List, MapError};

const SECOND: u64 = 1_000_000_000;
const SLOTS: u32 = 3;
const KEYS: u8 = 3;
const CONNS: u64 = 6;
const CLIENTS: u8 = 4;

/// The model map; the test can read it from outside the router.
#[derive(Clone)]
struct Shared(Arc<StdMutex<ModelSessions>>);

impl Shared {
    fn with<T>(&self, f: impl FnOnce(&mut ModelSessions) -> T) -> T {
        f(&mut self.0.lock().expect("no test panics with it"))
    }
}

impl SessionMap for Shared {
    fn install(&mut self, vni: u32, entry: &SessionEntry) -> Result<(), MapError> {
        self.with(|map| map.install(vni, entry))
    }
    fn remove(&mut self, vni: u32) -> Result<bool, MapError> {
        self.with(|map| map.remove(vni))
    }
    fn zero_stats(&mut self, slot: u32) -> Result<(), MapError> {
        self.with(|map| map.zero_stats(slot))
    }
    fn stats(&self, slot: u32) -> Result<SessionStats, MapError> {
        self.with(|map| map.stats(slot))
    }
    fn get(&self, vni: u32) -> Result<Option<SessionEntry>, MapError> {
        self.with(|map| map.get(vni))
    }
    fn list(&self) -> List {
        let map = self.clone();
        List::new(move |after, most| map.with(|map| map.slice(after, most)))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Login {
        conn: u64,
        key: u8,
    },
    Frame {
        conn: u64,
    },
    Leave {
        conn: u64,
    },
    Allocate {
        a: u8,
        b: u8,
    },
    Bind {
        nth: usize,
        leg: usize,
    },
    Answer {
        nth: usize,
        leg: usize,
        /// How many challenges ago the answered one was made; -1: one that was never made.
        old: i64,
        port: u16,
    },
    Hop {
        nth: usize,
        leg: usize,
        number: Option<u32>,
    },
    /// All steps that bring a session into the kernel, which single steps seldom do.
    Up {
        nth: usize,
        port: u16,
    },
    Heard {
        nth: usize,
        leg: usize,
    },
    Wait {
        seconds: u64,
    },
    Sweep,
    Audit,
    End {
        nth: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (nth, leg) = (0..SLOTS as usize, 0..2usize);
    prop_oneof![
        3 => (0..CONNS, 0..KEYS).prop_map(|(conn, key)| Step::Login { conn, key }),
        2 => (0..CONNS).prop_map(|conn| Step::Frame { conn }),
        2 => (0..CONNS).prop_map(|conn| Step::Leave { conn }),
        3 => (0..CLIENTS, 0..CLIENTS).prop_map(|(a, b)| Step::Allocate { a, b }),
        4 => (nth.clone(), leg.clone()).prop_map(|(nth, leg)| Step::Bind { nth, leg }),
        6 => (nth.clone(), leg.clone(), -1..4i64, 1..4u16)
            .prop_map(|(nth, leg, old, port)| Step::Answer { nth, leg, old, port }),
        6 => (nth.clone(), leg.clone(), prop::option::weighted(0.8, 1..3u32))
            .prop_map(|(nth, leg, number)| Step::Hop { nth, leg, number }),
        4 => (nth.clone(), 1..4u16).prop_map(|(nth, port)| Step::Up { nth, port }),
        3 => (nth.clone(), leg).prop_map(|(nth, leg)| Step::Heard { nth, leg }),
        1 => nth.prop_map(|nth| Step::End { nth }),
        2 => (1..200u64).prop_map(|seconds| Step::Wait { seconds }),
        2 => Just(Step::Sweep),
        1 => Just(Step::Audit),
    ]
}

fn key(n: u8) -> NodePublic {
    NodePublic::from_bytes([n + 1; 32])
}

fn disco(n: u8) -> DiscoPublic {
    DiscoPrivate::from_bytes([n + 1; 32]).public()
}

fn path(port: u16) -> LegPath {
    LegPath { remote: ([192, 0, 2, 1], port).into(), local: ([192, 0, 2, 9], 7777).into() }
}

fn limits() -> Limits {
    Limits {
        max_sessions: SLOTS,
        bind_lifetime_ns: 30 * SECOND,
        steady_lifetime_ns: 300 * SECOND,
        server: disco(99),
    }
}

struct Run {
    router: Router,
    kernel: Shared,
    peers: HashMap<u64, Arc<Peer>>,
    model: Model,
    now_ns: u64,
}

impl Run {
    fn new() -> Self {
        let kernel = Shared(Arc::new(StdMutex::new(ModelSessions::new(SLOTS))));
        let router = Router::new(limits(), Some(Box::new(kernel.clone())));
        Self { router, kernel, peers: HashMap::new(), model: Model::default(), now_ns: 1000 * SECOND }
    }

    fn step(&mut self, step: Step) {
        let now_ns = self.now_ns;
        match step {
            Step::Login { conn, key: n } => {
                let peer = Arc::new(Peer::new(key(n), ConnId(conn), ([127, 0, 0, 1], 1).into()));
                if self.model.conns.iter().any(|(other, _)| *other == conn) {
                    return;
                }
                let _ = self.router.login(&peer, now_ns).expect("a new connection");
                self.peers.insert(conn, peer);
                self.model.conns.push((conn, n));
            }
            Step::Frame { conn } => {
                self.router.frame_from_shared(ConnId(conn), now_ns);
                if let Some(at) = self.model.conns.iter().position(|(other, _)| *other == conn) {
                    let moved = self.model.conns.remove(at);
                    self.model.conns.push(moved);
                }
            }
            Step::Leave { conn } => {
                if let Some(peer) = self.peers.remove(&conn) {
                    let _ = self.router.leave(&peer, Audience::default(), now_ns);
                }
                self.model.conns.retain(|(other, _)| *other != conn);
            }
            Step::Allocate { a, b } => self.allocate([disco(a), disco(b)]),
            Step::Bind { nth, leg } => {
                let Some(session) = self.model.sessions.get_mut(nth) else { return };
                let state = &mut session.legs[leg];
                state.challenges += 1;
                assert_eq!(self.router.bind(session.vni, leg, now_ns), Ok(state.challenges));
            }
            Step::Answer { nth, leg, old, port } => {
                let Some(session) = self.model.sessions.get_mut(nth) else { return };
                let taken = session.legs[1 - leg].path == Some(path(port));
                let state = &mut session.legs[leg];
                let number = state.challenges.saturating_add_signed(-old);
                let result = self.router.answer(session.vni, leg, number, path(port), now_ns);
                let good = number > state.answered && number <= state.challenges && !taken;
                assert_eq!(result.is_ok(), good);
                if good {
                    state.hop = state.hop.filter(|_| state.path == Some(path(port)));
                    (state.answered, state.binds) = (number, state.binds + 1);
                    (state.path, state.seen_ns) = (Some(path(port)), now_ns);
                }
            }
            Step::Hop { nth, leg, number } => {
                let Some(session) = self.model.sessions.get_mut(nth) else { return };
                let Some(path) = session.legs[leg].path else { return };
                session.legs[leg].hop = number.map(HopNumber);
                self.router.next_hop(session.vni, leg, path, number.map(HopNumber), now_ns);
                let stale = LegPath { remote: ([198, 51, 100, 1], 1).into(), ..path };
                self.router.next_hop(session.vni, leg, stale, Some(HopNumber(77)), now_ns);
            }
            Step::Up { nth, port } => {
                for (leg, port) in [(0, port), (1, port + 4)] {
                    self.step(Step::Bind { nth, leg });
                    self.step(Step::Answer { nth, leg, old: 0, port });
                    self.step(Step::Hop { nth, leg, number: Some(1) });
                }
            }
            Step::Heard { nth, leg } => {
                let Some(session) = self.model.sessions.get_mut(nth) else { return };
                let route = self.router.session(session.vni).expect("in the mirror");
                route.side[leg].heard(now_ns);
                session.legs[leg].seen_ns = now_ns;
            }
            Step::Wait { seconds } => self.now_ns += seconds * SECOND,
            Step::Sweep => {
                sweep(&self.router, now_ns);
                self.model.sessions.retain(|session| !session.is_over(now_ns));
            }
            Step::Audit => assert_eq!(audit(&self.router).drift, 0),
            Step::End { nth } => {
                let ended = (nth < self.model.sessions.len()).then(|| self.model.sessions.remove(nth).vni);
                let found = self.router.end_sessions(|session| Some(session.vni) == ended);
                assert_eq!(found, usize::from(ended.is_some()));
            }
        }
    }

    fn allocate(&mut self, pair: [DiscoPublic; 2]) {
        let result = self.router.allocate(pair, self.now_ns);
        let pair = if pair[0] <= pair[1] { pair } else { [pair[1], pair[0]] };
        if let Some(known) = self.model.sessions.iter_mut().find(|session| session.pair == pair) {
            assert_eq!(result.expect("known").vni(), known.vni);
            known.asked_ns = self.now_ns;
        } else if pair[0] == pair[1] {
            assert_eq!(result.expect_err("refused"), Refusal::BadPair);
        } else if self.model.sessions.len() == SLOTS as usize {
            assert_eq!(result.expect_err("refused"), Refusal::Full);
        } else {
            let vni = result.expect("there is room").vni();
            let legs = Default::default();
            self.model.sessions.push(ModelSession { vni, pair, asked_ns: self.now_ns, legs });
        }
    }

    fn check(&self) {
        self.check_clients();
        let mut installed = BTreeMap::new();
        assert_eq!(self.router.sessions.len(), self.model.sessions.len());
        for session in &self.model.sessions {
            let route = self.router.session(session.vni).expect("in the mirror");
            assert_eq!(route.clients, session.pair);
            assert_eq!(route.legs, session.legs.each_ref().map(|leg| leg.path));
            assert_eq!(route.binds, session.legs.each_ref().map(|leg| leg.binds));
            if session.legs.iter().all(|leg| leg.hop.is_some()) {
                let hops = session.legs.each_ref().map(|leg| leg.hop.map(|hop| hop.0));
                let ports = session.legs.each_ref().map(|leg| leg.path.map(|path| path.remote.port()));
                installed.insert(session.vni, (hops, ports));
            }
        }
        assert_eq!(self.router.session_counts(), (self.model.sessions.len(), installed.len()));
        let entries = self.kernel.with(|map| map.sessions.clone());
        let slots: std::collections::HashSet<_> = entries.values().map(|entry| entry.stats_slot).collect();
        assert_eq!(slots.len(), entries.len(), "no two sessions share a slot");
        let kernel: BTreeMap<_, _> = entries
            .into_iter()
            .map(|(vni, entry)| {
                assert_eq!((entry.head.vni, entry.head), (vni, entry.tail), "the tags name the session");
                let hops = entry.legs.map(|leg| Some(leg.next_hop));
                let ports = entry.legs.map(|leg| Some(u16::from_be_bytes(leg.remote_port)));
                (vni, (hops, ports))
            })
            .collect();
        assert_eq!(kernel, installed);
    }

    fn check_clients(&self) {
        for n in 0..KEYS {
            let last =
                self.model.conns.iter().rev().find(|(_, key)| *key == n).map(|(conn, _)| ConnId(*conn));
            assert_eq!(self.router.peer(&key(n)).map(|peer| peer.id), last);
        }
        for (conn, n) in &self.model.conns {
            let peer = &self.peers[conn];
            let mut same = self.model.conns.iter().filter(|(_, other)| other == n);
            assert_eq!(peer.is_shared(), same.clone().count() > 1, "shared");
            assert_eq!(peer.is_active(), same.next_back().map(|(last, _)| last) == Some(conn), "active");
        }
        assert_eq!(self.router.client_count(), self.model.conns.len());
    }
}

/// Sweeps all sessions; returns how many ended.
fn sweep(router: &Router, now_ns: u64) -> usize {
    let (mut ended, mut after) = (0, 0);
    loop {
        let (some, end) = router.sweep_slice(after, now_ns);
        ended += some;
        match end {
            Some(end) => after = end,
            None => return ended,
        }
    }
}

/// Audits the whole map.
fn audit(router: &Router) -> KernelHealth {
    let audit = |at| router.map_part(at).and_then(|part| router.audit_part(part));
    let mut at = audit(None);
    while at.is_some() {
        at = audit(at);
    }
    let mut after = 0;
    while let Some(end) = router.audit_table_slice(after) {
        after = end;
    }
    router.kernel_health()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn both_mirrors_equal_the_table_after_every_step(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            run.check();
        }
    }
}
