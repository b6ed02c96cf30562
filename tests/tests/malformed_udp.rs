//! Every malformed or forged datagram that the UDP relay's socket can get, and the one counter that says why
//! it was dropped. The tests use loopback without XDP; afterwards the relay still serves its session.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use rand_core::OsRng;
use relay_common::{
    disco::message::{Bind, BindKind},
    geneve::{GENEVE_LEN, Vni},
    key::{DiscoPrivate, DiscoPublic},
};
use relay_tests::{
    daemon::{Daemon, Setup},
    process::until,
    topology::two_keys,
    udp_client::{DEADLINE, UdpClient},
};

/// Offsets of the sender's key and of the box in a control packet, after the Geneve and disco headers.
const SENDER_AT: usize = GENEVE_LEN + 6;
const BOX_AT: usize = SENDER_AT + 32 + 24;

#[test]
fn a_datagram_that_is_not_geneve_as_the_relay_speaks_it_is_counted_by_what_is_wrong() -> Result<()> {
    let site = Target::bound()?;
    let good = site.clients[0].data(b"good but for one thing");
    let with = |at: usize, byte: u8| {
        let mut bent = good.clone();
        bent[at] = byte;
        bent
    };
    site.each_counts(&[
        ("nothing at all", vec![], "udp_drop_short"),
        ("the one byte that probes for segmentation offload", vec![7], "udp_drop_short"),
        ("all but a byte of the header", good[..GENEVE_LEN - 1].to_vec(), "udp_drop_short"),
        ("version 1", with(0, 0x40), "udp_drop_version"),
        ("version 2", with(0, 0x80), "udp_drop_version"),
        ("options", with(0, 1), "udp_drop_options"),
        ("the critical bit", with(1, 0x40), "udp_drop_reserved"),
        ("a reserved bit", with(1, 0x01), "udp_drop_reserved"),
        ("the reserved byte", with(7, 1), "udp_drop_reserved"),
        ("VNI zero", [&good[..4], &[0; 4], &good[8..]].concat(), "udp_drop_reserved"),
        ("another protocol", with(3, 0x13), "udp_drop_protocol"),
        ("Ethernet in Geneve", [&good[..2], &[0x65, 0x58], &good[4..]].concat(), "udp_drop_protocol"),
        ("control that is not disco", with(1, 0x80), "udp_drop_protocol"),
        ("a VNI nobody has", with(6, 0xee), "udp_drop_unknown_vni"),
        ("naked WireGuard", [&[4, 0, 0, 0][..], &[0x11; 60]].concat(), "udp_drop_options"),
    ])?;
    site.serves()
}

#[test]
fn a_datagram_that_no_slot_holds_is_counted() -> Result<()> {
    // With offloads, a slot holds the longest datagram that there is.
    let site = Target::bound_with(&["--udp-offload=false"])?;
    let long = [&site.clients[0].data(b"")[..], &vec![0; 20_000]].concat();
    site.each_counts(&[("more than a slot holds", long, "udp_drop_too_long")])?;
    site.serves()
}

#[test]
fn data_from_or_for_nobody_is_counted() -> Result<()> {
    let site = Target::bound()?;
    let stranger = UdpSocket::bind((site.daemon.ip(), 0))?;
    let before = site.counters()?;
    stranger.send_to(&site.clients[0].data(b"from a stranger"), site.clients[0].relay)?;
    site.grown("data from a source that is no leg", &before, &[("udp_drop_not_a_leg", 1)])?;

    let half_bound = site.allocate()?;
    let before = site.counters()?;
    half_bound[0].send(b"to nobody yet")?;
    site.grown("data before both legs are bound", &before, &[("udp_drop_not_bound", 1)])?;
    site.serves()
}

#[test]
fn a_handshake_that_proves_nothing_is_counted_by_what_is_wrong() -> Result<()> {
    let mut site = Target::bound()?;
    site.clients[0].next_generation();
    let client = &site.clients[0];
    let good = client.control(BindKind::Bind, [0; 32]);
    let with = |at: usize, bytes: &[u8]| {
        let mut bent = good.clone();
        bent[at..at + bytes.len()].copy_from_slice(bytes);
        bent
    };
    let bind = client.bind_message([0; 32]);
    let sealed = |bind: &Bind| client.sealed(BindKind::Bind, bind);
    let stranger = DiscoPrivate::generate(&mut OsRng).public();
    let other_vni = Vni::new(bind.vni.get() + 1).context("a VNI")?;
    let plain = bind.encode(BindKind::Bind);
    let inside = Bind { vni: other_vni, ..bind }.encode(BindKind::Bind);
    site.each_counts(&[
        ("no disco magic", with(GENEVE_LEN, b"X"), "udp_drop_not_disco"),
        ("cut within the disco header", good[..BOX_AT - 1].to_vec(), "udp_drop_not_disco"),
        ("a key that is no client's", with(SENDER_AT, stranger.as_bytes()), "udp_drop_unknown_sender"),
        ("the zero key", with(SENDER_AT, &[0; 32]), "udp_drop_unknown_sender"),
        ("the peer's key", with(SENDER_AT, bind.remote_key.as_bytes()), "udp_drop_bad_box"),
        ("a bit of the tag", with(BOX_AT, &[good[BOX_AT] ^ 1]), "udp_drop_bad_box"),
        ("another nonce", with(BOX_AT - 1, &[good[BOX_AT - 1] ^ 1]), "udp_drop_bad_box"),
        ("no box", good[..BOX_AT].to_vec(), "udp_drop_bad_box"),
        ("a byte too few in the box", good[..good.len() - 1].to_vec(), "udp_drop_bad_box"),
        ("an empty message", client.sealed_plain(&[]), "udp_drop_bad_message"),
        ("a short message", client.sealed_plain(&plain[..plain.len() - 1]), "udp_drop_bad_message"),
        ("a ping to the relay", client.sealed_plain(&[1, 0, 0, 0]), "udp_drop_bad_message"),
        ("a challenge to the relay", client.control(BindKind::Challenge, [1; 32]), "udp_drop_bad_message"),
        ("another VNI inside", client.sealed_plain(&inside), "udp_drop_mismatch"),
        ("about a stranger", sealed(&Bind { remote_key: stranger, ..bind }), "udp_drop_mismatch"),
        ("about nobody", sealed(&Bind { remote_key: DiscoPublic::default(), ..bind }), "udp_drop_mismatch"),
        ("generation zero", sealed(&Bind { generation: 0, ..bind }), "udp_drop_generation"),
        ("an answer to no challenge", client.control(BindKind::Answer, [9; 32]), "udp_drop_bad_challenge"),
    ])?;
    site.serves()
}

#[test]
fn a_challenge_is_good_for_one_answer_from_the_address_it_was_sent_to() -> Result<()> {
    let mut site = Target::bound()?;
    site.clients[0].next_generation();
    let challenge = site.clients[0].challenge()?;
    let client = &site.clients[0];
    let answer = client.control(BindKind::Answer, challenge);
    let other_port = UdpSocket::bind((site.daemon.ip(), 0))?;

    let before = site.counters()?;
    other_port.send_to(&answer, client.relay)?;
    site.grown("an answer from another port", &before, &[("udp_drop_bad_challenge", 1)])?;

    let other_generation = Bind { generation: 77, ..client.bind_message(challenge) };
    let before = site.counters()?;
    client.send_raw(&client.sealed(BindKind::Answer, &other_generation))?;
    site.grown("an answer to another generation", &before, &[("udp_drop_bad_challenge", 1)])?;

    let before = site.counters()?;
    client.send_raw(&answer)?;
    site.grown("the answer", &before, &[("udp_binds", 1)])?;
    let before = site.counters()?;
    client.send_raw(&answer)?;
    site.grown("the answer again", &before, &[("udp_drop_generation", 1)])?;
    site.serves()
}

#[test]
fn a_leg_cannot_be_bound_to_the_address_of_the_other() -> Result<()> {
    let mut site = Target::bound()?;
    let shared = site.clients[0].socket.try_clone()?;
    let own = site.clients[1].roam(shared);
    site.clients[1].next_generation();
    let challenge = site.clients[1].challenge()?;
    let before = site.counters()?;
    site.clients[1].send_raw(&site.clients[1].control(BindKind::Answer, challenge))?;
    site.grown("an answer from the other's address", &before, &[("udp_drop_same_address", 1)])?;
    site.clients[1].roam(own);
    site.serves()
}

/// A daemon with one session, both legs bound.
struct Target {
    daemon: Daemon,
    clients: [UdpClient; 2],
}

type Counters = BTreeMap<String, u64>;

impl Target {
    fn bound() -> Result<Self> {
        Self::bound_with(&[])
    }

    fn bound_with(args: &[&str]) -> Result<Self> {
        let daemon = Daemon::start(Setup::loopback().with(args))?;
        let mut clients = allocate(&daemon)?;
        for client in &mut clients {
            client.bind(daemon.admin())?;
        }
        let site = Self { daemon, clients };
        site.serves()?;
        Ok(site)
    }

    fn allocate(&self) -> Result<[UdpClient; 2]> {
        allocate(&self.daemon)
    }

    /// Sends each datagram from the first client; only its counter must grow, by one.
    fn each_counts(&self, cases: &[(&str, Vec<u8>, &str)]) -> Result<()> {
        for (what, datagram, counter) in cases {
            let before = self.counters()?;
            self.clients[0].send_raw(datagram)?;
            self.grown(what, &before, &[(counter, 1)])?;
        }
        Ok(())
    }

    /// Waits until exactly these counters have grown by these numbers.
    fn grown(&self, what: &str, before: &Counters, by: &[(&str, u64)]) -> Result<()> {
        let mut expected = before.clone();
        for (label, n) in by {
            *expected.get_mut(*label).with_context(|| format!("no counter {label}"))? += n;
        }
        let mut last = Counters::new();
        until(what, || {
            last = self.counters()?;
            Ok(last != *before)
        })?;
        let differs: Vec<_> = last.iter().filter(|(label, n)| before.get(*label) != Some(n)).collect();
        ensure!(last == expected, "{what}: expected {by:?}, but these changed: {differs:?}");
        Ok(())
    }

    /// All counters but those of system calls: how many it takes is not what is asked here.
    fn counters(&self) -> Result<Counters> {
        let all: Counters = serde_json::from_value(self.daemon.admin().status()?["counters"].clone())?;
        Ok(all.into_iter().filter(|(label, _)| !label.ends_with("_calls")).collect())
    }

    /// Checks that the bound session still carries packets both ways.
    fn serves(&self) -> Result<()> {
        for (from, to) in [(0, 1), (1, 0)] {
            self.clients[from].send(b"still served")?;
            let received = self.clients[to].recv(DEADLINE)?;
            ensure!(received.as_deref() == Some(b"still served"), "the session is not served any more");
        }
        Ok(())
    }
}

fn allocate(daemon: &Daemon) -> Result<[UdpClient; 2]> {
    let [one, other] = two_keys();
    let endpoint = daemon.admin().allocate([one.public(), other.public()])?;
    let (relay, local) = (daemon.udp()?, SocketAddr::new(daemon.ip(), 0));
    Ok([UdpClient::new(&endpoint, relay, &one, local)?, UdpClient::new(&endpoint, relay, &other, local)?])
}
