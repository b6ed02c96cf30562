//! Compares the challenge with a known answer, and tests which inputs it depends on.

use super::*;
use core::array::from_fn;

const B: [u8; 32] = [
    0x58, 0x69, 0xaf, 0xf4, 0x50, 0x54, 0x97, 0x32, 0xcb, 0xaa, 0xed, 0x5e, 0x5d, 0xf9, 0xb3, 0x0a, 0x6d,
    0xa3, 0x1c, 0xb0, 0xe5, 0x74, 0x2b, 0xad, 0x5a, 0xd4, 0xa1, 0xa7, 0x68, 0xf1, 0xa6, 0x7b,
];

fn vni(number: u32) -> Vni {
    Vni::new(number).expect("in range")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn token(source: &str) -> Token<'static> {
    const KEY: &DiscoPublic = &DiscoPublic::from_bytes(B);
    Token { vni: vni(1), generation: 1, remote_key: KEY, source: addr(source), local: addr("192.0.2.9:7777") }
}

/// All tokens that differ from `token` in one field.
fn others(token: Token<'static>) -> [Token<'static>; 6] {
    const ZERO: &DiscoPublic = &DiscoPublic::from_bytes([0; 32]);
    [
        Token { vni: vni(2), ..token },
        Token { generation: 2, ..token },
        Token { remote_key: ZERO, ..token },
        Token { source: addr("192.0.2.1:2"), ..token },
        Token { local: addr("192.0.2.8:7777"), ..token },
        Token { local: addr("192.0.2.9:7778"), ..token },
    ]
}

#[test]
fn the_known_challenge_comes_out() {
    let token = Token { vni: vni(0xab), generation: 7, ..token("192.0.2.1:41641") };
    // From another implementation of BLAKE2s (Python's hashlib).
    let known = [
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x27, 0x9c, 0xe3, 0x0b, 0x72, 0x98, 0x68, 0x97, 0x17,
        0x12, 0xcf, 0x99, 0x5f, 0x63, 0xe7, 0xff, 0x4c, 0x15, 0xfb, 0x0b, 0x10, 0x92, 0xf9, 0xb9,
    ];
    assert_eq!(make(&from_fn(|i| i as u8), &token, 3), known);
}

#[test]
fn a_challenge_depends_on_every_input() {
    let one = token("192.0.2.1:1");
    let mut all = vec![make(&[1; 32], &one, 1), make(&[2; 32], &one, 1), make(&[1; 32], &one, 2)];
    all.extend(others(one).iter().map(|other| make(&[1; 32], other, 1)));
    for source in ["192.0.2.2:1", "[fe80::1]:1", "[fe80::1%2]:1"] {
        all.push(make(&[1; 32], &token(source), 1));
    }
    for (i, one) in all.iter().enumerate() {
        for other in &all[..i] {
            assert_ne!(one[8..], other[8..]);
        }
    }
}

#[test]
fn a_challenge_outlives_one_rotation_and_not_two() {
    let token = token("192.0.2.1:1");
    let first = Secrets::new(0, [1; 32]);
    let challenge = first.challenge(&token, 9);
    assert_eq!(first.verify(&token, &challenge), Some(9));
    assert!(first.rotated(ROTATION_NS - 1, [2; 32]).is_none());
    let second = first.rotated(ROTATION_NS, [2; 32]).expect("due");
    assert_eq!(second.verify(&token, &challenge), Some(9));
    assert_ne!(second.challenge(&token, 9), challenge);
    assert!(!second.is_due(2 * ROTATION_NS - 1));
    let third = second.rotated(2 * ROTATION_NS, [3; 32]).expect("due");
    assert_eq!(third.verify(&token, &challenge), None);
    assert!(!second.is_due(0), "a clock that goes back rotates nothing");
}

#[test]
fn a_challenge_answers_only_for_what_it_was_made_for() {
    let token = token("192.0.2.1:1");
    let secrets = Secrets::new(0, [1; 32]);
    let challenge = secrets.challenge(&token, 1);
    for other in others(token) {
        assert_eq!(secrets.verify(&other, &challenge), None, "{other:?}");
    }
    assert_eq!(secrets.verify(&token, &[0; 32]), None);
    let mut renumbered = challenge;
    renumbered[7] = 2;
    assert_eq!(secrets.verify(&token, &renumbered), None, "the number is a part of it");
}

#[test]
fn debug_shows_no_secret() {
    assert_eq!(format!("{:?}", Secrets::new(3, [0x42; 32])), "Secrets { rotated_ns: 3, .. }");
}
