//! Clients: they connect to any node, move on, leave ghosts behind, and send numbered packets to each other.

use std::sync::Arc;

use relay_common::derp::frame::{FrameType, Header};
use relay_common::derp::message::FromClient;
use relay_common::derp::{HEADER_LEN, KEY_LEN};
use relay_common::key::NodePublic;

use super::node::State;
use super::{Fate, World, now_ns};
use crate::conn::reader::Reader;
use crate::route::peer::Peer;

/// Bytes of a packet: its number.
const NUMBER: usize = 8;

pub(super) struct Client {
    pub(super) key: NodePublic,
    /// Its connection.
    pub(super) at: Option<Connected>,
    /// Connections that the client has given up, which their nodes have not noticed.
    pub(super) ghosts: Vec<Connected>,
}

pub(super) struct Connected {
    pub(super) node: usize,
    pub(super) peer: Arc<Peer>,
    reader: Reader,
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        Self { key: NodePublic::from_bytes([100 + number as u8; KEY_LEN]), at: None, ghosts: Vec::new() }
    }

    /// Its node has ended.
    pub(super) fn lose(&mut self, node: usize) {
        self.at.take_if(|at| at.node == node);
        self.ghosts.retain(|ghost| ghost.node != node);
    }
}

impl World {
    pub(super) fn connect(&mut self, client: usize, node: usize) {
        if self.nodes[node].state != State::Up {
            return;
        }
        let relay = &self.nodes[node].relay;
        let client = &mut self.clients[client];
        let peer = Arc::new(Peer::new(client.key, relay.next_conn(), ([192, 0, 2, 1], 1).into()));
        relay.login(&peer, now_ns()).expect("a new connection");
        let connected = Connected { node, peer, reader: Reader::new(now_ns()) };
        client.ghosts.extend(client.at.replace(connected));
    }

    /// The client's node notices that the client has left: the present connection, or the oldest ghost.
    pub(super) fn leave(&mut self, client: usize, ghost: bool) {
        let client = &mut self.clients[client];
        let gone = if ghost {
            (!client.ghosts.is_empty()).then(|| client.ghosts.remove(0))
        } else {
            client.at.take()
        };
        let Some(mut gone) = gone else { return };
        if self.nodes[gone.node].state == State::Frozen {
            client.ghosts.push(gone);
            return;
        }
        gone.peer.mailbox.close();
        self.nodes[gone.node].relay.leave(&gone.peer, gone.reader.take_audience(), now_ns());
    }

    /// Sends a new packet; returns its number.
    pub(super) fn send(&mut self, from: usize, to: usize) -> Option<usize> {
        let dest = self.clients[to].key;
        let at = self.clients[from].at.as_mut()?;
        if self.nodes[at.node].state != State::Up {
            return None;
        }
        let number = self.packets.len();
        self.packets.push(Fate::default());
        let mut frame = Vec::new();
        FromClient::SendPacket { dest: &dest, payload: &(number as u64).to_be_bytes() }.encode(&mut frame);
        at.reader.turn(&at.peer, &self.nodes[at.node].relay, now_ns).feed(&frame).expect("legal");
        Some(number)
    }

    /// Every client reads what its nodes have for it.
    pub(super) fn read_clients(&mut self) {
        for client in &self.clients {
            for at in client.at.iter().chain(&client.ghosts) {
                if self.nodes[at.node].state != State::Up {
                    continue;
                }
                loop {
                    let batch = at.peer.mailbox.take();
                    if batch.is_empty() {
                        break;
                    }
                    for (header, payload) in frames(&batch.slices().collect::<Vec<_>>().concat()) {
                        if header.kind == FrameType::RecvPacket as u8 {
                            self.packets[number(payload)].arrivals += 1;
                        }
                    }
                }
            }
        }
    }
}

fn number(payload: &[u8]) -> usize {
    let bytes = payload.last_chunk::<NUMBER>().expect("a number");
    u64::from_be_bytes(*bytes) as usize
}

fn frames(mut bytes: &[u8]) -> Vec<(Header, &[u8])> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let header = Header::decode(header);
        let (payload, rest) = rest.split_at(header.len as usize);
        frames.push((header, payload));
        bytes = rest;
    }
    frames
}

fn join<'a>(frames: impl IntoIterator<Item = (Header, &'a [u8])>) -> Vec<u8> {
    frames.into_iter().flat_map(|(header, payload)| [&header.encode()[..], payload].concat()).collect()
}

/// The numbers of the packets in what a link says.
pub(super) fn forwarded(bytes: &[u8]) -> Vec<usize> {
    let packets =
        frames(bytes).into_iter().filter(|(header, _)| header.kind == FrameType::ForwardPacket as u8);
    packets.map(|(_, payload)| number(payload)).collect()
}

/// What a link says, with forwarded packets turned into the packets of a client.
pub(super) fn as_if_sent_here(bytes: &[u8]) -> Vec<u8> {
    join(frames(bytes).into_iter().map(|(header, payload)| {
        if header.kind != FrameType::ForwardPacket as u8 {
            return (header, payload);
        }
        let payload = &payload[KEY_LEN..];
        (Header::new(FrameType::SendPacket, payload.len() as u32), payload)
    }))
}

/// What a watcher is told, without the news that keys are gone.
pub(super) fn without_news_of_the_end(bytes: &[u8]) -> Vec<u8> {
    join(frames(bytes).into_iter().filter(|(header, _)| header.kind != FrameType::PeerGone as u8))
}
