//! DERP between real clients and a real daemon over loopback: every transport, every answer, and every policy
//! for full queues.

use anyhow::{Result, ensure};
use rand_core::OsRng;
use relay_common::{
    derp::{MAX_PACKET, message::PeerGoneReason},
    disco,
    key::{NodePrivate, NodePublic},
};
use relay_tests::{
    client::{Client, Dial, Message, Start, Transport},
    daemon::{Daemon, Setup},
};

/// Packets each way in a test of a transport.
const PACKETS: u32 = 2000;
/// Maximum packets that may be on their way.
const WINDOW: u32 = 64;

#[test]
fn two_clients_exchange_packets_over_every_transport() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let tls13 = daemon.dial(Start::Normal)?;
    let tls12 = Dial { transport: Transport::Tls12(daemon.pinned()?), ..tls13.clone() };
    for dial in [daemon.dial(Start::Fast)?, tls13, tls12] {
        exchange(&dial)?;
    }
    let packets = u64::from(3 * 2 * PACKETS);
    let status = daemon.wait("every packet to be counted", |status| {
        status["counters"]["packets_sent"].as_u64() >= Some(packets)
    })?;
    assert_eq!(status["counters"]["packets_received"], packets);
    assert_eq!(status["counters"]["packets_sent"], packets);
    assert_eq!(status["counters"]["bytes_received"], status["counters"]["bytes_sent"]);
    assert_eq!(status["counters"]["drop_queue_head"], 0);
    Ok(())
}

#[test]
fn two_clients_exchange_packets_over_plain_tcp() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback().plain())?;
    exchange(&daemon.dial(Start::Normal)?)
}

#[test]
fn a_fast_and_a_normal_client_see_the_same_relay() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let (fast, normal) =
        (Client::connect(&daemon.dial(Start::Fast)?)?, Client::connect(&daemon.dial(Start::Normal)?)?);
    assert_eq!(fast.server(), normal.server());
    let clients = daemon.admin().get("/v1/clients")?;
    for client in [&fast, &normal] {
        let key = client.key().to_string();
        assert!(clients.as_array().is_some_and(|all| all.iter().any(|one| one["key"] == key)), "{clients}");
    }
    Ok(())
}

#[test]
fn the_longest_packet_arrives_whole() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let (mut alice, mut bob) = Client::pair(&daemon.dial(Start::Fast)?)?;
    for len in [0, 1, MAX_PACKET - 1, MAX_PACKET] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        alice.send(&bob.key(), &payload)?;
        let (source, received) = bob.recv_packet()?;
        assert_eq!(source, alice.key());
        assert!(received == payload, "{len} bytes are not what was sent");
    }
    Ok(())
}

#[test]
fn a_ping_is_answered_with_its_bytes() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let mut client = Client::connect(&daemon.dial(Start::Fast)?)?;
    for _ in 0..3 {
        let (_, before) = client.ping()?;
        assert_eq!(before, []);
    }
    assert_eq!(daemon.counter("pings")?, 3);
    Ok(())
}

#[test]
fn only_disco_to_an_unknown_peer_is_answered_and_not_too_often() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let mut client = Client::connect(&daemon.dial(Start::Fast)?)?;
    let peer = stranger();
    client.send(&peer, b"not disco")?;
    assert_eq!(client.ping()?.1, [], "data to an unknown peer is dropped in silence");
    for _ in 0..10 {
        client.send(&peer, &disco_packet())?;
    }
    let (_, answers) = client.ping()?;
    assert_eq!(answers, vec![Message::PeerGone { peer, reason: PeerGoneReason::NotHere }; 3]);
    assert_eq!(daemon.counter("drop_unknown_dest")?, 11);
    Ok(())
}

#[test]
fn a_client_that_leaves_is_reported_to_who_heard_from_it() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let dial = daemon.dial(Start::Fast)?;
    let (mut alice, mut bob) = Client::pair(&dial)?;
    let mut carol = Client::connect(&dial)?;
    alice.send(&bob.key(), b"hello")?;
    assert_eq!(bob.recv_packet()?, (alice.key(), b"hello".to_vec()));
    let peer = alice.key();
    drop(alice);
    assert_eq!(bob.recv()?, Message::PeerGone { peer, reason: PeerGoneReason::Disconnected });
    assert_eq!(carol.ping()?.1, [], "carol had nothing from alice");
    Ok(())
}

#[test]
fn of_two_connections_with_one_key_the_last_to_speak_gets_the_packets() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let dial = daemon.dial(Start::Fast)?;
    let mut alice = Client::connect(&dial)?;
    let key = [7; 32];
    let mut first = Client::connect_as(&dial, NodePrivate::from_bytes(key))?;
    let mut second = Client::connect_as(&dial, NodePrivate::from_bytes(key))?;
    let bob = first.key();

    alice.send(&bob, b"to the newest")?;
    assert_eq!(second.recv_packet()?.1, b"to the newest");
    first.ping()?;
    alice.send(&bob, b"to who spoke")?;
    assert_eq!(first.recv_packet()?.1, b"to who spoke");
    assert_eq!(second.ping()?.1, [], "one connection gets a packet, not both");
    // Sending made this connection the active one again; when it closes, the other takes over and nobody is
    // told that the peer is gone.
    drop(second);
    daemon.wait("the second to be gone", |status| status["derp"]["clients"] == 2)?;
    alice.send(&bob, b"to the survivor")?;
    assert_eq!(first.recv_packet()?.1, b"to the survivor");
    assert_eq!(alice.ping()?.1, []);
    Ok(())
}

#[test]
fn a_slow_reader_loses_the_oldest_packets_and_each_loss_is_counted() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback().plain().with(&["--tcp-write-timeout", "0s"]))?;
    let dial = daemon.dial(Start::Normal)?;
    let (mut alice, mut bob) = Client::pair(&dial)?;
    let mut sent: u32 = 0;
    // Until the sockets' buffers, which grow, and then the mailbox are full.
    while daemon.counter("drop_queue_head")? < 100 {
        ensure!(sent < 10_000, "nothing was dropped");
        for _ in 0..50 {
            alice.send(&bob.key(), &numbered(sent, 60_000))?;
            sent += 1;
        }
        alice.ping()?;
    }
    let dropped = u32::try_from(daemon.counter("drop_queue_head")?)?;
    let mut numbers = Vec::new();
    while numbers.last() != Some(&(sent - 1)) {
        numbers.push(number(&bob.recv_packet()?.1, 60_000)?);
    }
    assert!(numbers.is_sorted(), "order is kept");
    assert_eq!(numbers[0], 0, "what was on its way already is not dropped");
    assert_eq!(numbers.len() as u32 + dropped, sent, "every packet arrived or was counted as dropped");
    assert_eq!(bob.ping()?.1, []);
    Ok(())
}

#[test]
fn a_client_that_takes_nothing_is_cut_after_the_write_timeout() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback().plain().with(&["--tcp-write-timeout", "300ms"]))?;
    let (mut alice, bob) = Client::pair(&daemon.dial(Start::Normal)?)?;
    let mut sent = 0;
    while daemon.counter("write_timeouts")? == 0 {
        ensure!(sent < 100_000, "nobody was cut");
        for _ in 0..20 {
            alice.send(&bob.key(), &[0; 60_000])?;
            sent += 1;
        }
        alice.ping()?;
    }
    daemon.wait("one client left", |status| status["derp"]["clients"] == 1)?;
    assert_eq!(daemon.counter("write_timeouts")?, 1);
    alice.send(&bob.key(), &disco_packet())?;
    let gone = Message::PeerGone { peer: bob.key(), reason: PeerGoneReason::NotHere };
    assert_eq!(alice.ping()?.1, [gone]);
    Ok(())
}

/// Sends [`PACKETS`] each way, with at most [`WINDOW`] of them on their way, and compares them all.
fn exchange(dial: &Dial) -> Result<()> {
    let (mut alice, mut bob) = Client::pair(dial)?;
    for first in (0..PACKETS).step_by(WINDOW as usize) {
        let window = first..PACKETS.min(first + WINDOW);
        for i in window.clone() {
            alice.send(&bob.key(), &numbered(i, len(i)))?;
            bob.send(&alice.key(), &numbered(i, len(i)))?;
        }
        for i in window {
            let (a, b) = (alice.recv_packet()?, bob.recv_packet()?);
            ensure!(a == (bob.key(), numbered(i, len(i))), "packet {i} to alice over {dial:?}");
            ensure!(b == (alice.key(), numbered(i, len(i))), "packet {i} to bob over {dial:?}");
        }
    }
    assert_eq!(alice.ping()?.1, [], "nothing else came");
    assert_eq!(bob.ping()?.1, [], "nothing else came");
    Ok(())
}

/// Lengths from 4 bytes to about two MTUs, so that frames cross the borders of records in every way.
fn len(i: u32) -> usize {
    4 + (i as usize * 37) % 2600
}

fn numbered(i: u32, len: usize) -> Vec<u8> {
    let mut payload = vec![i as u8; len];
    payload[..4].copy_from_slice(&i.to_be_bytes());
    payload
}

fn number(payload: &[u8], len: usize) -> Result<u32> {
    let i = u32::from_be_bytes(payload[..4].try_into()?);
    ensure!(payload == numbered(i, len), "packet {i} is not what was sent");
    Ok(i)
}

fn stranger() -> NodePublic {
    NodePrivate::generate(&mut OsRng).public()
}

fn disco_packet() -> Vec<u8> {
    [&disco::MAGIC[..], &[0; 100]].concat()
}
