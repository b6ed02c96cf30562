//! The relay as seen by two clients and a stranger, one datagram at a time.

mod denied;

use std::net::SocketAddr;

use relay_common::geneve::GENEVE_LEN;
use relay_common::key::DiscoShared;

use super::*;
use crate::route::sessions::Limits;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_000 * SECOND;

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn path(remote: &str) -> LegPath {
    let local = if remote.starts_with('[') { "[2001:db8::9]:7777" } else { "192.0.2.9:7777" };
    LegPath { remote: addr(remote), local: addr(local) }
}

struct Client {
    key: DiscoPublic,
    other: DiscoPublic,
    shared: DiscoShared,
}

impl Client {
    fn message(&self, kind: BindKind, bind: Bind) -> Vec<u8> {
        seal_control(kind, &bind, &self.key, &self.shared, &[7; NONCE_LEN])
    }

    fn bind(&self, vni: Vni, generation: u32) -> Bind {
        Bind { vni, generation, remote_key: self.other, challenge: [0; 32] }
    }
}

struct Lab {
    udp: UdpRelay,
    router: Router,
    clients: [Client; 2],
    vni: Vni,
}

impl Lab {
    fn new() -> Self {
        let server = DiscoPrivate::from_bytes([50; 32]);
        let limits = Limits {
            max_sessions: 8,
            bind_lifetime_ns: 30 * SECOND,
            steady_lifetime_ns: 300 * SECOND,
            server: server.public(),
        };
        let mut keys = [1u8, 2].map(|n| DiscoPrivate::from_bytes([n; 32]));
        keys.sort_by_key(DiscoPrivate::public);
        let publics = keys.each_ref().map(DiscoPrivate::public);
        let udp = UdpRelay::new(server, [3; 32], NOW);
        let router = Router::new(limits, None);
        let session = router.allocate(publics, NOW).expect("room");
        let clients = [0, 1].map(|leg| Client {
            key: publics[leg],
            other: publics[1 - leg],
            shared: keys[leg].shared(&udp.public()).expect("a good key"),
        });
        Self { udp, router, clients, vni: Vni::new(session.vni()).expect("a VNI") }
    }

    fn decide(&self, datagram: &[u8], path: LegPath) -> Action {
        self.udp.decide(&self.router, datagram, path, NOW)
    }

    /// The challenge that a bind from `path` gets.
    fn challenge(&self, leg: usize, generation: u32, path: LegPath) -> Bind {
        let client = &self.clients[leg];
        let datagram = client.message(BindKind::Bind, client.bind(self.vni, generation));
        let Action::Challenge(answer) = self.decide(&datagram, path) else { panic!("no challenge") };
        assert_eq!(answer.len(), datagram.len(), "no amplification");
        let envelope = Envelope::parse(&answer[GENEVE_LEN..]).expect("disco");
        assert_eq!(envelope.sender, &self.udp.public());
        let plain = client.shared.open(envelope.nonce, envelope.sealed).expect("sealed for the client");
        let (kind, bind) = Bind::parse(&plain).expect("a bind message");
        assert_eq!((kind, bind.generation, bind.remote_key), (BindKind::Challenge, generation, client.other));
        bind
    }

    fn answer(&self, leg: usize, answer: Bind, path: LegPath) -> Action {
        self.decide(&self.clients[leg].message(BindKind::Answer, answer), path)
    }

    fn bind(&self, leg: usize, path: LegPath) {
        let answer = self.challenge(leg, 1, path);
        let bound = Action::Bound { vni: self.vni.get(), leg, path };
        assert_eq!(self.answer(leg, answer, path), bound);
    }

    fn data(&self, protocol: Protocol) -> Vec<u8> {
        let mut datagram = Geneve { control: false, protocol, vni: self.vni }.encode().to_vec();
        datagram.extend_from_slice(b"any payload");
        datagram
    }
}

#[test]
fn data_flows_both_ways_once_both_legs_are_bound_and_families_may_differ() {
    let lab = Lab::new();
    let (a, b) = (path("192.0.2.1:1000"), path("[2001:db8::1]:2000"));
    let data = lab.data(Protocol::WireGuard);
    assert_eq!(lab.decide(&data, a), Action::Drop(Counter::UdpNotBound));
    lab.bind(0, a);
    assert_eq!(lab.decide(&data, a), Action::Drop(Counter::UdpNotBound));
    lab.bind(1, b);
    for protocol in [Protocol::WireGuard, Protocol::Disco] {
        assert_eq!(lab.decide(&lab.data(protocol), a), Action::Forward(b));
        assert_eq!(lab.decide(&lab.data(protocol), b), Action::Forward(a));
    }
}

#[test]
fn a_rebind_moves_the_leg_at_the_instant_of_its_answer() {
    let lab = Lab::new();
    let (a, b, moved) = (path("192.0.2.1:1000"), path("192.0.2.2:2000"), path("192.0.2.1:1001"));
    lab.bind(0, a);
    lab.bind(1, b);
    let answer = lab.challenge(0, 9, moved);
    let data = lab.data(Protocol::WireGuard);
    assert_eq!(lab.decide(&data, a), Action::Forward(b), "still the old one");
    assert!(matches!(lab.answer(0, answer, moved), Action::Bound { .. }));
    assert_eq!(lab.decide(&data, a), Action::Drop(Counter::UdpNotALeg));
    assert_eq!(lab.decide(&data, moved), Action::Forward(b));
    assert_eq!(lab.decide(&data, b), Action::Forward(moved));
}

#[test]
fn a_leg_is_both_addresses_it_bound_with() {
    let lab = Lab::new();
    let (a, b) = (path("192.0.2.1:1000"), path("192.0.2.2:2000"));
    lab.bind(0, a);
    lab.bind(1, b);
    let elsewhere = LegPath { local: addr("192.0.2.8:7777"), ..a };
    assert_eq!(lab.decide(&lab.data(Protocol::Disco), elsewhere), Action::Drop(Counter::UdpNotALeg));
}

#[test]
fn answers_bind_only_where_and_what_they_were_challenged_for() {
    let lab = Lab::new();
    let a = path("192.0.2.1:1000");
    let answer = lab.challenge(0, 5, a);
    let elsewhere = path("192.0.2.1:1001");
    assert_eq!(lab.answer(0, answer, elsewhere), Action::Drop(Counter::UdpBadChallenge));
    let copied = LegPath { local: addr("192.0.2.8:7777"), ..a };
    assert_eq!(
        lab.answer(0, answer, copied),
        Action::Drop(Counter::UdpBadChallenge),
        "another address of ours"
    );
    let other = Bind { generation: 6, ..answer };
    assert_eq!(lab.answer(0, other, a), Action::Drop(Counter::UdpBadChallenge));
    let forged = Bind { challenge: [1; 32], ..answer };
    assert_eq!(lab.answer(0, forged, a), Action::Drop(Counter::UdpBadChallenge));
    assert!(matches!(lab.answer(0, answer, a), Action::Bound { .. }));
    assert_eq!(lab.answer(0, answer, a), Action::Drop(Counter::UdpGeneration), "an answer is good once");
    let answer = lab.challenge(1, 5, a);
    assert_eq!(lab.answer(1, answer, a), Action::Drop(Counter::UdpSameAddress));
}

#[test]
fn a_recorded_handshake_moves_no_leg_back() {
    let lab = Lab::new();
    let (old, new, other) = (path("192.0.2.1:1000"), path("192.0.2.1:1001"), path("192.0.2.2:2000"));
    let recorded = lab.challenge(0, 1, old);
    assert!(matches!(lab.answer(0, recorded, old), Action::Bound { .. }));
    lab.bind(1, other);
    let answer = lab.challenge(0, 2, new);
    assert!(matches!(lab.answer(0, answer, new), Action::Bound { .. }));
    // Both datagrams again, from the address that they came from.
    lab.challenge(0, 1, old);
    assert_eq!(lab.answer(0, recorded, old), Action::Drop(Counter::UdpGeneration));
    assert_eq!(lab.decide(&lab.data(Protocol::WireGuard), other), Action::Forward(new));
}

#[test]
fn binds_replayed_between_a_clients_bind_and_answer_do_not_block_it() {
    let lab = Lab::new();
    let (a, moved) = (path("192.0.2.1:1000"), path("192.0.2.1:1001"));
    for generation in 1..=9 {
        let answer = lab.challenge(0, generation, a);
        assert!(matches!(lab.answer(0, answer, a), Action::Bound { .. }));
    }
    let answer = lab.challenge(0, 10, moved);
    for recorded in 1..=9 {
        lab.challenge(0, recorded, a);
    }
    assert!(matches!(lab.answer(0, answer, moved), Action::Bound { .. }));
}

#[test]
fn an_answer_that_was_held_back_does_not_undo_a_later_bind() {
    let lab = Lab::new();
    let (a, moved) = (path("192.0.2.1:1000"), path("192.0.2.1:1001"));
    let held = lab.challenge(0, 1, a);
    let answer = lab.challenge(0, 2, moved);
    assert!(matches!(lab.answer(0, answer, moved), Action::Bound { .. }));
    assert_eq!(lab.answer(0, held, a), Action::Drop(Counter::UdpGeneration));
    lab.challenge(0, 1, a);
    assert_eq!(lab.answer(0, held, a), Action::Drop(Counter::UdpGeneration), "even after its bind again");
}

/// Replays in the worst order: many old binds around the client's, and an answer that never arrived.
#[test]
fn no_order_of_replays_brings_an_undelivered_answer_back() {
    let lab = Lab::new();
    let (a, b) = (path("192.0.2.1:1000"), path("192.0.2.1:1001"));
    let lost = lab.challenge(0, 10, a);
    for old in [1, 2] {
        lab.challenge(0, old, a);
    }
    let answer = lab.challenge(0, 11, b);
    for old in [3, 10] {
        lab.challenge(0, old, a);
    }
    assert!(matches!(lab.answer(0, answer, b), Action::Bound { .. }));
    assert_eq!(lab.answer(0, lost, a), Action::Drop(Counter::UdpGeneration));
    lab.challenge(0, 10, a);
    assert_eq!(lab.answer(0, lost, a), Action::Drop(Counter::UdpGeneration));
}

#[test]
fn an_answer_that_is_late_costs_the_next_handshake_nothing() {
    let lab = Lab::new();
    let (a, moved) = (path("192.0.2.1:1000"), path("192.0.2.1:1001"));
    let late = lab.challenge(0, 1, a);
    let answer = lab.challenge(0, 2, moved);
    assert!(matches!(lab.answer(0, late, a), Action::Bound { .. }));
    assert!(matches!(lab.answer(0, answer, moved), Action::Bound { .. }));
}

#[test]
fn challenges_outlive_one_rotation_of_the_secrets_and_not_two() {
    let lab = Lab::new();
    let a = path("192.0.2.1:1000");
    let rotate = |minutes: u64, secret| lab.udp.rotate_secrets(NOW + minutes * 60 * SECOND, || [secret; 32]);
    let answer = lab.challenge(0, 1, a);
    rotate(2, 4);
    assert!(matches!(lab.answer(0, answer, a), Action::Bound { .. }));
    let answer = lab.challenge(0, 2, a);
    rotate(4, 5);
    rotate(6, 6);
    assert_eq!(lab.answer(0, answer, a), Action::Drop(Counter::UdpBadChallenge));
}

#[test]
fn every_malformed_control_packet_has_its_reason() {
    let lab = Lab::new();
    let (a, [client, other]) = (path("192.0.2.1:1000"), &lab.clients);
    let good = client.bind(lab.vni, 1);
    let sealed = |bind| client.message(BindKind::Bind, bind);
    let cases: Vec<(Vec<u8>, Counter)> = vec![
        (sealed(Bind { generation: 0, ..good }), Counter::UdpGeneration),
        (sealed(Bind { remote_key: client.key, ..good }), Counter::UdpMismatch),
        (client.message(BindKind::Challenge, good), Counter::UdpBadMessage),
        (change(sealed(good), 100, 1), Counter::UdpBadBox),
        (change(sealed(good), GENEVE_LEN + 6, 1), Counter::UdpUnknownSender),
        (change(sealed(good), GENEVE_LEN, 1), Counter::UdpNotDisco),
        (sealed(good)[..GENEVE_LEN + 61].to_vec(), Counter::UdpNotDisco),
        (sealed(good)[..GENEVE_LEN + 70].to_vec(), Counter::UdpBadBox),
        (change(sealed(good), 6, 0x40), Counter::UdpUnknownVni),
        (
            seal_control(BindKind::Bind, &good, &client.key, &other.shared, &[7; NONCE_LEN]),
            Counter::UdpBadBox,
        ),
    ];
    for (index, (datagram, reason)) in cases.into_iter().enumerate() {
        assert_eq!(lab.decide(&datagram, a), Action::Drop(reason), "case {index}");
    }
    // The outer VNI is not sealed, so it may name another session; the inner VNI decides.
    let inner = Bind { vni: Vni::new(77).expect("a VNI"), ..good };
    let mut datagram = sealed(inner);
    datagram[4..8].copy_from_slice(&(lab.vni.get() << 8).to_be_bytes());
    assert_eq!(lab.decide(&datagram, a), Action::Drop(Counter::UdpMismatch));
}

#[test]
fn every_malformed_header_has_its_reason() {
    let lab = Lab::new();
    let a = path("192.0.2.1:1000");
    let data = lab.data(Protocol::WireGuard);
    for len in 0..GENEVE_LEN {
        assert_eq!(lab.decide(&data[..len], a), Action::Drop(Counter::UdpShort));
    }
    let cases = [
        (0, 0x40, Counter::UdpVersion),
        (0, 0x01, Counter::UdpOptions),
        (1, 0x40, Counter::UdpReserved),
        (1, 0x01, Counter::UdpReserved),
        (7, 0x01, Counter::UdpReserved),
        (3, 0x01, Counter::UdpProtocol),
        (1, 0x80, Counter::UdpProtocol),
    ];
    for (at, bits, reason) in cases {
        assert_eq!(lab.decide(&change(data.clone(), at, bits), a), Action::Drop(reason), "byte {at}");
    }
}

#[test]
fn keys_that_seal_for_nobody_get_no_session() {
    let lab = Lab::new();
    let good = lab.clients[0].key;
    let mut small = [0; 32];
    small[0] = 1;
    for wrong in [DiscoPublic::from_bytes([0; 32]), DiscoPublic::from_bytes(small), lab.udp.public()] {
        for pair in [[good, wrong], [wrong, good]] {
            assert_eq!(lab.router.allocate(pair, NOW).expect_err("refused"), Refusal::BadPair);
        }
    }
}

fn change(mut datagram: Vec<u8>, at: usize, bits: u8) -> Vec<u8> {
    datagram[at] ^= bits;
    datagram
}
