//! Slow receivers beside normal ones: what they get, what they lose, and what they cost. The tests run in a
//! network namespace with small socket buffers, as Internet hosts have them.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use relay_common::{
    derp::{MAX_PACKET, message::PeerGoneReason},
    key::NodePublic,
};
use relay_tests::{
    client::{Client, Dial, Message, Start},
    daemon::{Daemon, Setup},
    lab::Netns,
    skip,
};

/// Packets in derper's queue, of any size.
const LANE_FRAMES: usize = 32;
/// Bytes of a packet in the flood that blocks a receiver.
const USUAL: usize = 2_000;
/// More packets than sockets, outbox and lane can hold.
const FLOOD: usize = 600;

/// A daemon on the loopback address of a namespace of its own, with small socket buffers.
struct Narrow {
    // Declared before the namespace, so that it is stopped first.
    daemon: Daemon,
    netns: Netns,
}

impl Narrow {
    fn or_skip(test: &str, args: &[&str]) -> Result<Option<Self>> {
        if !nix::unistd::geteuid().is_root() {
            skip(test, "not root: no network namespaces");
            return Ok(None);
        }
        let netns = Netns::narrow("narrow")?;
        let setup = Setup::in_netns(netns.name(), [127, 0, 0, 1].into()).with(args);
        Ok(Some(Self { daemon: Daemon::start(setup)?, netns }))
    }

    fn client(&self, dial: &Dial) -> Result<Client> {
        self.netns.enter(|| Client::connect(dial))?
    }

    fn clients<const N: usize>(&self) -> Result<[Client; N]> {
        let dial = self.daemon.dial(Start::Fast)?;
        let all: Vec<_> = (0..N).map(|_| self.client(&dial)).collect::<Result<_>>()?;
        all.try_into().ok().context("as many as asked for")
    }

    fn wait(&self, counter: &str, count: u64) -> Result<()> {
        let what = format!("{counter} to be {count}");
        self.daemon.wait(&what, |status| status["counters"][counter].as_u64() >= Some(count)).map(drop)
    }
}

/// Sends numbered packets until the receiver can take no more; the relay has then read all of them.
fn block(narrow: &Narrow, sender: &mut Client, receiver: &NodePublic, received_before: u64) -> Result<u64> {
    for number in 0..FLOOD as u32 {
        sender.send(receiver, &payload(number, USUAL))?;
    }
    let received = received_before + FLOOD as u64;
    narrow.wait("packets_received", received)?;
    ensure!(narrow.daemon.counter("drop_queue_head")? > 0, "the receiver is not blocked");
    Ok(received)
}

fn payload(number: u32, len: usize) -> Vec<u8> {
    let mut payload = vec![0x11; len];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    payload
}

fn number(payload: &[u8]) -> Result<u32> {
    Ok(u32::from_be_bytes(*payload.first_chunk().context("a number")?))
}

#[test]
fn thirty_packets_of_64_kib_wait_for_a_reader_that_pauses() -> Result<()> {
    let name = "thirty_packets_of_64_kib_wait_for_a_reader_that_pauses";
    let Some(narrow) = Narrow::or_skip(name, &["-tcp-write-timeout", "0"])? else { return Ok(()) };
    let [mut sender, mut receiver] = narrow.clients()?;
    for number in 0..30 {
        sender.send(&receiver.key(), &payload(number, MAX_PACKET))?;
    }
    // The receiver begins to read only after the relay has read all packets.
    narrow.wait("packets_received", 30)?;
    for number in 0..30 {
        let (source, packet) = receiver.recv_packet()?;
        assert_eq!(source, sender.key());
        assert!(packet == payload(number, MAX_PACKET), "packet {number}, in order and unchanged");
    }
    assert_eq!(narrow.daemon.counter("drop_queue_head")?, 0);
    Ok(())
}

#[test]
fn a_blocked_receiver_gets_its_pong_before_what_waits() -> Result<()> {
    let name = "a_blocked_receiver_gets_its_pong_before_what_waits";
    let Some(narrow) = Narrow::or_skip(name, &["-tcp-write-timeout", "0"])? else { return Ok(()) };
    let [mut sender, mut receiver] = narrow.clients()?;
    block(&narrow, &mut sender, &receiver.key(), 0)?;
    // It reads half of the packets kept for it, so the relay has sealed more of them meanwhile.
    let kept = FLOOD as u64 - narrow.daemon.counter("drop_queue_head")?;
    let mut seen = Vec::new();
    for _ in 0..kept / 2 {
        seen.push(number(&receiver.recv_packet()?.1)?);
    }
    let (_, before) = receiver.ping()?;
    for message in &before {
        if let Message::Packet { payload, .. } = message {
            seen.push(number(payload)?);
        }
    }
    while seen.last() != Some(&(FLOOD as u32 - 1)) {
        seen.push(number(&receiver.recv_packet()?.1)?);
    }
    // Packets before the pong: the sockets' buffers, and at most 64 KiB that were sealed earlier.
    let most = (128 + 64 + 64) * 1024 / USUAL;
    assert!(before.len() <= most, "{} packets stood before the pong", before.len());
    let newest: Vec<_> = (FLOOD as u32 - LANE_FRAMES as u32..FLOOD as u32).collect();
    assert!(seen.ends_with(&newest), "the lane holds the newest {LANE_FRAMES}: {seen:?}");
    Ok(())
}

#[test]
fn a_blocked_receiver_hears_of_everybody_who_left() -> Result<()> {
    let name = "a_blocked_receiver_hears_of_everybody_who_left";
    let Some(narrow) = Narrow::or_skip(name, &["-tcp-write-timeout", "0"])? else { return Ok(()) };
    let [mut sender, mut receiver] = narrow.clients()?;
    let received = block(&narrow, &mut sender, &receiver.key(), 0)?;
    let dial = narrow.daemon.dial(Start::Fast)?;
    let mut left = HashSet::new();
    for _ in 0..400 {
        let mut short = narrow.client(&dial)?;
        short.send(&receiver.key(), b"hello")?;
        left.insert(short.key());
        // The packet has been relayed, so the relay knows that the receiver must be told.
        short.ping()?;
    }
    narrow.wait("packets_received", received + 400)?;
    narrow.daemon.wait("all to have left", |status| status["derp"]["clients"] == 2)?;
    let mut told = HashSet::new();
    while told.len() < left.len()
        && let Some(message) = receiver.recv_within(Duration::from_secs(3))?
    {
        if let Message::PeerGone { peer, reason } = message {
            assert_eq!(reason, PeerGoneReason::Disconnected);
            assert!(told.insert(peer), "told twice of {peer}");
        }
    }
    let (_, behind) = receiver.ping()?;
    assert!(!behind.iter().any(|message| matches!(message, Message::PeerGone { .. })), "told twice");
    assert_eq!(told.len(), 400, "of all that left");
    assert_eq!(told, left);
    Ok(())
}

#[test]
fn slow_receivers_stay_inside_the_budget_and_others_lose_nothing() -> Result<()> {
    const RECEIVERS: usize = 5_000;
    const BUDGET: u64 = 64 << 20;
    let name = "slow_receivers_stay_inside_the_budget_and_others_lose_nothing";
    // Neither the relay nor the system (which gives a receiver without room 15 s) cuts anybody before the
    // budget does: a slow machine needs minutes for this.
    let deadlines = ["-tcp-write-timeout", "0", "-tcp-user-timeout", "0s"];
    let args = [&deadlines[..], &["--queue-memory", "64MiB", "--relay-max-sessions", "16"]].concat();
    let Some(narrow) = Narrow::or_skip(name, &args)? else { return Ok(()) };
    let [mut sender, mut alice, mut bob] = narrow.clients()?;
    let dial = narrow.daemon.dial(Start::Fast)?;
    let slow: Vec<_> = (0..RECEIVERS).map(|_| narrow.client(&dial)).collect::<Result<_>>()?;
    let (mut held, mut exchanged) = (0, 0);
    for receiver in &slow {
        for number in 0..FLOOD as u32 / 4 {
            sender.send(&receiver.key(), &payload(number, USUAL))?;
        }
        // Two other clients exchange packets meanwhile.
        alice.send(&bob.key(), b"over")?;
        bob.send(&alice.key(), b"back")?;
        assert_eq!(bob.recv_packet()?.1, b"over");
        assert_eq!(alice.recv_packet()?.1, b"back");
        exchanged += 2;
        let queues = narrow.daemon.admin().status()?["derp"].clone();
        held = held.max(queues["queued_bytes"].as_u64().with_context(|| format!("no bytes in {queues}"))?);
        assert_eq!(queues["queue_memory_bytes"], BUDGET);
    }
    assert_eq!(exchanged, 2 * RECEIVERS);
    assert!(held <= BUDGET, "{held} bytes waited");
    assert!(held > BUDGET / 2, "{held} bytes are no test of a budget of {BUDGET}");
    assert!(narrow.daemon.counter("queue_memory_cuts")? > 0);
    assert!(narrow.daemon.counter("drop_queue_memory")? > 0);
    Ok(())
}
