//! Every packet is accounted for: each received packet was either sent or dropped, and counted once.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use rand_core::OsRng;
use relay_common::key::NodePrivate;
use relay_tests::{
    client::{Client, Start},
    daemon::{Daemon, Setup},
    lab::Netns,
    process::until,
    skip,
};
use serde_json::Value;

/// The counters of a packet's possible ends.
const ENDS: &[&str] = &[
    "packets_sent",
    "drop_unknown_dest",
    "drop_gone_disconnected",
    "drop_queue_head",
    "drop_write_error",
    "drop_queue_memory",
];
/// Packets that each sender sends to each receiver.
const EACH: usize = 400;
/// The packets' lengths, used in turn: shorter than a record, and several records.
const LENGTHS: &[usize] = &[40, 1_200, 9_000, 200, 60_000, 3_740];

fn count(status: &Value, label: &str) -> Result<u64> {
    status["counters"][label].as_u64().with_context(|| format!("no counter {label}"))
}

/// The receivers: one is slow, one never reads and is disconnected, one leaves in the middle, one key has two
/// connections, one key is unknown, and one receiver is normal.
#[test]
fn a_hostile_mix_loses_no_packet_without_a_reason() -> Result<()> {
    let name = "a_hostile_mix_loses_no_packet_without_a_reason";
    if !nix::unistd::geteuid().is_root() {
        skip(name, "not root: no network namespaces");
        return Ok(());
    }
    let netns = Netns::narrow("mix")?;
    let daemon = Daemon::start(Setup::in_netns(netns.name(), [127, 0, 0, 1].into()))?;
    let dial = daemon.dial(Start::Fast)?;
    let connect = || netns.enter(|| Client::connect(&dial))?;
    let (mut good, mut slow, stuck, leaving) = (connect()?, connect()?, connect()?, connect()?);
    let twice = NodePrivate::generate(&mut OsRng);
    let twin = |_| netns.enter(|| Client::connect_as(&dial, twice.clone()))?;
    let mut twins: Vec<Client> = (0..2).map(twin).collect::<Result<_>>()?;
    let nobody = NodePrivate::generate(&mut OsRng).public();
    let dests = [good.key(), slow.key(), stuck.key(), leaving.key(), twice.public(), nobody];
    let senders: Vec<Client> = (0..2).map(|_| connect()).collect::<Result<_>>()?;

    let (good_done, slow_done) = (good.key(), slow.key());
    thread::scope(|scope| -> Result<()> {
        let flood = |mut sender: Client| -> Result<Client> {
            for number in 0..EACH {
                let payload = vec![number as u8; LENGTHS[number % LENGTHS.len()]];
                dests.iter().try_for_each(|dest| sender.send(dest, &payload))?;
            }
            sender.ping()?;
            Ok(sender)
        };
        let senders: Vec<_> = senders.into_iter().map(|sender| scope.spawn(move || flood(sender))).collect();
        // This receiver reads as fast as it can until nothing has arrived for three seconds.
        scope.spawn(move || while let Ok(Some(_)) = good.recv_within(Duration::from_secs(3)) {});
        // This receiver reads slowly and closes while packets still wait for it, or when none came for three
        // seconds: a short flood leaves it fewer than it would read.
        scope.spawn(move || {
            for _ in 0..60 {
                let Ok(Some(_)) = slow.recv_within(Duration::from_secs(3)) else {
                    return;
                };
                thread::sleep(Duration::from_millis(10));
            }
        });
        // The two connections of one key take turns at being the active one.
        scope.spawn(move || {
            for turn in 0..40 {
                if twins[turn % 2].ping().is_err() {
                    return;
                }
            }
        });
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(leaving);
        });
        for sender in senders {
            drop(sender.join().ok().context("a sender panicked")??);
        }
        Ok(())
    })?;
    // A closed connection leaves the table when the daemon reads its end: soon, but not within its turn.
    until("the fast and the slow receiver to have left", || {
        let clients = daemon.admin().get("/v1/clients")?.to_string();
        Ok([good_done, slow_done].iter().all(|key| !clients.contains(&key.to_string())))
    })?;
    // This receiver neither reads nor leaves: the write deadline ends its connection and drops the waiting
    // packets.
    daemon.wait("the stuck one to be cut", |status| {
        status["derp"]["clients"] == 0 || status["derp"]["clients"] == 1
    })?;
    drop(stuck);
    let status = daemon.wait("everybody to have left", |status| status["derp"]["clients"] == 0)?;

    let received = count(&status, "packets_received")?;
    let ends: Vec<(&str, u64)> =
        ENDS.iter().map(|label| Ok((*label, count(&status, label)?))).collect::<Result<_>>()?;
    println!("packets_received {received}; {ends:?}");
    assert_eq!(received, (2 * EACH * dests.len()) as u64);
    assert_eq!(ends.iter().map(|(_, count)| count).sum::<u64>(), received, "{ends:?}");
    for label in ["packets_sent", "drop_unknown_dest", "drop_queue_head", "drop_gone_disconnected"] {
        assert!(count(&status, label)? > 0, "the mix makes some {label}: {ends:?}");
    }
    assert_eq!(status["derp"]["queued_bytes"], 0);
    assert_eq!(count(&status, "task_panics")?, 0);
    Ok(())
}
