//! Compares disco messages with known answers, and tests every wrong shape.

use super::*;
use crate::{
    disco::{CONTROL_LEN, Envelope, OVERHEAD, seal_control},
    geneve::{self, Protocol, Vni},
    key::{DiscoPrivate, DiscoPublic, NodePublic},
};
use core::{array::from_fn, net::SocketAddr, time::Duration};
use proptest::prelude::*;

/// A's Bind message for the session with B, sent to server S (made with another implementation of NaCl).
const KNOWN: &str = concat!(
    "00807a110000ab005453f09f92ac07a37cbc142093c8b755dc1b10e86cb42637",
    "4ad16aa853ed0bdfc0b2b86d1c7ca0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1",
    "b2b3b4b5b6b71b9c9d8ba5470ff3647b8e9235163df402d9c9823d34878dea06",
    "1bf75cacd86e4af4dccfb310854d1983724331fa7c36044ec4df2ebd1247990e",
    "1add2368b0977536e6da69b0444a29974f034a89178557aa10dfa29885a4187f"
);

fn private(first: u8) -> DiscoPrivate {
    DiscoPrivate::from_bytes(from_fn(|i| first + i as u8))
}

fn bind() -> Bind {
    let vni = Vni::new(0xab).expect("in range");
    Bind { vni, generation: 7, remote_key: private(0x21).public(), challenge: [0; 32] }
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn endpoint(addr_ports: Vec<SocketAddr>) -> ServerEndpoint {
    ServerEndpoint {
        server_disco: DiscoPublic::from_bytes([3; 32]),
        client_disco: [DiscoPublic::from_bytes([1; 32]), DiscoPublic::from_bytes([2; 32])],
        lamport_id: 9,
        addr_ports,
        vni: Vni::MAX,
        bind_lifetime: Duration::from_secs(30),
        steady_state_lifetime: Duration::from_secs(300),
    }
}

#[test]
fn the_known_keys_and_bind_come_out() {
    let hex = |key: DiscoPublic| key.hex();
    assert_eq!(
        hex(private(0x01).public()),
        "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"
    );
    assert_eq!(
        hex(private(0x21).public()),
        "5869aff450549732cbaaed5e5df9b30a6da31cb0e5742bad5ad4a1a768f1a67b"
    );
    assert_eq!(
        hex(private(0x41).public()),
        "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466"
    );
    let shared = private(0x01).shared(&private(0x41).public()).expect("an honest key");
    let nonce = from_fn(|i| 0xa0 + i as u8);
    let payload = seal_control(BindKind::Bind, &bind(), &private(0x01).public(), &shared, &nonce);
    assert_eq!(payload.len(), CONTROL_LEN);
    assert_eq!(payload.len(), 160);
    assert_eq!(payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), KNOWN);
}

#[test]
fn the_known_bind_is_read_from_the_wire() {
    let digit = |d: u8| (d as char).to_digit(16).expect("a hex digit") as u8;
    let payload: Vec<u8> =
        KNOWN.as_bytes().as_chunks::<2>().0.iter().map(|[a, b]| digit(*a) << 4 | digit(*b)).collect();
    let (geneve, packet) = geneve::parse(&payload).expect("Geneve");
    assert_eq!((geneve.control, geneve.protocol, geneve.vni), (true, Protocol::Disco, bind().vni));
    let envelope = Envelope::parse(packet).expect("disco");
    assert_eq!(*envelope.sender, private(0x01).public());
    let shared = private(0x41).shared(envelope.sender).expect("an honest key");
    let plain = shared.open(envelope.nonce, envelope.sealed).expect("it opens");
    assert_eq!(Bind::parse(&plain), Ok((BindKind::Bind, bind())));
    assert_eq!(shared.open(envelope.nonce, envelope.sealed).as_deref(), Some(&plain[..]));
}

#[test]
fn all_three_bind_messages_have_one_length_and_tolerate_more() {
    for kind in [BindKind::Bind, BindKind::Challenge, BindKind::Answer] {
        let bind = Bind { challenge: [6; 32], ..bind() };
        let mut plain = bind.encode(kind).to_vec();
        assert_eq!(plain.len(), 74);
        plain.extend(b"future");
        assert_eq!(Bind::parse(&plain), Ok((kind, bind)));
        assert_eq!(Message::parse(&plain), Ok(Message::Bind(kind, bind)));
        plain[1] = 9;
        assert_eq!(Bind::parse(&plain), Ok((kind, bind)), "a later version only appends");
        for len in 0..74 {
            assert_eq!(Bind::parse(&plain[..len]), Err(MessageError::Length), "{len} bytes");
        }
    }
}

#[test]
fn a_bind_of_no_session_or_another_type_is_refused() {
    let mut plain = bind().encode(BindKind::Answer);
    for number in [0, 1 << 24, u32::MAX] {
        plain[2..6].copy_from_slice(&number.to_be_bytes());
        assert_eq!(Bind::parse(&plain), Err(MessageError::Vni));
    }
    for kind in [0x00, 0x01, 0x03, 0x07, 0xff] {
        plain[0] = kind;
        assert_eq!(Bind::parse(&plain), Err(MessageError::Type(kind)));
    }
}

#[test]
fn messages_have_the_sizes_upstream_gives_them() {
    let ping = Ping { tx_id: [1; 12], node_key: Some(NodePublic::from_bytes([5; 32])), padding: 0 };
    assert_eq!(encoded(&Message::Ping(ping)).len(), 46);
    let pong = Pong { tx_id: [1; 12], src: ([192, 0, 2, 1], 7).into() };
    assert_eq!(encoded(&Message::Pong(pong)).len(), 32);
    let request = AllocateRequest { client_disco: endpoint(vec![]).client_disco, generation: 1 };
    assert_eq!(OVERHEAD + encoded(&Message::AllocateRequest(request)).len(), 148);
    for n in 1..4 {
        let endpoint = endpoint(vec![([192, 0, 2, 1], 7).into(); n]);
        let response = AllocateResponse { generation: 1, endpoint: endpoint.clone() };
        assert_eq!(OVERHEAD + encoded(&Message::AllocateResponse(response)).len(), 208 + 18 * n);
        assert_eq!(OVERHEAD + encoded(&Message::CallMeMaybeVia(endpoint)).len(), 204 + 18 * n);
    }
}

#[test]
fn a_zero_node_key_in_a_ping_is_padding() {
    let mut plain = vec![0x01, 0x00];
    plain.extend([7; 12]);
    for (extra, padding) in [(0, 0), (5, 5), (31, 31), (32, 32), (40, 40)] {
        plain.truncate(14);
        plain.resize(14 + extra, 0);
        let ping = Ping { tx_id: [7; 12], node_key: None, padding };
        assert_eq!(Message::parse(&plain), Ok(Message::Ping(ping)));
    }
    plain[14] = 1;
    let Ok(Message::Ping(ping)) = Message::parse(&plain) else { panic!("a ping") };
    assert_eq!((ping.node_key.is_some(), ping.padding), (true, 8));
    assert_eq!(Message::parse(&plain[..13]), Err(MessageError::Length));
}

#[test]
fn endpoints_of_a_wrong_shape_are_refused() {
    let message = Message::CallMeMaybeVia(endpoint(vec![([192, 0, 2, 1], 7).into()]));
    let plain = encoded(&message);
    for len in 0..plain.len() {
        assert_eq!(Message::parse(&plain[..len]), Err(MessageError::Length), "{len} bytes");
    }
    assert_eq!(Message::parse(&[&plain[..], &[0]].concat()), Err(MessageError::Length));
    let with = |index: usize, byte: u8| {
        let mut bad = plain.clone();
        bad[index] = byte;
        Message::parse(&bad)
    };
    assert_eq!(with(1, 1), Err(MessageError::Version(1)));
    assert_eq!(with(2 + 104, 1), Err(MessageError::Vni));
    assert_eq!(with(2 + 108, 0x80), Err(MessageError::Lifetime));
    assert_eq!(with(0, 0x03), Err(MessageError::Type(0x03)));
}

fn messages() -> impl Strategy<Value = Message> {
    let key = || any::<[u8; 32]>();
    let addr =
        || (any::<core::net::IpAddr>(), any::<u16>()).prop_map(|(ip, port)| (ip.to_canonical(), port).into());
    let endpoint = || {
        let ids = (1u32..1 << 24, any::<u64>(), 0..=i64::MAX as u64, 0..=i64::MAX as u64);
        (key(), key(), key(), ids, prop::collection::vec(addr(), 1..5)).prop_map(
            |(s, a, b, ids, addr_ports)| {
                let (vni, lamport_id, bind, steady) = ids;
                ServerEndpoint {
                    server_disco: DiscoPublic::from_bytes(s),
                    client_disco: [DiscoPublic::from_bytes(a), DiscoPublic::from_bytes(b)],
                    lamport_id,
                    addr_ports,
                    vni: Vni::new(vni).expect("in range"),
                    bind_lifetime: Duration::from_nanos(bind),
                    steady_state_lifetime: Duration::from_nanos(steady),
                }
            },
        )
    };
    prop_oneof![
        (4u8..7, 1u32..1 << 24, any::<u32>(), key(), key()).prop_map(
            |(kind, vni, generation, remote, challenge)| {
                let (kind, vni) =
                    (BindKind::from_u8(kind).expect("a bind"), Vni::new(vni).expect("in range"));
                Message::Bind(
                    kind,
                    Bind { vni, generation, remote_key: DiscoPublic::from_bytes(remote), challenge },
                )
            }
        ),
        (any::<[u8; 12]>(), prop::option::of(key()), 0usize..100).prop_map(|(tx_id, node_key, padding)| {
            let node_key = node_key.map(NodePublic::from_bytes).filter(|key| !key.is_zero());
            Message::Ping(Ping { tx_id, node_key, padding })
        }),
        (any::<[u8; 12]>(), addr()).prop_map(|(tx_id, src)| Message::Pong(Pong { tx_id, src })),
        (key(), key(), any::<u32>()).prop_map(|(a, b, generation)| {
            let client_disco = [DiscoPublic::from_bytes(a), DiscoPublic::from_bytes(b)];
            Message::AllocateRequest(AllocateRequest { client_disco, generation })
        }),
        (any::<u32>(), endpoint()).prop_map(|(generation, endpoint)| {
            Message::AllocateResponse(AllocateResponse { generation, endpoint })
        }),
        endpoint().prop_map(Message::CallMeMaybeVia),
    ]
}

proptest! {
    #[test]
    fn every_message_survives_a_round_trip(message in messages()) {
        prop_assert_eq!(Message::parse(&encoded(&message)), Ok(message));
    }

    #[test]
    fn what_parses_from_any_bytes_encodes_to_something_that_parses_alike(
        kind in 0u8..11,
        body in prop::collection::vec(any::<u8>(), 0..220),
    ) {
        let plain = [&[kind, 0][..], &body].concat();
        if let Ok(message) = Message::parse(&plain) {
            prop_assert_eq!(Message::parse(&encoded(&message)), Ok(message));
        }
    }
}
