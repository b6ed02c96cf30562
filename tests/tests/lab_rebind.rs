//! Rebind stress in the lab, in userspace and with native XDP: no packet reaches a client that it does not
//! name. `RELAYD_REBIND_PACKETS` sets how many packets are sent, for a long run.

use std::{net::Ipv4Addr, time::Instant};

use anyhow::{Context as _, Result};
use relay_tests::{
    daemon::{Daemon, Setup},
    lab::{End, Netns, veth},
    rebind::{LIFETIMES, Outcome, Plan, ROOM, stress},
    skip,
    topology::{CLIENTS, RELAY, RELAY_INTERFACE, mac, objects, passing_checker},
};

/// The clients' interface.
const FAR: &str = "f0";
/// Packets of a run, unless the environment says otherwise.
const PACKETS: u64 = 200_000;

#[test]
fn in_userspace_no_packet_reaches_the_wrong_client() -> Result<()> {
    let name = "in_userspace_no_packet_reaches_the_wrong_client";
    if !nix::unistd::geteuid().is_root() {
        skip(name, "network namespaces need root");
        return Ok(());
    }
    let (relay, far) = wire()?;
    let daemon = Daemon::start(setup(&relay))?;
    judge(&daemon, &far, false)?;
    judge(&daemon, &far, true)
}

#[test]
fn with_xdp_no_packet_reaches_the_wrong_client() -> Result<()> {
    let objects = match objects() {
        Ok(objects) => objects,
        Err(reason) => {
            skip("with_xdp_no_packet_reaches_the_wrong_client", &reason);
            return Ok(());
        }
    };
    let (relay, far) = wire()?;
    let _checker = passing_checker(&objects.lab, &far, FAR)?;
    let daemon = Daemon::start(setup(&relay).xdp(RELAY_INTERFACE))?;
    judge(&daemon, &far, true)?;
    let forwarded = daemon.reason("forwarded")?;
    assert!(forwarded > 0, "the kernel has forwarded nothing");
    println!("{forwarded} packets through XDP");
    Ok(())
}

fn judge(daemon: &Daemon, far: &Netns, attacks: bool) -> Result<()> {
    let packets = match std::env::var("RELAYD_REBIND_PACKETS") {
        Ok(count) => count.parse().context("RELAYD_REBIND_PACKETS is a number")?,
        Err(_) => PACKETS,
    };
    let start = Instant::now();
    let plan = Plan { clients: CLIENTS, relay: daemon.udp()?, packets, attacks, seed: 1 };
    let outcome = stress(daemon.admin(), far, &plan)?;
    println!("{outcome:?} in {:?}", start.elapsed());
    let Outcome { sent, right, wrong, wrong_count, stolen, bound, replayed_handshakes, .. } = outcome;
    assert_eq!((wrong_count, wrong), (0, Vec::new()), "packets for others");
    assert_eq!(stolen, 0, "packets for a client at an address that it had left");
    assert!(right > sent / 2, "only {right} of {sent} packets arrived");
    assert!(bound > 0 && attacks == (replayed_handshakes > 0));
    Ok(())
}

fn setup(relay: &Netns) -> Setup {
    let room = format!("--relay-max-sessions={ROOM}");
    Setup::in_netns(relay.name(), RELAY.into()).with(&LIFETIMES).with(&[&room])
}

fn wire() -> Result<(Netns, Netns)> {
    let (relay, far) = (Netns::new("relay")?, Netns::new("far")?);
    veth(
        End { netns: &relay, name: RELAY_INTERFACE, mac: mac(1) },
        End { netns: &far, name: FAR, mac: mac(2) },
    )?;
    let place = |netns: &Netns, interface, ip: Ipv4Addr| {
        netns.ip(&["address", "add", &format!("{ip}/24"), "dev", interface])
    };
    place(&relay, RELAY_INTERFACE, RELAY)?;
    CLIENTS.into_iter().try_for_each(|ip| place(&far, FAR, ip))?;
    relay.complete_checksums(RELAY_INTERFACE)?;
    far.complete_checksums(FAR)?;
    Ok((relay, far))
}
