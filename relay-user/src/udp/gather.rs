//! Gathers datagrams into messages that the kernel cuts up again (UDP_SEGMENT). This only plans: it knows
//! lengths and addresses, and touches no payload and no socket.
//!
//! A message goes to one destination, from one address, with one TOS byte. Its datagrams have the size of the
//! first one; only the last may be shorter, and then closes the message. The order of the datagrams of one
//! destination is kept. (Upstream: `net/batching`, `coalesceMessages`.)

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use hashbrown::HashMap;

/// Datagrams of a message at most. Newer kernels take 128; all that have UDP_SEGMENT take 64.
pub const MOST_DATAGRAMS: usize = 64;

/// Bytes of a message at most: a UDP payload over IPv4.
pub const MOST_BYTES_V4: usize = 65_507;

/// The same over IPv6.
pub const MOST_BYTES_V6: usize = 65_527;

/// What all datagrams of a message have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The receiver.
    pub to: SocketAddr,
    /// The address of this host that they leave from; `None`: the kernel chooses.
    pub from: Option<IpAddr>,
    /// The TOS or traffic class byte.
    pub tos: u8,
}

/// Datagrams that lie behind each other in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where they go.
    pub flow: Flow,
    /// Bytes of all.
    pub len: usize,
    /// Bytes of each but the last, which may be shorter; `len` or more, or 0: the piece is one datagram.
    pub segment: usize,
}

/// A part of a piece, contiguous in memory: one element of a message's scatter-gather list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The piece's number.
    pub piece: usize,
    /// Where the part begins in the piece.
    pub at: usize,
    /// Bytes.
    pub len: usize,
}

/// One message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub flow: Flow,
    /// Bytes of each datagram but the last. With one datagram: its length.
    pub segment: usize,
    /// Datagrams.
    pub datagrams: usize,
    /// Bytes of all datagrams.
    pub bytes: usize,
    /// Its parts, as indexes of [`Plan::parts`].
    pub parts: Range<usize>,
}

/// Messages, in the order in which they are to be sent. The memory is used again for the next plan.
#[derive(Debug, Default)]
pub struct Plan {
    /// The messages.
    pub messages: Vec<Message>,
    /// The parts of all messages.
    pub parts: Vec<Part>,
    drafts: Vec<Draft>,
    links: Vec<Link>,
    latest: HashMap<(SocketAddr, Option<IpAddr>), usize, foldhash::fast::RandomState>,
}

/// A message that may still grow.
#[derive(Clone, Copy, Debug)]
struct Draft {
    flow: Flow,
    segment: usize,
    datagrams: usize,
    bytes: usize,
    open: bool,
    first: usize,
    last: usize,
}

/// A part, and the next one of its message.
#[derive(Clone, Copy, Debug)]
struct Link {
    part: Part,
    next: Option<usize>,
}

impl Message {
    /// Whether the kernel has to cut it up.
    pub fn is_train(&self) -> bool {
        self.datagrams > 1
    }
}

impl Flow {
    /// Bytes of a message at most, by the family that leaves: a mapped address is IPv4.
    pub fn most_bytes(&self) -> usize {
        if self.to.ip().to_canonical().is_ipv4() { MOST_BYTES_V4 } else { MOST_BYTES_V6 }
    }
}

impl Piece {
    /// Bytes of each datagram but the last; at least 1.
    pub fn size(&self) -> usize {
        let one = self.segment == 0 || self.segment >= self.len;
        if one { self.len.max(1) } else { self.segment }
    }

    /// Number of datagrams.
    pub fn datagrams(&self) -> usize {
        self.len.div_ceil(self.size()).max(1)
    }
}

/// Plans the messages for `pieces`, which come with their numbers. `may_gather` tells whether datagrams of a
/// size may share a message to this destination; where they may not, each is a message of its own.
pub fn gather(
    pieces: impl Iterator<Item = (usize, Piece)>,
    may_gather: impl Fn(&Flow, usize) -> bool,
    plan: &mut Plan,
) {
    plan.drafts.clear();
    plan.links.clear();
    plan.latest.clear();
    let mut previous: Option<usize> = None;
    for (number, piece) in pieces {
        let (flow, size) = (piece.flow, piece.size());
        let gathers = may_gather(&flow, size);
        let most = if gathers { (flow.most_bytes() / size).clamp(1, MOST_DATAGRAMS) } else { 1 };
        let mut at = 0;
        loop {
            let part = Part { piece: number, at, len: (piece.len - at).min(size * most) };
            let latest = match previous {
                Some(draft) if plan.drafts[draft].goes_with(&flow) => Some(draft),
                _ => plan.latest.get(&(flow.to, flow.from)).copied(),
            };
            let link = plan.links.len();
            plan.links.push(Link { part, next: None });
            let draft = match latest.filter(|draft| gathers && plan.drafts[*draft].takes(&flow, size, part)) {
                Some(draft) => {
                    let last = std::mem::replace(&mut plan.drafts[draft].last, link);
                    plan.links[last].next = Some(link);
                    draft
                }
                None => {
                    plan.drafts.push(Draft::new(flow, size.min(part.len), link, gathers));
                    let draft = plan.drafts.len() - 1;
                    plan.latest.insert((flow.to, flow.from), draft);
                    draft
                }
            };
            plan.drafts[draft].add(part.len, size);
            previous = Some(draft);
            at += part.len;
            if at >= piece.len {
                break;
            }
        }
    }
    plan.write_out();
}

impl Draft {
    fn new(flow: Flow, segment: usize, link: usize, open: bool) -> Self {
        Self { flow, segment, datagrams: 0, bytes: 0, open, first: link, last: link }
    }

    /// Whether datagrams of `flow` must not overtake this message.
    fn goes_with(&self, flow: &Flow) -> bool {
        self.flow.to == flow.to && self.flow.from == flow.from
    }

    /// Whether `part`, in datagrams of `size` bytes, may follow what is in the message.
    fn takes(&self, flow: &Flow, size: usize, part: Part) -> bool {
        let one_that_fits = part.len <= size && part.len <= self.segment;
        self.open
            && part.len > 0
            && self.flow == *flow
            && (size == self.segment || one_that_fits)
            && self.datagrams + part.len.div_ceil(size) <= MOST_DATAGRAMS
            && self.bytes + part.len <= flow.most_bytes()
    }

    /// Adds `len` bytes in datagrams of `size` bytes.
    fn add(&mut self, len: usize, size: usize) {
        self.datagrams += len.div_ceil(size).max(1);
        self.bytes += len;
        // What is shorter than the others is the last one. An empty datagram cannot be cut from anything.
        self.open &= len > 0 && len.is_multiple_of(self.segment);
    }
}

impl Plan {
    /// Writes the drafts out, each message's parts behind each other.
    fn write_out(&mut self) {
        self.messages.clear();
        self.parts.clear();
        for draft in &self.drafts {
            let begin = self.parts.len();
            let mut next = Some(draft.first);
            while let Some(link) = next.map(|link| self.links[link]) {
                match self.parts[begin..].last_mut() {
                    // Two parts of one piece lie behind each other in memory.
                    Some(last) if last.piece == link.part.piece && last.at + last.len == link.part.at => {
                        last.len += link.part.len;
                    }
                    _ => self.parts.push(link.part),
                }
                next = link.next;
            }
            self.messages.push(Message {
                flow: draft.flow,
                segment: draft.segment,
                datagrams: draft.datagrams,
                bytes: draft.bytes,
                parts: begin..self.parts.len(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
