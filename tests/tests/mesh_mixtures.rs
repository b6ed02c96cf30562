//! Relays of both kinds in one region: whoever forwards to whom, clients of different relays reach each other
//! and hear of each other's leaving.
//!
//! The relays are started one after the other, so the order of a mixture says who finds whom at its start.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rand_core::OsRng;
use relay_common::{
    derp::message::PeerGoneReason,
    key::{NodePrivate, NodePublic},
};
use relay_tests::{
    client::{Client, Message},
    process::until,
    region::{
        Kind::{self, Derper, Relayd},
        Region, SIZE,
    },
};

/// Packets of each ordered pair. Those of two senders fit in derper's queue of 32 for each client.
const PACKETS: u8 = 10;
/// How long a client waits for a packet while the relays may not have found each other.
const MOMENT: Duration = Duration::from_millis(20);
/// The payload of the packets before that.
const HELLO: &[u8] = b"hello";

#[test]
fn three_relayd() -> Result<()> {
    mixture("a region of three relayd", [Relayd, Relayd, Relayd])
}

#[test]
fn two_relayd_before_a_derper() -> Result<()> {
    mixture("a region of two relayd before a derper", [Relayd, Relayd, Derper])
}

#[test]
fn two_relayd_after_a_derper() -> Result<()> {
    mixture("a region of two relayd after a derper", [Derper, Relayd, Relayd])
}

#[test]
fn a_relayd_before_two_derper() -> Result<()> {
    mixture("a region of a relayd before two derper", [Relayd, Derper, Derper])
}

#[test]
fn a_relayd_after_two_derper() -> Result<()> {
    mixture("a region of a relayd after two derper", [Derper, Derper, Relayd])
}

/// Shows that the test asks nothing that upstream does not do.
#[test]
fn three_derper() -> Result<()> {
    mixture("a region of three derper", [Derper, Derper, Derper])
}

fn mixture(test: &str, kinds: [Kind; SIZE]) -> Result<()> {
    let Some(mut region) = Region::or_skip(test, kinds)? else { return Ok(()) };
    let tested = talk_and_leave(&mut region);
    tested.with_context(|| region.logs())
}

fn talk_and_leave(region: &mut Region) -> Result<()> {
    for index in 0..SIZE {
        region.relay(index).start()?;
        region.wait_until_listening(index)?;
    }
    let keys = [0, 1, 2].map(|_| NodePrivate::generate(&mut OsRng));
    let mut clients = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        clients.push(connect(region, index, key)?);
    }
    meet(&mut clients)?;
    exchange(&mut clients)?;

    let left = clients.remove(0).key();
    for (client, relay) in clients.iter_mut().zip([2, 3]) {
        gone(client, left).with_context(|| format!("at relay {relay}"))?;
    }
    // Where the client is now is what counts, for the relay where it was and for one that never had it.
    clients.insert(0, connect(region, 1, &keys[0])?);
    meet(&mut clients).context("after a move")?;
    exchange(&mut clients).context("after a move")
}

fn connect(region: &mut Region, relay: usize, key: &NodePrivate) -> Result<Client> {
    let dial = region.relay(relay).dial();
    let client = region.clients().enter(|| Client::connect_as(&dial, key.clone()))?;
    client.with_context(|| format!("connecting to relay {}", relay + 1))
}

/// Waits until every client hears from every other one; derper dials an absent relay again after 5 s.
fn meet(clients: &mut [Client]) -> Result<()> {
    let keys: Vec<_> = clients.iter().map(Client::key).collect();
    let mut heard = vec![Vec::new(); clients.len()];
    let met = until("every client to hear from every other one", || {
        for (from, client) in clients.iter_mut().enumerate() {
            for key in keys.iter().filter(|key| **key != keys[from]) {
                client.send(key, HELLO)?;
            }
        }
        for (client, heard) in clients.iter_mut().zip(&mut heard) {
            while let Some(message) = client.recv_within(MOMENT)? {
                let Message::Packet { source, payload } = message else { continue };
                ensure!(payload == HELLO, "a packet that nobody sent now");
                if !heard.contains(&source) {
                    heard.push(source);
                }
            }
        }
        Ok(heard.iter().all(|heard| heard.len() == keys.len() - 1))
    });
    met.with_context(|| format!("of {keys:?} they heard {heard:?}"))
}

/// Every client sends to every other one, and everything arrives once and in order.
fn exchange(clients: &mut [Client]) -> Result<()> {
    let keys: Vec<_> = clients.iter().map(Client::key).collect();
    for number in 0..PACKETS {
        for (from, client) in clients.iter_mut().enumerate() {
            for key in keys.iter().filter(|key| **key != keys[from]) {
                client.send(key, &[number])?;
            }
        }
    }
    for client in clients {
        let others: Vec<_> = keys.iter().filter(|key| **key != client.key()).collect();
        let mut next = vec![0; others.len()];
        while next.iter().any(|next| *next < PACKETS) {
            match client.recv().with_context(|| format!("{next:?} of {PACKETS} came"))? {
                Message::Packet { payload, .. } if payload == HELLO => {}
                Message::Packet { source, payload } => {
                    let peer = others.iter().position(|key| **key == source).context("an unknown sender")?;
                    ensure!(payload == [next[peer]], "{payload:?} came instead of {}", next[peer]);
                    next[peer] += 1;
                }
                Message::KeepAlive => {}
                other => bail!("{other:?} instead of a packet"),
            }
        }
    }
    Ok(())
}

/// Waits until a client is told that another one has left.
fn gone(client: &mut Client, left: NodePublic) -> Result<()> {
    loop {
        match client.recv().context("no PeerGone")? {
            Message::PeerGone { peer, reason: PeerGoneReason::Disconnected } if peer == left => return Ok(()),
            Message::Packet { payload, .. } if payload == HELLO => {}
            Message::KeepAlive => {}
            other => bail!("{other:?} instead of PeerGone"),
        }
    }
}
