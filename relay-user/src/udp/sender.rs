//! Sends pieces of memory as datagrams: plans the messages, loads them and delivers them, in memory that each
//! worker keeps.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use super::batch::{Headers, Loaded};
use super::cmsg::Wishes;
use super::deliver::{self, Kernel, Ledger, Loss};
use super::gather::{self, Flow, Message, Piece, Plan};
use super::no_trains::NoTrains;
use super::socket::UdpSocket;

/// One worker's memory for sending.
#[derive(Debug, Default)]
pub(super) struct Sender {
    plan: Plan,
    headers: Headers,
    apart: Headers,
    no_trains: NoTrains,
}

/// What became of some datagrams of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// Datagrams.
    pub(super) datagrams: usize,
    /// Their bytes.
    pub(super) bytes: usize,
    /// Why they are lost; `None`: the kernel took them.
    pub(super) loss: Option<Loss>,
}

/// How a delivery went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// System calls.
    pub(super) calls: u64,
    /// Trains that the kernel refused to cut up, and whose datagrams were sent apart.
    pub(super) refused_trains: u64,
    /// Whether the socket's buffer was full, so that the rest was not tried.
    pub(super) full: bool,
}

impl Sender {
    /// Sends `pieces`, which come with their numbers, each from its place in memory, which is `payload` of
    /// its number. `settle` is told what became of each piece, perhaps in several parts.
    pub(super) fn send<'a>(
        &mut self,
        socket: &UdpSocket,
        pieces: impl Iterator<Item = (usize, Piece)>,
        payload: impl Fn(usize) -> &'a [u8],
        now_ns: u64,
        settle: impl FnMut(usize, Settled),
    ) -> Sent {
        let Self { plan, headers, apart, no_trains } = self;
        let trains = socket.sends_trains();
        let may_gather = |flow: &Flow, size: usize| trains && no_trains.allows(flow.to, size, now_ns);
        gather::gather(pieces, may_gather, plan);
        if plan.messages.is_empty() {
            return Sent::default();
        }
        let mut loading = headers.load();
        for message in &plan.messages {
            let parts = plan.parts[message.parts.clone()].iter();
            let segment = if message.is_train() { message.segment } else { 0 };
            let parts = parts.map(|part| &payload(part.piece)[part.at..part.at + part.len]);
            loading.push(message.flow.to, &wishes(&message.flow, segment), parts);
        }
        let mut calls = Calls {
            socket: socket.as_fd(),
            loaded: loading.done(),
            apart,
            plan,
            payload: &payload,
            count: 0,
        };
        let mut book = Book { plan, socket, no_trains, now_ns, refused_trains: 0, settle };
        let room = deliver::deliver(&plan.messages, &mut calls, &mut book);
        Sent { calls: calls.count, refused_trains: book.refused_trains, full: !room }
    }
}

fn wishes(flow: &Flow, segment: usize) -> Wishes {
    Wishes { from: flow.from, tos: flow.tos, segment }
}

struct Calls<'b, P> {
    socket: BorrowedFd<'b>,
    loaded: Loaded<'b>,
    apart: &'b mut Headers,
    plan: &'b Plan,
    payload: &'b P,
    count: u64,
}

impl<'a, P: Fn(usize) -> &'a [u8]> Kernel for Calls<'_, P> {
    fn send(&mut self, messages: Range<usize>) -> io::Result<usize> {
        self.count += 1;
        self.loaded.send(self.socket, messages)
    }

    fn send_apart(&mut self, message: usize, first: usize) -> io::Result<usize> {
        self.count += 1;
        let message = &self.plan.messages[message];
        let parts = self.plan.parts[message.parts.clone()].iter();
        let datagrams = parts
            .flat_map(|part| (self.payload)(part.piece)[part.at..part.at + part.len].chunks(message.segment));
        let mut loading = self.apart.load();
        for datagram in datagrams.skip(first) {
            loading.push(message.flow.to, &wishes(&message.flow, 0), std::iter::once(datagram));
        }
        loading.done().send(self.socket, 0..message.datagrams - first)
    }
}

struct Book<'b, F> {
    plan: &'b Plan,
    socket: &'b UdpSocket,
    no_trains: &'b mut NoTrains,
    now_ns: u64,
    refused_trains: u64,
    settle: F,
}

impl<F: FnMut(usize, Settled)> Book<'_, F> {
    /// Tells what became of these datagrams of a message, piece by piece.
    fn settle(&mut self, message: usize, datagrams: Range<usize>, loss: Option<Loss>) {
        let Message { segment, parts, .. } = &self.plan.messages[message];
        let mut first = 0;
        for part in &self.plan.parts[parts.clone()] {
            let count = part.len.div_ceil((*segment).max(1)).max(1);
            let from = datagrams.start.clamp(first, first + count) - first;
            let to = datagrams.end.clamp(first, first + count) - first;
            if from < to {
                let bytes = (to * segment).min(part.len) - from * segment;
                (self.settle)(part.piece, Settled { datagrams: to - from, bytes, loss });
            }
            first += count;
        }
    }
}

impl<F: FnMut(usize, Settled)> Ledger for Book<'_, F> {
    fn taken(&mut self, message: usize, datagrams: Range<usize>) {
        self.settle(message, datagrams, None);
    }

    fn lost(&mut self, message: usize, datagrams: Range<usize>, why: Loss) {
        self.settle(message, datagrams, Some(why));
    }

    fn no_trains(&mut self) {
        self.refused_trains += 1;
        if self.socket.stop_trains() {
            tracing::warn!(
                local = %self.socket.local(),
                "an interface cannot complete the checksums of UDP trains: this socket sends datagrams one by \
                 one from now on"
            );
        }
    }

    fn no_trains_to(&mut self, flow: &Flow, size: usize) {
        self.refused_trains += 1;
        self.no_trains.note(flow.to, size, self.now_ns);
    }
}
