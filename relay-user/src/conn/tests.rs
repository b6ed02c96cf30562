//! A connection over a scripted stream: panics, half-taken batches, and the order in which clients get news.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use relay_common::derp::frame::FrameType;
use relay_common::derp::message::{FromClient, recv_packet_header};
use relay_common::derp::{HEADER_LEN, KEY_LEN};
use relay_common::key::{NodePrivate, NodePublic};

use super::outgoing::WRITES_PER_TURN;
use super::*;
use crate::mailbox::Lane;
use crate::observe::counters::Counters;
use crate::route::Router;
use crate::route::sessions::Limits;
use crate::route::vocabulary::ConnId;
use crate::transport::tls::stream::TlsStream;

mod counted;

fn relay() -> Arc<Relay> {
    let key = NodePrivate::from_bytes([7; KEY_LEN]);
    let router = Router::new(Limits::default(), None);
    Arc::new(Relay::new(router, Counters::default(), key, Duration::ZERO, u64::MAX))
}

fn login(relay: &Relay, key: u8) -> Arc<Peer> {
    let key = NodePublic::from_bytes([key; KEY_LEN]);
    let peer = Arc::new(Peer::new(key, relay.next_conn(), ([127, 0, 0, 1], 1).into()));
    let _ = relay.router.login(&peer, 0).expect("a new connection");
    peer
}

/// Brings `input` at the first look, then panics if told to. Takes `takes` bytes of plaintext in all, unless
/// it fails.
#[derive(Debug, Default)]
struct Told {
    input: Vec<u8>,
    panics: bool,
    fails: bool,
    takes: usize,
    unsent: usize,
    /// The `more` of each batch: whether another batch follows.
    more: Vec<bool>,
}

impl Stream for Told {
    fn poll_recv(
        &mut self,
        _cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Poll<io::Result<ReadResult>> {
        let input = std::mem::take(&mut self.input);
        if !input.is_empty() {
            let _ = sink(&input);
            assert!(!self.panics, "as it was told");
            return Poll::Ready(Ok(ReadResult::Bytes));
        }
        Poll::Pending
    }

    fn send(
        &mut self,
        _cx: &mut Context<'_>,
        plaintext: &mut dyn Iterator<Item = &[u8]>,
        more: bool,
    ) -> io::Result<()> {
        if self.fails {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.unsent = plaintext.map(<[u8]>::len).sum();
        self.more.push(more);
        Ok(())
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let taken = self.takes.min(self.unsent);
        self.takes -= taken;
        self.unsent -= taken;
        if self.unsent == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn unsent(&self) -> usize {
        self.unsent
    }

    fn unsent_plaintext(&self) -> usize {
        self.unsent
    }

    fn close(&mut self, cx: &mut Context<'_>) {
        let _ = self.poll_flush(cx);
    }

    fn poll_part(&mut self, _cx: &mut Context<'_>, _left: &mut usize) -> Poll<()> {
        Poll::Ready(())
    }

    fn rehome(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn protocol(&self) -> &'static str {
        "told"
    }
}

fn connection(relay: &Arc<Relay>, peer: &Arc<Peer>, stream: Told) -> Connection<Told> {
    Connection::new(stream, Reader::new(0), Arc::clone(peer), Arc::clone(relay))
}

fn packet(dest: &Peer) -> Vec<u8> {
    let mut frame = Vec::new();
    FromClient::SendPacket { dest: &dest.key, payload: b"hello" }.encode(&mut frame);
    frame
}

#[test]
fn an_idle_connections_task_is_small() {
    let task = size_of::<Connection<TlsStream>>();
    assert!(task <= 512, "{task} bytes");
}

#[test]
fn a_task_that_panics_leaves_no_client_and_no_sleeping_receiver_behind() {
    let relay = relay();
    let [me, receiver] = [1, 2].map(|key| login(&relay, key));
    let woken = Arc::new(Woken::default());
    receiver.mailbox.register(&Waker::from(Arc::clone(&woken)));
    let stream = Told { input: packet(&receiver), panics: true, ..Told::default() };
    let mut connection = connection(&relay, &me, stream);
    let polled = thread::spawn(move || {
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut connection).poll(&mut cx);
    });
    assert!(polled.join().is_err(), "it panicked");
    assert_eq!(relay.router.client_count(), 1);
    assert!(relay.router.peer(&me.key).is_none());
    assert!(woken.0.load(Ordering::SeqCst), "the receiver of its last packet was woken");
    // The packet, and the news that its sender is gone.
    let batch = receiver.mailbox.take();
    assert_eq!((batch.packets(), batch.count(Lane::Control).frames), (1, 1));
    assert_eq!(relay.counters.get(Counter::TaskPanics), 1);
    assert_eq!(relay.counters.get(Counter::PacketsReceived), 1);
}

#[test]
fn the_last_batch_of_a_turn_is_not_held_back_for_the_next_turn() {
    let relay = relay();
    let me = login(&relay, 1);
    let big = vec![0; 60_000];
    for _ in 0..2 * WRITES_PER_TURN {
        let _ = me.mailbox.push(Lane::Data, &recv_packet_header(&me.key, big.len()), &big, false);
    }
    let mut connection = connection(&relay, &me, Told { takes: usize::MAX, ..Told::default() });
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert!(Pin::new(&mut connection).poll(&mut cx).is_pending());
    }
    // The value of `more` for each batch of a turn: it is always `false` for the last one.
    let turn = [true, true, true, false];
    assert_eq!(connection.stream.more, [turn, turn].concat());
}

#[test]
fn a_connection_that_is_dropped_leaves_the_table() {
    let relay = relay();
    let me = login(&relay, 1);
    drop(connection(&relay, &me, Told::default()));
    assert_eq!(relay.router.client_count(), 0);
    assert_eq!(relay.counters.get(Counter::TaskPanics), 0);
}

/// A waker that remembers whether it was woken.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A key leaves and comes back on another thread at once. Its receiver must not get the news that it left
/// after a packet from the new connection.
#[test]
fn a_key_that_comes_back_is_not_followed_by_the_news_of_its_going() {
    const TURNS: u32 = 3_000;
    let relay = relay();
    let receiver = login(&relay, 1);
    let key = NodePublic::from_bytes([2; KEY_LEN]);
    for _ in 0..TURNS {
        let old = login(&relay, 2);
        let mut reader = Reader::new(0);
        let mut turn = reader.turn(&old, &relay, || 0);
        turn.feed(&packet(&receiver)).expect("a legal frame");
        drop(turn);
        drop(receiver.mailbox.take());
        let seen = thread::scope(|scope| {
            let leaves = scope.spawn(|| relay.leave(&old, reader.take_audience(), 0));
            let comes = scope.spawn(|| {
                while relay.router.peer(&key).is_some() {
                    std::hint::spin_loop();
                }
                let new = login(&relay, 2);
                let mut turn_reader = Reader::new(0);
                let mut turn = turn_reader.turn(&new, &relay, || 0);
                turn.feed(&packet(&receiver)).expect("a legal frame");
                drop(turn);
                // The frames that the receiver's task takes at this moment.
                let taken = kinds(&receiver);
                (new, turn_reader, taken)
            });
            leaves.join().expect("left");
            let (new, mut reader, mut seen) = comes.join().expect("came");
            seen.extend(kinds(&receiver));
            relay.leave(&new, reader.take_audience(), 0);
            drop(receiver.mailbox.take());
            seen
        });
        assert_eq!(seen, [FrameType::PeerGone as u8, FrameType::RecvPacket as u8]);
    }
    assert_eq!(receiver.id, ConnId(1));
}

fn kinds(peer: &Peer) -> Vec<u8> {
    let batch = peer.mailbox.take();
    batch.slices().flat_map(|slice| slice.first().copied()).collect()
}

/// The owed news needs several turns, and one of its keys comes back meanwhile.
#[test]
fn a_key_that_is_back_while_much_news_is_owed_is_not_overtaken_by_its_packets() {
    const LEFT: u16 = 600;
    let relay = relay();
    let receiver = login(&relay, 1);
    let key = |number: u16| {
        let mut bytes = [9; KEY_LEN];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        NodePublic::from_bytes(bytes)
    };
    let come = |key| {
        let peer = Arc::new(Peer::new(key, relay.next_conn(), ([127, 0, 0, 1], 1).into()));
        let _ = relay.router.login(&peer, 0).expect("a new connection");
        peer
    };
    for number in 0..LEFT {
        let mut audience = Audience::default();
        audience.add(&receiver);
        relay.leave(&come(key(number)), audience, 1);
    }
    let back = come(key(LEFT - 1));
    for lane in [Lane::Disco, Lane::Data] {
        let _ =
            receiver.mailbox.push(lane, &recv_packet_header(&back.key, 5), b"hello", false).expect("open");
    }
    let mut seen = Vec::new();
    for _ in 0..LEFT {
        let batch = receiver.mailbox.take();
        let mut rest = &batch.slices().flatten().copied().collect::<Vec<_>>()[..];
        while let [kind, a, b, c, d, behind @ ..] = rest {
            let (payload, behind) = behind.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
            if payload.starts_with(back.key.as_bytes()) {
                seen.push(*kind);
            }
            rest = behind;
        }
    }
    let [gone, packet] = [FrameType::PeerGone, FrameType::RecvPacket].map(|kind| kind as u8);
    assert_eq!(seen, [gone, packet, packet]);
}
