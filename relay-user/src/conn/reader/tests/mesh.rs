//! What holders of the mesh key may do, and packets that cross a link.

use relay_common::derp::deframer::Deframer;

use super::*;
use crate::route::link::Link;
use crate::route::peer::Ending;
use crate::route::vocabulary::LinkId;

/// Another relay's connection.
fn other_relay(relay: &Relay, key: u8) -> Client {
    let mut other = Client::login(relay, key);
    other.reader.accept_mesh();
    other
}

fn link(relay: &Relay, id: u64, keys: &[NodePublic]) -> Arc<Link> {
    let server = NodePublic::from_bytes([200 + id as u8; KEY_LEN]);
    let link = Arc::new(Link::new(LinkId(id), server, ([192, 0, 2, 1], 443).into()));
    relay.router.link_up(&link, 0).expect("a new link");
    keys.iter().for_each(|key| relay.claim(link.id, *key, false, 0).expect("up"));
    link
}

fn says(client: &mut Client, relay: &Relay, said: FromClient<'_>) -> Result<(), ProtocolFault> {
    let mut bytes = Vec::new();
    said.encode(&mut bytes);
    client.reader.turn(&client.peer, relay, || NOW_NS).feed(&bytes)
}

fn key(n: u8) -> NodePublic {
    NodePublic::from_bytes([n; KEY_LEN])
}

#[test]
fn a_packet_for_a_key_elsewhere_waits_for_its_link_with_both_keys() {
    let relay = relay();
    let mut a = Client::login(&relay, 1);
    let link = link(&relay, 1, &[key(9)]);
    let woken = Arc::new(Woken::default());
    link.mailbox.register(&Arc::clone(&woken).into());
    a.sends(&relay, &key(9), &[7; 100]);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    let batch = link.mailbox.take();
    assert_eq!((batch.packets(), batch.payload_bytes()), (1, 100));
    let bytes = batch.slices().collect::<Vec<_>>().concat();
    let mut expected = Vec::new();
    FromClient::ForwardPacket { source: &a.peer.key, dest: &key(9), payload: &[7; 100] }
        .encode(&mut expected);
    assert_eq!(bytes, expected);
    assert_eq!(relay.counters.get(Counter::DropUnknownDest), 0);
    a.sends(&relay, &key(9), &disco());
    assert_eq!(link.mailbox.take().count(Lane::Disco).frames, 1, "disco has a lane of its own there too");
}

#[test]
fn what_a_full_link_drops_is_counted_with_the_link() {
    let relay = relay();
    let mut a = Client::login(&relay, 1);
    let link = link(&relay, 1, &[key(9)]);
    for _ in 0..crate::mailbox::LINK_LANE_FRAMES + 3 {
        a.sends(&relay, &key(9), &[7; 10]);
    }
    assert_eq!(relay.counters.get(Counter::DropQueueHead), 3);
    assert_eq!(link.dropped.load(Ordering::Relaxed), 3);
    link.mailbox.close();
    a.sends(&relay, &key(9), &[7; 10]);
    assert_eq!(relay.counters.get(Counter::DropMeshLink), 1, "the link has just ended");
}

#[test]
fn a_forwarded_packet_is_delivered_here_and_never_leaves_by_a_link() {
    let relay = relay();
    let (b, mut other) = (Client::login(&relay, 2), other_relay(&relay, 3));
    let link = link(&relay, 1, &[key(9)]);
    let (source, elsewhere) = (key(7), key(9));
    let forward = |dest, payload| FromClient::ForwardPacket { source: &source, dest, payload };
    says(&mut other, &relay, forward(&b.peer.key, b"for b")).expect("allowed");
    assert_eq!(b.takes(), received(&source, b"for b"));
    for payload in [b"data".as_slice(), &disco()] {
        says(&mut other, &relay, forward(&elsewhere, payload)).expect("allowed");
    }
    assert!(link.mailbox.take().is_empty(), "it would come back, or go round in a circle");
    assert_eq!(relay.counters.get(Counter::ForwardedIn), 3);
    assert_eq!(relay.counters.get(Counter::ForwardedInBytes), (5 + 4 + disco().len()) as u64);
    assert_eq!(relay.counters.get(Counter::DropUnknownDest), 2);
    let mut news = Vec::new();
    FromServer::PeerGone { peer: &elsewhere, reason: PeerGoneReason::NotHere }.encode(&mut news);
    assert_eq!(other.takes(), news, "the sender of disco is told");
}

#[test]
fn those_who_heard_over_a_link_are_told_of_the_source_and_not_of_the_other_relay() {
    let relay = relay();
    let (b, mut other) = (Client::login(&relay, 2), other_relay(&relay, 3));
    let source = key(7);
    let link = link(&relay, 1, &[source]);
    for _ in 0..3 {
        let forward = FromClient::ForwardPacket { source: &source, dest: &b.peer.key, payload: b"x" };
        says(&mut other, &relay, forward).expect("allowed");
    }
    b.takes();
    relay.leave(&other.peer, other.reader.take_audience(), 0);
    assert_eq!(b.takes(), b"", "its connection says nothing of the sources");
    relay.link_down(link.id, 0);
    let mut news = Vec::new();
    FromServer::PeerGone { peer: &source, reason: PeerGoneReason::Disconnected }.encode(&mut news);
    assert_eq!(b.takes(), news, "once, however many packets came");
    // The key comes back by another link, and leaves again.
    let mut other = other_relay(&relay, 4);
    for round in 2..4 {
        let link = self::link(&relay, round, &[source]);
        let forward = FromClient::ForwardPacket { source: &source, dest: &b.peer.key, payload: b"x" };
        says(&mut other, &relay, forward).expect("allowed");
        b.takes();
        relay.link_down(link.id, 0);
        assert_eq!(b.takes(), news, "each time");
    }
}

#[test]
fn a_relay_may_watch_and_close_and_is_told_nothing_of_itself_by_itself() {
    let relay = relay();
    let (b, mut other) = (Client::login(&relay, 2), other_relay(&relay, 3));
    says(&mut other, &relay, FromClient::WatchConns).expect("allowed");
    let told = other.takes();
    let mut deframer = Deframer::new();
    let mut present = Vec::new();
    let pushed = deframer.push(&told, limits::client, |header, payload| {
        let FromServer::PeerPresent { peer, .. } = FromServer::parse(header, payload)? else {
            panic!("news")
        };
        present.push(*peer);
        Ok::<_, MessageError>(())
    });
    pushed.expect("whole frames");
    present.sort();
    assert_eq!(present, [b.peer.key, other.peer.key]);
    says(&mut other, &relay, FromClient::ClosePeer(&b.peer.key)).expect("allowed");
    assert_eq!(b.peer.ending(), Some(Ending::Closed));
    assert_eq!(other.peer.ending(), None);

    let peer = Arc::new(Peer::new(relay.public, relay.next_conn(), ([127, 0, 0, 1], 1).into()));
    let _ = relay.router.login(&peer, 0).expect("a new connection");
    let mut ourselves = Client { peer, reader: Reader::new(NOW_NS) };
    ourselves.reader.accept_mesh();
    says(&mut ourselves, &relay, FromClient::WatchConns).expect("allowed");
    assert_eq!(ourselves.takes(), b"");
}
