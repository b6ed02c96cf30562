//! Packets between connections, without sockets: reader, look-up, mailbox.

mod mesh;

use std::sync::atomic::AtomicUsize;
use std::task::Wake;
use std::time::Duration;

use relay_common::derp::message::FromClient;
use relay_common::key::NodePrivate;

use super::*;
use crate::observe::counters::Counters;
use crate::route::Router;
use crate::route::sessions::Limits;

/// Some time after the machine's start.
const NOW_NS: u64 = 1_000_000_000_000;

fn relay() -> Relay {
    let key = NodePrivate::from_bytes([7; KEY_LEN]);
    Relay::new(Router::new(Limits::default(), None), Counters::default(), key, Duration::ZERO, u64::MAX)
}

struct Client {
    peer: Arc<Peer>,
    reader: Reader,
}

impl Client {
    fn login(relay: &Relay, key: u8) -> Self {
        let key = NodePublic::from_bytes([key; KEY_LEN]);
        let peer = Arc::new(Peer::new(key, relay.next_conn(), ([127, 0, 0, 1], 1).into()));
        let _ = relay.router.login(&peer, 0).expect("a new connection");
        Self { peer, reader: Reader::new(NOW_NS) }
    }

    /// The relay reads one packet for `dest` from this client.
    fn sends(&mut self, relay: &Relay, dest: &NodePublic, payload: &[u8]) {
        let mut frame = Vec::new();
        FromClient::SendPacket { dest, payload }.encode(&mut frame);
        let mut turn = self.reader.turn(&self.peer, relay, || NOW_NS);
        turn.feed(&frame).expect("a legal frame");
        drop(turn);
    }

    /// The bytes that would be written to the client now.
    fn takes(&self) -> Vec<u8> {
        self.peer.mailbox.take().slices().collect::<Vec<_>>().concat()
    }
}

fn received(from: &NodePublic, payload: &[u8]) -> Vec<u8> {
    [&recv_packet_header(from, payload.len())[..], payload].concat()
}

#[test]
fn packets_flow_while_the_tables_mutex_is_held() {
    let relay = relay();
    let [mut a, mut b] = [Client::login(&relay, 1), Client::login(&relay, 2)];
    let held = relay.router.hold();
    // This runs on the thread that holds the mutex: a packet that took the mutex would block for ever. The
    // first packets use the mirror, the later ones the cache.
    for n in 0..3 {
        a.sends(&relay, &b.peer.key, &[n; 100]);
        assert_eq!(b.takes(), received(&a.peer.key, &[n; 100]));
        b.sends(&relay, &a.peer.key, &[n; 1200]);
        assert_eq!(a.takes(), received(&b.peer.key, &[n; 1200]));
    }
    // A packet for an unknown key does not take the mutex either.
    a.sends(&relay, &NodePublic::from_bytes([9; KEY_LEN]), &[1; 100]);
    drop(held);
    assert_eq!(relay.counters.get(Counter::PacketsReceived), 7);
    assert_eq!(relay.counters.get(Counter::DropUnknownDest), 1);
}

/// Counts its wake-ups.
#[derive(Debug, Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A frame of this type with this payload.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&Header { kind, len: payload.len() as u32 }.encode()[..], payload].concat()
}

fn disco() -> Vec<u8> {
    let mut packet = relay_common::disco::MAGIC.to_vec();
    packet.resize(relay_common::disco::HEADER_LEN, 0);
    packet
}

#[test]
fn every_frame_of_a_read_is_counted_and_its_bytes_are_in_the_budget() {
    let relay = relay();
    let [mut a, b] = [Client::login(&relay, 1), Client::login(&relay, 2)];
    let nobody = NodePublic::from_bytes([9; KEY_LEN]);
    let mut read = Vec::new();
    FromClient::SendPacket { dest: &b.peer.key, payload: &[1; 100] }.encode(&mut read);
    read.extend(frame(0x77, b"what is this"));
    FromClient::SendPacket { dest: &nobody, payload: &[2; 10] }.encode(&mut read);
    read.extend(frame(0x78, b""));
    read.extend(frame(0x79, &[0; 300]));
    read.extend(frame(0x77, b"again"));
    FromClient::SendPacket { dest: &b.peer.key, payload: &[3; 50] }.encode(&mut read);
    // Cut anywhere, also within a skipped frame, the counts are the same.
    let (first, second) = read.split_at(150);
    for part in [first, second] {
        let mut turn = a.reader.turn(&a.peer, &relay, || NOW_NS);
        turn.feed(part).expect("legal frames");
    }
    for (counter, expected) in [
        (Counter::PacketsReceived, 3),
        (Counter::BytesReceived, 160),
        (Counter::UnknownFrames, 4),
        (Counter::DropUnknownDest, 1),
        (Counter::Pings, 0),
    ] {
        assert_eq!(relay.counters.get(counter), expected, "{counter:?}");
    }
    assert_eq!(a.peer.counters.packets_in.load(Ordering::Relaxed), 3);
    assert_eq!(a.peer.counters.bytes_in.load(Ordering::Relaxed), 160);
    let waiting = b.takes();
    assert_eq!(relay.budget.held() as usize, waiting.len());
    assert_eq!(waiting, [received(&a.peer.key, &[1; 100]), received(&a.peer.key, &[3; 50])].concat());
}

#[test]
fn a_ping_is_answered_with_its_own_bytes_and_a_preference_is_noted() {
    let relay = relay();
    let mut a = Client::login(&relay, 1);
    for (count, preferred) in [(1, true), (2, false)] {
        let mut read = Vec::new();
        FromClient::Ping(*b"12345678").encode(&mut read);
        FromClient::NotePreferred(preferred).encode(&mut read);
        a.reader.turn(&a.peer, &relay, || NOW_NS).feed(&read).expect("legal frames");
        assert_eq!(a.takes(), frame(FrameType::Pong as u8, b"12345678"));
        assert_eq!(a.peer.timers.preferred.load(Ordering::Relaxed), preferred);
        // Whoever takes from the mailbox subtracts what it took.
        assert_eq!(relay.budget.held(), count * (HEADER_LEN + PING_LEN) as u64);
    }
    assert_eq!(relay.counters.get(Counter::Pings), 2);
}

#[test]
fn only_a_sender_of_disco_hears_that_nobody_is_there_and_not_too_often() {
    let relay = relay();
    let mut a = Client::login(&relay, 1);
    let nobody = NodePublic::from_bytes([9; KEY_LEN]);
    a.sends(&relay, &nobody, &[1; 100]);
    assert_eq!(a.takes(), b"");
    let mut news = Vec::new();
    FromServer::PeerGone { peer: &nobody, reason: PeerGoneReason::NotHere }.encode(&mut news);
    for _ in 0..NOT_HERE_BURST {
        a.sends(&relay, &nobody, &disco());
        assert_eq!(a.takes(), news);
    }
    a.sends(&relay, &nobody, &disco());
    assert_eq!(a.takes(), b"", "the limit is reached, and no time has passed");
}

#[test]
fn what_needs_the_mesh_key_ends_the_connection() {
    let relay = relay();
    let key = NodePublic::from_bytes([9; KEY_LEN]);
    let forward = FromClient::ForwardPacket { source: &key, dest: &key, payload: b"x" };
    for (said, kind) in [
        (forward, FrameType::ForwardPacket),
        (FromClient::WatchConns, FrameType::WatchConns),
        (FromClient::ClosePeer(&key), FrameType::ClosePeer),
    ] {
        let mut a = Client::login(&relay, kind as u8);
        let mut bytes = Vec::new();
        said.encode(&mut bytes);
        let fault = a.reader.turn(&a.peer, &relay, || NOW_NS).feed(&bytes).expect_err("refused");
        assert_eq!(fault, ProtocolFault::NeedsMesh(kind as u8));
    }
}

#[test]
fn any_frame_of_a_doubled_key_makes_its_connection_the_active_one() {
    let relay = relay();
    let [mut first, second, mut sender] = [5, 5, 1].map(|key| Client::login(&relay, key));
    assert!(!first.peer.is_active() && second.peer.is_active());
    // Even a frame that is skipped.
    first.reader.turn(&first.peer, &relay, || NOW_NS).feed(&frame(0x77, b"")).expect("skipped");
    assert!(first.peer.is_active() && !second.peer.is_active());
    sender.sends(&relay, &first.peer.key.clone(), b"x");
    assert_eq!(first.takes(), received(&sender.peer.key, b"x"));
}

#[test]
fn a_receiver_is_woken_once_for_a_read_and_is_in_the_senders_audience() {
    let relay = relay();
    let [mut a, b] = [Client::login(&relay, 1), Client::login(&relay, 2)];
    let woken = Arc::new(Woken::default());
    b.peer.mailbox.register(&Arc::clone(&woken).into());
    let mut read = Vec::new();
    for _ in 0..10 {
        FromClient::SendPacket { dest: &b.peer.key, payload: b"x" }.encode(&mut read);
    }
    let mut turn = a.reader.turn(&a.peer, &relay, || NOW_NS);
    turn.feed(&read).expect("legal frames");
    assert_eq!(woken.0.load(Ordering::Relaxed), 0, "not before the end of the read");
    drop(turn);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(b.takes().len(), 10 * received(&a.peer.key, b"x").len());
    let told = relay.router.leave(&a.peer, a.reader.take_audience(), 0);
    assert_eq!(told.wake.iter().map(|peer| peer.id).collect::<Vec<_>>(), [b.peer.id]);
}
