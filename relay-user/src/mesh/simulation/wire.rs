//! Connections between two nodes: in order each for itself, with a delay of their own, so that what one says
//! may overtake what another said before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay_common::derp::deframer::Deframer;
use relay_common::derp::info::ServerInfo;
use relay_common::derp::login::server_info_frame;
use relay_common::derp::message::{FromClient, PeerPresentFlags};
use relay_common::key::{NONCE_LEN, NodePublic};

use super::node::State;
use super::{Event, MS, Planted, World, now_ns};
use crate::conn::reader::Reader;
use crate::mailbox::Mailbox;
use crate::mesh::incoming::Incoming;
use crate::mesh::region::{Act, Place};
use crate::mesh::target::DialId;
use crate::route::link::Link;
use crate::route::peer::{About, Peer};

/// Bytes that a socket and the network take in one direction.
const IN_FLIGHT: usize = 64 * 1024;

/// When a relay notices at the latest that another one takes nothing.
const WRITE_DEADLINE: u64 = 30_000 * MS;

/// Time between two tries of a message that cannot get through.
const RETRY: u64 = 50 * MS;

pub(super) struct Wire {
    pub(super) nodes: [usize; 2],
    lives: [u32; 2],
    dial: (Place, DialId),
    delay_ns: u64,
    on_the_way: [VecDeque<Message>; 2],
    pub(super) link: Option<(Arc<Link>, Incoming)>,
    pub(super) peer: Option<(Arc<Peer>, Reader)>,
    /// Ends that still have the connection.
    open: [bool; 2],
}

enum Message {
    Syn,
    Key(NodePublic),
    Hello,
    Bytes(Vec<u8>),
    Fin,
}

impl World {
    pub(super) fn dial(&mut self, from: usize, place: Place, dial: DialId) {
        let to = usize::from(place.addr.port()) % self.nodes.len();
        let lives = [from, to].map(|node| self.nodes[node].life);
        let delay_ns = (1 + self.random.below(80)) * MS;
        let wire = Wire {
            nodes: [from, to],
            lives,
            dial: (place, dial),
            delay_ns,
            on_the_way: Default::default(),
            link: None,
            peer: None,
            open: [true; 2],
        };
        let number = self.next_wire;
        self.next_wire += 1;
        self.wires.insert(number, wire);
        self.say(number, 0, Message::Syn);
    }

    pub(super) fn abandon(&mut self, from: usize, place: Place, dial: DialId) {
        let found = self.wires.iter().find(|(_, wire)| {
            wire.nodes[0] == from && wire.open[0] && wire.dial == (place, dial) && wire.link.is_none()
        });
        if let Some(number) = found.map(|(number, _)| *number) {
            self.close(number, 0);
        }
    }

    fn say(&mut self, number: usize, from: usize, message: Message) {
        let Some(wire) = self.wires.get_mut(&number) else { return };
        wire.on_the_way[from].push_back(message);
        if wire.on_the_way[from].len() == 1 {
            let delay_ns = wire.delay_ns;
            self.at(delay_ns, Event::Arrive { wire: number, from });
        }
    }

    /// One end closes the connection; the other hears of it when it may.
    pub(super) fn close(&mut self, number: usize, end: usize) {
        self.forget(number, end);
        self.say(number, end, Message::Fin);
    }

    /// The machine of one end is off. The other end notices in time, by its write deadline.
    pub(super) fn vanish(&mut self, number: usize, end: usize) {
        self.forget(number, end);
        let Some(wire) = self.wires.get_mut(&number) else { return };
        wire.on_the_way[end].clear();
        wire.on_the_way[end].push_back(Message::Fin);
        self.at(WRITE_DEADLINE, Event::Arrive { wire: number, from: end });
    }

    /// One end has no connection any more, and says nothing.
    pub(super) fn forget(&mut self, number: usize, end: usize) {
        let Some(wire) = self.wires.get_mut(&number) else { return };
        wire.open[end] = false;
        let node = &self.nodes[wire.nodes[end]];
        let is_same_life = node.life == wire.lives[end];
        if end == 0 {
            let link = wire.link.take();
            if let Some((link, _)) = link.filter(|_| is_same_life) {
                link.mailbox.close();
                if self.planted != Some(Planted::KeepsClaims) {
                    node.relay.link_down(link.id, now_ns());
                }
            }
        } else if let Some((peer, mut reader)) = wire.peer.take().filter(|_| is_same_life) {
            peer.mailbox.close();
            node.relay.leave(&peer, reader.take_audience(), now_ns());
        }
    }

    /// The first message of a wire arrives, if it can; returns whether anything has changed.
    pub(super) fn arrive(&mut self, number: usize, from: usize) -> bool {
        let Some(wire) = self.wires.get(&number) else { return false };
        let to = 1 - from;
        let [sender, receiver] = [wire.nodes[from], wire.nodes[to]];
        let (is_open, same_life) = (wire.open[to], self.nodes[receiver].life == wire.lives[to]);
        if self.is_cut(sender, receiver) || self.nodes[receiver].state == State::Frozen {
            self.at(RETRY, Event::Arrive { wire: number, from });
            return false;
        }
        let Some(wire) = self.wires.get_mut(&number) else { return false };
        let Some(message) = wire.on_the_way[from].pop_front() else { return false };
        let more = !wire.on_the_way[from].is_empty();
        if more {
            // What follows closely arrives closely.
            self.at(MS, Event::Arrive { wire: number, from });
        }
        let is_fin = matches!(message, Message::Fin);
        if self.nodes[receiver].state == State::Dead || !same_life || !is_open {
            // Nobody is there: the sender is told so, unless the whole machine is off.
            if let Some(wire) = self.wires.get_mut(&number) {
                wire.open[to] = false;
            }
            if !is_fin && !self.nodes[receiver].is_off() {
                self.say(number, to, Message::Fin);
            }
        } else {
            self.heard(number, to, message);
        }
        if self.wires.get(&number).is_some_and(|wire| wire.open == [false; 2]) {
            self.wires.remove(&number);
        }
        true
    }

    fn heard(&mut self, number: usize, end: usize, message: Message) {
        let Some(wire) = self.wires.get_mut(&number) else { return };
        let node = wire.nodes[end];
        match message {
            Message::Syn => {
                let key = self.nodes[node].relay.public;
                self.say(number, 1, Message::Key(key));
            }
            Message::Key(server) => {
                let (place, dial) = wire.dial;
                let mut acts = Vec::new();
                let node = &mut self.nodes[wire.nodes[0]];
                match node.region.answered(place, dial, server, now_ns(), &mut acts) {
                    Some(id) => {
                        let link = Arc::new(Link::new(id, server, place.addr));
                        node.relay.router.link_up(&link, now_ns()).expect("a new link");
                        link.times.heard_ns.store(now_ns(), Ordering::Relaxed);
                        link.times.answered_ns.store(now_ns(), Ordering::Relaxed);
                        wire.link = Some((link, Incoming::new(Deframer::new())));
                        self.say(number, 0, Message::Hello);
                    }
                    None => self.close(number, 0),
                }
                let from = self.wires[&number].nodes[0];
                self.act(from, acts);
            }
            Message::Hello => self.log_in(number),
            Message::Bytes(bytes) => self.feed(number, end, &bytes),
            Message::Fin => {
                let (from, (place, dial)) = (wire.nodes[0], wire.dial);
                let link = wire.link.as_ref().map(|(link, _)| link.id);
                self.forget(number, end);
                if end == 0 {
                    let region = &mut self.nodes[from].region;
                    match link {
                        Some(link) => region.ended(link, true, now_ns()),
                        None => region.failed(place, dial),
                    }
                    self.tick_now(from);
                } else if let Some(wire) = self.wires.get_mut(&number) {
                    // Both have closed.
                    wire.open[0] = false;
                }
                if end == 0
                    && let Some(wire) = self.wires.get_mut(&number)
                {
                    wire.open[1] = false;
                }
            }
        }
    }

    /// The other relay's login.
    fn log_in(&mut self, number: usize) {
        let Some(wire) = self.wires.get_mut(&number) else { return };
        let [from, to] = wire.nodes;
        let (dialler, node) = (self.nodes[from].relay.public, &mut self.nodes[to]);
        let mut peer = Peer::new(dialler, node.relay.next_conn(), wire.dial.0.addr);
        peer.about = About { flags: PeerPresentFlags::MESH_PEER, ..About::default() };
        let peer = Arc::new(peer);
        node.relay.login(&peer, now_ns()).expect("a new connection");
        let mut reader = Reader::new(now_ns());
        reader.accept_mesh();
        let shared = node.relay.key.shared(&dialler).expect("a key");
        let info = server_info_frame(&shared, &ServerInfo::stock(), [0; NONCE_LEN]);
        let mut watch = Vec::new();
        FromClient::WatchConns.encode(&mut watch);
        reader.turn(&peer, &node.relay, now_ns).feed(&watch).expect("allowed");
        wire.peer = Some((peer, reader));
        // An incoming link means that its relay is back.
        node.region.hint(now_ns());
        self.say(number, 1, Message::Bytes(info));
        self.tick_now(to);
    }

    fn feed(&mut self, number: usize, end: usize, bytes: &[u8]) {
        let planted = self.planted;
        let Some(wire) = self.wires.get_mut(&number) else { return };
        let relay = Arc::clone(&self.nodes[wire.nodes[end]].relay);
        if end == 0 {
            if let Some((link, incoming)) = &mut wire.link {
                incoming.feed(bytes, link, &relay, now_ns()).expect("legal");
            }
        } else if let Some((peer, reader)) = &mut wire.peer {
            let bytes = match planted {
                Some(Planted::ForwardsAgain) => super::clients::as_if_sent_here(bytes),
                _ => bytes.to_vec(),
            };
            reader.turn(peer, &relay, now_ns).feed(&bytes).expect("legal");
        }
    }

    /// Moves what waits in mailboxes onto the wires, as far as there is room.
    pub(super) fn pump(&mut self) {
        let numbers: Vec<usize> = self.wires.keys().copied().collect();
        for number in numbers {
            for end in [0, 1] {
                self.pump_end(number, end);
            }
        }
        self.read_clients();
    }

    fn pump_end(&mut self, number: usize, end: usize) {
        loop {
            let Some(wire) = self.wires.get(&number) else { return };
            let node = &self.nodes[wire.nodes[end]];
            if node.state != State::Up || node.life != wire.lives[end] || !wire.open[end] {
                return;
            }
            let mailbox: &Mailbox = match end {
                0 => match &wire.link {
                    Some((link, _)) => &link.mailbox,
                    None => return,
                },
                _ => match &wire.peer {
                    Some((peer, _)) => &peer.mailbox,
                    None => return,
                },
            };
            let bytes = |message: &Message| if let Message::Bytes(bytes) = message { bytes.len() } else { 0 };
            if wire.on_the_way[end].iter().map(bytes).sum::<usize>() >= IN_FLIGHT {
                return mailbox.settle();
            }
            let batch = mailbox.take();
            if batch.is_empty() {
                return;
            }
            let mut bytes = batch.slices().collect::<Vec<_>>().concat();
            drop(batch);
            if end == 0 {
                for id in super::clients::forwarded(&bytes) {
                    self.packets[id].links += 1;
                }
            } else if self.planted == Some(Planted::LosesNews) {
                bytes = super::clients::without_news_of_the_end(&bytes);
            }
            self.say(number, end, Message::Bytes(bytes));
        }
    }

    pub(super) fn act(&mut self, node: usize, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::LookUp { host } => {
                    let life = self.nodes[node].life;
                    let after = (1 + self.random.below(300)) * MS;
                    self.at(after, Event::LookedUp { node, life, host });
                }
                Act::Dial { place, dial } => self.dial(node, place, dial),
                Act::Abandon { place, dial } => self.abandon(node, place, dial),
                Act::Probe { link } => {
                    let life = self.nodes[node].life;
                    let wire = self.wires.values().find(|wire| {
                        wire.nodes[0] == node
                            && wire.lives[0] == life
                            && wire.link.as_ref().is_some_and(|(other, _)| other.id == link)
                    });
                    if let Some((link, _)) = wire.and_then(|wire| wire.link.as_ref()) {
                        crate::mesh::incoming::probe(link, &self.nodes[node].relay, now_ns());
                    }
                }
                Act::GiveUp { link, .. } => {
                    let life = self.nodes[node].life;
                    let wire = self.wires.iter().find(|(_, wire)| {
                        wire.nodes[0] == node
                            && wire.lives[0] == life
                            && wire.link.as_ref().is_some_and(|(other, _)| other.id == link)
                    });
                    if let Some(number) = wire.map(|(number, _)| *number) {
                        self.close(number, 0);
                    }
                }
            }
        }
    }
}
