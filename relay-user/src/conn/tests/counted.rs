//! Every frame is counted once, whatever happens to it.

use relay_common::derp::frame::Header;

use super::*;

/// Pushes `count` packets of `len` bytes for `peer`.
fn push(relay: &Relay, peer: &Peer, count: usize, len: usize) {
    for _ in 0..count {
        let head = recv_packet_header(&NodePublic::from_bytes([9; KEY_LEN]), len);
        let pushed = peer.mailbox.push(Lane::Data, &head, &vec![0; len], false).expect("open");
        relay.budget.add(pushed.growth);
    }
}

fn poll(connection: &mut Connection<Told>) -> Poll<()> {
    Pin::new(connection).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn what_dies_in_an_outbox_is_a_drop_and_not_sent() {
    let relay = relay();
    let me = login(&relay, 1);
    let frame = HEADER_LEN + KEY_LEN + 100;
    // Takes all of the first packet and most of the second.
    let stream = Told { takes: 2 * frame - 1, ..Told::default() };
    let mut connection = connection(&relay, &me, stream);
    let push = |count| push(&relay, &me, count, 100);
    push(3);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut connection).poll(&mut cx).is_pending());
    assert_eq!(relay.budget.held(), frame as u64 + 1);
    push(2);
    assert_eq!(relay.counters.get(Counter::PacketsSent), 1);
    assert_eq!(relay.counters.get(Counter::BytesSent), 100);
    drop(connection);
    assert_eq!(relay.counters.get(Counter::DropWriteError), 2);
    assert_eq!(relay.counters.get(Counter::DropGoneDisconnected), 2);
    assert_eq!(relay.budget.held(), 0);
}

#[test]
fn what_leaves_between_two_looks_is_sent() {
    const PACKETS: usize = 40;
    let relay = relay();
    let me = login(&relay, 1);
    push(&relay, &me, PACKETS, 8_000);
    // The stream takes each batch whole, at the next look.
    let mut connection = connection(&relay, &me, Told { takes: usize::MAX, ..Told::default() });
    for _ in 0..PACKETS {
        assert!(poll(&mut connection).is_pending());
    }
    assert_eq!(relay.counters.get(Counter::PacketsSent), PACKETS as u64);
    drop(connection);
    assert_eq!(relay.counters.get(Counter::DropWriteError), 0);
    assert_eq!(relay.budget.held(), 0);
}

#[test]
fn what_leaves_with_the_goodbye_is_sent() {
    let relay = relay();
    let me = login(&relay, 1);
    push(&relay, &me, 1, 10);
    let mut connection = connection(&relay, &me, Told::default());
    assert!(poll(&mut connection).is_pending());
    connection.stream.takes = usize::MAX;
    me.end(Ending::Shutdown);
    assert!(poll(&mut connection).is_ready());
    drop(connection);
    assert_eq!(relay.counters.get(Counter::PacketsSent), 1);
    assert_eq!(relay.counters.get(Counter::DropWriteError), 0);
}

#[test]
fn the_relays_own_frames_that_die_are_counted() {
    for fails in [false, true] {
        let relay = relay();
        let me = login(&relay, 1);
        for _ in 0..5 {
            let pong = Header::new(FrameType::Pong, 8).encode();
            let pushed = me.mailbox.push(Lane::Control, &pong, &[0; 8], false).expect("open");
            relay.budget.add(pushed.growth);
        }
        let mut connection = connection(&relay, &me, Told { fails, ..Told::default() });
        assert_eq!(poll(&mut connection).is_ready(), fails);
        drop(connection);
        assert_eq!(relay.counters.get(Counter::DropControl), 5, "fails: {fails}");
        assert_eq!(relay.budget.held(), 0);
    }
}
