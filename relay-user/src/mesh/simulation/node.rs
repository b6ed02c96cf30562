//! A relay without its sockets: its table, counters, and the times of its links.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_common::derp::KEY_LEN;
use relay_common::key::NodePrivate;

use super::{Event, Planted, World, now_ns};
use crate::mesh::region::{Place, Region};
use crate::observe::counters::Counters;
use crate::relay::Relay;
use crate::route::Router;
use crate::route::sessions::Limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Up,
    Frozen,
    /// Ended; `off`: with its machine, which tells nobody.
    Dead,
}

pub(super) struct Node {
    pub(super) relay: Arc<Relay>,
    pub(super) region: Region,
    /// Counts its restarts.
    pub(super) life: u32,
    pub(super) state: State,
    pub(super) off: bool,
    /// When it looks at its region's times next.
    tick_due_ns: u64,
}

/// The addresses of a node: two, so that links by the second are aliases. The port is the node's number.
fn addresses(node: usize) -> [SocketAddr; 2] {
    [([10, 0, 0, 1], node as u16).into(), ([10, 0, 1, 1], node as u16).into()]
}

impl Node {
    /// The node `number` of `count`. Odd nodes know the others by address, even ones by names, which have
    /// several addresses. All of them are told of themselves too.
    pub(super) fn new(number: usize, count: usize, life: u32) -> Self {
        let key = NodePrivate::from_bytes([number as u8 + 1; KEY_LEN]);
        let router = Router::new(Limits::default(), None);
        let relay = Relay::new(router, Counters::default(), key, Duration::ZERO, u64::MAX);
        let hosts = (0..count).map(|other| (number % 2 == 1).then(|| addresses(other)[0]));
        let region = Region::new(relay.public, hosts, now_ns());
        Self { relay: Arc::new(relay), region, life, state: State::Up, off: false, tick_due_ns: u64::MAX }
    }

    pub(super) fn is_off(&self) -> bool {
        self.state == State::Dead && self.off
    }
}

impl World {
    pub(super) fn tick(&mut self, node: usize, life: u32) -> bool {
        let state = &mut self.nodes[node];
        if state.life != life || state.state == State::Dead || state.tick_due_ns != now_ns() {
            return false;
        }
        state.tick_due_ns = u64::MAX;
        if state.state == State::Frozen {
            // It goes on where it was, with all that has become due.
            self.tick_after(node, 50 * super::MS);
            return false;
        }
        let links = self.wires.values().filter(|wire| wire.nodes[0] == node);
        for (link, _) in links.filter_map(|wire| wire.link.as_ref()) {
            let times = [&link.times.heard_ns, &link.times.answered_ns];
            let [heard_ns, answered_ns] = match self.planted {
                Some(Planted::WaitsForEver) => [now_ns(); 2],
                _ => times.map(|time| time.load(Ordering::Relaxed)),
            };
            state.region.heard(link.id, heard_ns, answered_ns);
        }
        let (mut acts, random) = (Vec::new(), &mut self.random);
        let next_ns = state.region.tick(now_ns(), &mut || random.next(), &mut acts);
        self.act(node, acts);
        if let Some(next_ns) = next_ns {
            self.tick_after(node, next_ns.saturating_sub(now_ns()).max(1));
        }
        true
    }

    /// Something has happened that may have made something due.
    pub(super) fn tick_now(&mut self, node: usize) {
        self.tick_after(node, 0);
    }

    fn tick_after(&mut self, node: usize, after_ns: u64) {
        let (due_ns, state) = (now_ns() + after_ns, &mut self.nodes[node]);
        if due_ns < state.tick_due_ns {
            state.tick_due_ns = due_ns;
            let life = state.life;
            self.at(after_ns, Event::Tick { node, life });
        }
    }

    pub(super) fn looked_up(&mut self, node: usize, life: u32, host: usize) -> bool {
        if self.nodes[node].life != life || self.nodes[node].state == State::Dead {
            return false;
        }
        if self.nodes[node].state == State::Frozen {
            self.at(50 * super::MS, Event::LookedUp { node, life, host });
            return false;
        }
        let mut found = addresses(host).to_vec();
        match if self.is_calm { 9 } else { self.random.below(10) } {
            // Sometimes one address is left out, and sometimes there is no answer.
            0 => _ = found.pop(),
            1 => found.clear(),
            _ => {}
        }
        let answer = (!found.is_empty()).then_some(found.as_slice());
        let mut acts = Vec::new();
        self.nodes[node].region.looked_up(host, answer, now_ns(), &mut acts);
        self.act(node, acts);
        self.tick_now(node);
        true
    }

    /// Ends a node at once. `off`: with its machine.
    pub(super) fn kill(&mut self, node: usize, off: bool) {
        self.nodes[node].state = State::Dead;
        self.nodes[node].off = off;
        let ends: Vec<(usize, usize)> = self
            .wires
            .iter()
            .flat_map(|(number, wire)| [0, 1].map(|end| (*number, end, wire.nodes[end])))
            .filter(|(_, _, at)| *at == node)
            .map(|(number, end, _)| (number, end))
            .collect();
        // The life changes first: what the node knew is lost, not taken back.
        self.nodes[node].life += 1;
        for (number, end) in ends {
            if off { self.vanish(number, end) } else { self.close(number, end) }
        }
        self.clients.iter_mut().for_each(|client| client.lose(node));
    }

    pub(super) fn restart(&mut self, node: usize) {
        let life = self.nodes[node].life;
        self.nodes[node] = Node::new(node, self.nodes.len(), life);
        self.tick_now(node);
    }

    /// Every link of a node that is up, by its region; there must be one for each server key at most.
    pub(super) fn place_of(&self, node: usize, link: crate::route::vocabulary::LinkId) -> Option<Place> {
        self.nodes[node].region.place_of(link)
    }
}
