//! The demo: real clients, a real daemon, packets over each of its paths, and a check of every counter.
//!
//! ```text
//!   1 DERP over TLS     alice = TLS = relayd = TLS = bob
//!   2 UDP through XDP   alice - r0 [XDP program] r0 - bob          userspace sees nothing
//!   3 XDP turned off     alice - r0 - socket, relayd, socket - r0 - bob     the same session
//!   4 mesh              alice = TLS = relayd = TLS = second relayd = TLS = carol
//!   5 nobody's peer     alice = TLS = relayd: counted, and said so
//! ```
//! As root with BPF it makes a lab of network namespaces; otherwise it prints what is missing and uses
//! loopback for the paths that work there. It fails if a packet for a known peer did not arrive, or if
//! numbers disagree.

mod account;
mod interrupt;
mod keep;
mod place;
mod region;
mod rung;
mod traffic;

use anyhow::{Context as _, Result};
use relay_common::{disco, key::NodePrivate};

use self::{
    account::Account,
    place::Place,
    rung::{Rung, print_table},
    traffic::{Traffic, by_derp, by_udp},
};
use crate::{
    client::{Client, Message, Start},
    daemon::{Daemon, run_relayd},
    neighbours::Neighbours,
    udp_client::UdpClient,
};

/// Packets per path, half of them each way.
const PACKETS: u64 = 2000;

/// Runs the demo; with `keep`, until Ctrl-C.
pub fn run(keep: bool) -> Result<()> {
    interrupt::listen()?;
    let place = Place::new()?;
    let mut account = Account::default();
    let mut rungs = Vec::new();
    let setup = place.setup();
    let region = Neighbours::new([setup.ip, place.second_ip()])?;
    let relayd = place.start(region.join(setup))?;

    let (mut alice, mut bob) = connect(&place, &relayd)?;
    rungs.push(derp(&relayd, &mut alice, &mut bob, &mut account)?);
    say(
        "alice allocates a UDP session; both bind it: challenge, answer, and the next hop where there is XDP",
    );
    let clients = place.bound_session(&relayd)?;
    let mut dump = None;
    if place.has_xdp() {
        let (rung, session) = xdp(&place, &relayd, &clients, &mut account)?;
        rungs.push(rung);
        dump = Some(session);
        say("the operator turns XDP off (`relayd xdp off`): the same session, now through relayd's sockets");
        relayd.switch_xdp("off")?;
    }
    rungs.push(userspace(&relayd, &clients, &mut account)?);
    rungs.push(region::mesh(&place, &relayd, &region, &mut alice, &mut account)?);
    rungs.push(unknown_peer(&relayd, &mut alice, &mut account)?);

    println!();
    print_table(&rungs);
    if let Some(dump) = dump {
        println!("\nthe session of the second rung, as it was in the BPF map (`relayd inspect`):\n{dump}");
    }
    account.settle()?;
    if keep {
        drop(relayd);
        keep::keep(&place)?;
    }
    Ok(())
}

fn say(step: &str) {
    println!("* {step}");
}

fn connect(place: &Place, relayd: &Daemon) -> Result<(Client, Client)> {
    say("alice connects over TLS 1.3 with fast start, bob waits for the upgrade answer");
    let alice = place.derp_client(0, &relayd.dial(Start::Fast)?)?;
    let bob = place.derp_client(1, &relayd.dial(Start::Normal)?)?;
    Ok((alice, bob))
}

fn derp(relayd: &Daemon, alice: &mut Client, bob: &mut Client, account: &mut Account) -> Result<Rung> {
    say(&format!("{PACKETS} packets between alice and bob through DERP, half of them each way"));
    let before = relayd.admin().status()?;
    let traffic = by_derp(alice, bob, PACKETS)?;
    let after = relayd.wait("the packets to be counted", |status| {
        account::grown(&before, status, "packets_sent") >= traffic.delivered
    })?;
    let grown = |label| account::grown(&before, &after, label);
    account.equal("DERP: received by relayd and sent", grown("packets_received"), traffic.sent);
    account.equal("DERP: sent by relayd and delivered", grown("packets_sent"), traffic.delivered);
    account.equal("DERP: bytes in and out", grown("bytes_received"), grown("bytes_sent"));
    for drops in ["drop_queue_head", "drop_unknown_dest", "drop_gone_disconnected"] {
        account.equal(&format!("DERP: {drops}"), grown(drops), 0);
    }
    account.delivered("DERP", &traffic);
    let counted = format!("TLS: {} in, {} out", grown("packets_received"), grown("packets_sent"));
    Ok(Rung::new("DERP over TLS", traffic, counted))
}

fn xdp(
    place: &Place,
    relayd: &Daemon,
    clients: &[UdpClient; 2],
    account: &mut Account,
) -> Result<(Rung, String)> {
    let vni = clients[0].endpoint.vni;
    say(&format!("{PACKETS} packets of session {vni} through XDP"));
    let (before, checked_before) = (relayd.admin().status()?, place.checked()?);
    let traffic = by_udp(clients, PACKETS)?;
    let after = relayd.admin().status()?;
    let forwarded = account::reason_grown(&before, &after, "forwarded");
    account.equal("XDP: forwarded by the program", forwarded, traffic.sent);
    account.equal(
        "XDP: forwarded by userspace meanwhile",
        account::grown(&before, &after, "udp_forwarded"),
        0,
    );
    let session = relayd.session(vni.get())?.context("the session is there")?;
    for leg in [0, 1] {
        let leg = &session["legs"][leg];
        account.equal("XDP: packets of one leg", leg["xdp_packets"].as_u64().unwrap_or(0), traffic.sent / 2);
        account.equal("XDP: bytes of one leg", leg["xdp_bytes"].as_u64().unwrap_or(0), traffic.bytes / 2);
        account.equal("XDP: userspace packets of one leg", leg["packets"].as_u64().unwrap_or(u64::MAX), 0);
    }
    let checked = place.checked()?.context("a lab with XDP checks")?;
    let checked_before = checked_before.context("a lab with XDP checks")?;
    let good = checked.good - checked_before.good;
    account.equal("XDP: frames with right checksums at the far end", good, traffic.delivered);
    account.equal("XDP: frames with wrong or no checksums there", checked.bad, 0);
    place.account_reasons(relayd, account)?;
    account.delivered("XDP", &traffic);
    let dump = run_relayd(&["inspect", "--verbose", "--bpf-dir", &relayd.bpf_dir().to_string_lossy()])?;
    let counted = format!("XDP reason `forwarded`: {forwarded}; userspace 0");
    Ok((Rung::new("UDP through XDP", traffic, counted), dump))
}

fn userspace(relayd: &Daemon, clients: &[UdpClient; 2], account: &mut Account) -> Result<Rung> {
    say(&format!("{PACKETS} packets of session {} through relayd's sockets", clients[0].endpoint.vni));
    let before = relayd.admin().status()?;
    let traffic = by_udp(clients, PACKETS)?;
    let after = relayd.admin().status()?;
    let forwarded = account::grown(&before, &after, "udp_forwarded");
    account.equal("userspace: forwarded", forwarded, traffic.sent);
    account.equal("userspace: bytes", account::grown(&before, &after, "udp_forwarded_bytes"), traffic.bytes);
    account.equal(
        "userspace: forwarded by the program meanwhile",
        account::reason_grown_or_none(&before, &after, "forwarded"),
        0,
    );
    account.equal("userspace: not sent", account::grown(&before, &after, "udp_send_failed"), 0);
    account.delivered("userspace", &traffic);
    Ok(Rung::new("UDP in userspace", traffic, format!("counter `udp_forwarded`: {forwarded}")))
}

fn unknown_peer(relayd: &Daemon, alice: &mut Client, account: &mut Account) -> Result<Rung> {
    say("alice sends a packet to a peer nobody knows");
    let before = relayd.admin().status()?;
    let stranger = NodePrivate::generate(&mut rand_core::OsRng).public();
    alice.send(&stranger, &[&disco::MAGIC[..], &[0; 64]].concat())?;
    let (_, answers) = alice.ping()?;
    let gone =
        answers.iter().filter(|answer| matches!(answer, Message::PeerGone { peer, .. } if *peer == stranger));
    let gone = gone.count() as u64;
    let dropped = account::grown(&before, &relayd.admin().status()?, "drop_unknown_dest");
    account.equal("unknown peer: counted", dropped, 1);
    account.equal("unknown peer: PeerGone", gone, 1);
    let traffic = Traffic::undelivered(1);
    Ok(Rung::new("to nobody", traffic, format!("counter `drop_unknown_dest`: {dropped}; PeerGone: {gone}")))
}
