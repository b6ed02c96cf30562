//! Packets between connections, without sockets: reader, look-up, mailbox.

use std::time::Duration;

use relay_common::derp::message::FromClient;
use relay_common::key::NodePrivate;

use super::*;
use crate::observe::counters::Counters;
use crate::route::Router;
use crate::route::sessions::Limits;

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
        relay.router.login(&peer, 0).expect("a new connection");
        Self { peer, reader: Reader::new(0) }
    }

    /// The relay reads one packet for `dest` from this client.
    fn sends(&mut self, relay: &Relay, dest: &NodePublic, payload: &[u8]) {
        let mut frame = Vec::new();
        FromClient::SendPacket { dest, payload }.encode(&mut frame);
        let mut turn = self.reader.turn(&self.peer, relay, || 0);
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
