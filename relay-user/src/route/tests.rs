//! Random histories against a simple model: after every step both mirrors hold exactly what the table holds.

mod mesh;
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

use super::*;
use crate::route::model_sessions::ModelSessions;
use crate::route::session_map::MapError;

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
    fn entries(&self) -> Result<Vec<(u32, SessionEntry)>, MapError> {
        self.with(|map| map.entries())
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
        handshake: u32,
    },
    Answer {
        nth: usize,
        leg: usize,
        handshake: u32,
        port: u16,
    },
    Hop {
        nth: usize,
        leg: usize,
        mac: Option<u8>,
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
}

fn step() -> impl Strategy<Value = Step> {
    let (nth, leg, handshake) = (0..SLOTS as usize, 0..2usize, 0..3u32);
    prop_oneof![
        3 => (0..CONNS, 0..KEYS).prop_map(|(conn, key)| Step::Login { conn, key }),
        2 => (0..CONNS).prop_map(|conn| Step::Frame { conn }),
        2 => (0..CONNS).prop_map(|conn| Step::Leave { conn }),
        3 => (0..CLIENTS, 0..CLIENTS).prop_map(|(a, b)| Step::Allocate { a, b }),
        4 => (nth.clone(), leg.clone(), handshake.clone())
            .prop_map(|(nth, leg, handshake)| Step::Bind { nth, leg, handshake }),
        6 => (nth.clone(), leg.clone(), handshake, 1..4u16)
            .prop_map(|(nth, leg, handshake, port)| Step::Answer { nth, leg, handshake, port }),
        6 => (nth.clone(), leg.clone(), prop::option::weighted(0.8, 1..3u8))
            .prop_map(|(nth, leg, mac)| Step::Hop { nth, leg, mac }),
        4 => (nth.clone(), 1..4u16).prop_map(|(nth, port)| Step::Up { nth, port }),
        3 => (nth, leg).prop_map(|(nth, leg)| Step::Heard { nth, leg }),
        2 => (1..200u64).prop_map(|seconds| Step::Wait { seconds }),
        2 => Just(Step::Sweep),
        1 => Just(Step::Audit),
    ]
}

/// The expected content of the table, in the simplest form: lists that are searched from end to end.
#[derive(Default)]
struct Model {
    conns: Vec<(u64, u8)>,
    sessions: Vec<ModelSession>,
}

struct ModelSession {
    vni: u32,
    pair: [DiscoPublic; 2],
    allocated_ns: u64,
    legs: [ModelLeg; 2],
}

#[derive(Clone, Copy, Default)]
struct ModelLeg {
    in_progress: u32,
    path: Option<LegPath>,
    hop: Option<NextHop>,
    seen_ns: u64,
}

fn key(n: u8) -> NodePublic {
    NodePublic::from_bytes([n + 1; 32])
}

fn disco(n: u8) -> DiscoPublic {
    DiscoPrivate::from_bytes([n + 1; 32]).public()
}

fn side() -> UserspaceState {
    let me = DiscoPrivate::from_bytes([99; 32]);
    UserspaceState::new([disco(0), disco(1)].map(|client| me.shared(&client).expect("a good key")))
}

fn path(port: u16) -> LegPath {
    LegPath { remote: ([192, 0, 2, 1], port).into(), local: ([192, 0, 2, 9], 7777).into() }
}

fn hop(mac: u8) -> NextHop {
    NextHop { ifindex: 3, egress_mac: [9; 6], next_hop_mac: [mac; 6], mtu: 1500 }
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
            Step::Bind { nth, leg, handshake } => {
                let Some(session) = self.model.sessions.get_mut(nth) else { return };
                let result = self.router.bind(session.vni, leg, handshake, now_ns);
                assert_eq!(result.is_ok(), handshake != 0);
                if handshake != 0 {
                    session.legs[leg].in_progress = handshake;
                }
            }
            Step::Answer { nth, leg, handshake, port } => {
                let Some(session) = self.model.sessions.get_mut(nth) else { return };
                let result = self.router.answer(session.vni, leg, handshake, path(port), now_ns);
                let state = session.legs[leg];
                let taken = session.legs[1 - leg].path == Some(path(port));
                let good = handshake != 0 && handshake == state.in_progress && !taken;
                assert_eq!(result.is_ok(), good);
                if good {
                    let hop = state.hop.filter(|_| state.path == Some(path(port)));
                    session.legs[leg] =
                        ModelLeg { in_progress: 0, path: Some(path(port)), hop, seen_ns: now_ns };
                }
            }
            Step::Hop { nth, leg, mac } => {
                let Some(session) = self.model.sessions.get_mut(nth) else { return };
                let Some(path) = session.legs[leg].path else { return };
                session.legs[leg].hop = mac.map(hop);
                self.router.next_hop(session.vni, leg, path, mac.map(hop), now_ns);
                let stale = LegPath { remote: ([198, 51, 100, 1], 1).into(), ..path };
                self.router.next_hop(session.vni, leg, stale, Some(hop(77)), now_ns);
            }
            Step::Up { nth, port } => {
                for (leg, port) in [(0, port), (1, port + 4)] {
                    self.step(Step::Bind { nth, leg, handshake: 1 });
                    self.step(Step::Answer { nth, leg, handshake: 1, port });
                    self.step(Step::Hop { nth, leg, mac: Some(1) });
                }
            }
            Step::Heard { nth, leg } => {
                let Some(session) = self.model.sessions.get_mut(nth) else { return };
                let route = self.router.session(session.vni).expect("in the mirror");
                route.side.counters[leg].seen(now_ns);
                session.legs[leg].seen_ns = now_ns;
            }
            Step::Wait { seconds } => self.now_ns += seconds * SECOND,
            Step::Sweep => {
                self.router.sweep(|| now_ns);
                self.model.sessions.retain(|session| !session.is_over(now_ns));
            }
            Step::Audit => assert_eq!(self.router.audit().drift, 0),
        }
    }

    fn allocate(&mut self, pair: [DiscoPublic; 2]) {
        let result = self.router.allocate(pair, side(), self.now_ns);
        let pair = if pair[0] <= pair[1] { pair } else { [pair[1], pair[0]] };
        if let Some(known) = self.model.sessions.iter().find(|session| session.pair == pair) {
            assert_eq!(result.expect("known").vni, known.vni);
        } else if pair[0] == pair[1] {
            assert_eq!(result.expect_err("refused"), Refusal::BadPair);
        } else if self.model.sessions.len() == SLOTS as usize {
            assert_eq!(result.expect_err("refused"), Refusal::Full);
        } else {
            let vni = result.expect("there is room").vni;
            let legs = [ModelLeg::default(); 2];
            self.model.sessions.push(ModelSession { vni, pair, allocated_ns: self.now_ns, legs });
        }
    }

    fn check(&self) {
        self.check_clients();
        let mut installed = BTreeMap::new();
        assert_eq!(self.router.sessions.len(), self.model.sessions.len());
        for session in &self.model.sessions {
            let route = self.router.session(session.vni).expect("in the mirror");
            assert_eq!(route.clients, session.pair);
            assert_eq!(route.legs, session.legs.map(|leg| leg.path));
            if session.legs.iter().all(|leg| leg.hop.is_some()) {
                let macs = session.legs.map(|leg| leg.hop.map(|hop| hop.next_hop_mac));
                let ports = session.legs.map(|leg| leg.path.map(|path| path.remote.port()));
                installed.insert(session.vni, (macs, ports));
            }
        }
        let entries = self.kernel.with(|map| map.entries()).expect("readable");
        let slots: std::collections::HashSet<_> = entries.iter().map(|(_, entry)| entry.stats_slot).collect();
        assert_eq!(slots.len(), entries.len(), "no two sessions share a slot");
        let kernel: BTreeMap<_, _> = entries
            .into_iter()
            .map(|(vni, entry)| {
                let macs = entry.legs.map(|leg| Some(leg.next_hop_mac));
                let ports = entry.legs.map(|leg| Some(u16::from_be_bytes(leg.remote_port)));
                (vni, (macs, ports))
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

impl ModelSession {
    fn is_over(&self, now_ns: u64) -> bool {
        let bound = self.legs.iter().all(|leg| leg.path.is_some());
        match bound {
            true => self.legs.iter().any(|leg| leg.seen_ns + 300 * SECOND < now_ns),
            false => self.allocated_ns + 30 * SECOND < now_ns,
        }
    }
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
