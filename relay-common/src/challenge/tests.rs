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
    Token { vni: vni(1), generation: 1, remote_key: KEY, binds: 0, source: addr(source) }
}

/// All tokens that differ from `token` in one field.
fn others(token: Token<'static>) -> [Token<'static>; 5] {
    const ZERO: &DiscoPublic = &DiscoPublic::from_bytes([0; 32]);
    [
        Token { vni: vni(2), ..token },
        Token { generation: 2, ..token },
        Token { remote_key: ZERO, ..token },
        Token { binds: 1, ..token },
        Token { source: addr("192.0.2.1:2"), ..token },
    ]
}

#[test]
fn the_known_challenge_comes_out() {
    let token = Token { vni: vni(0xab), generation: 7, binds: 3, ..token("192.0.2.1:41641") };
    // From another implementation of BLAKE2s (Python's hashlib).
    let known = [
        0x01, 0xf0, 0xd1, 0x27, 0x24, 0x0f, 0x67, 0xd7, 0xcc, 0x9d, 0x58, 0x0b, 0x47, 0x1f, 0xf4, 0xfe, 0x8d,
        0x3f, 0xbf, 0xb8, 0xf8, 0x0d, 0xe3, 0x5e, 0x2b, 0x06, 0xc7, 0x3e, 0xb5, 0x4e, 0xfb, 0x36,
    ];
    assert_eq!(mac(&from_fn(|i| i as u8), &token), known);
}

#[test]
fn a_challenge_depends_on_every_input() {
    let one = token("192.0.2.1:1");
    let mut all = vec![mac(&[1; 32], &one), mac(&[2; 32], &one)];
    all.extend(others(one).iter().map(|other| mac(&[1; 32], other)));
    for source in ["192.0.2.2:1", "[fe80::1]:1", "[fe80::1%2]:1"] {
        all.push(mac(&[1; 32], &token(source)));
    }
    for (i, one) in all.iter().enumerate() {
        for other in &all[..i] {
            assert_ne!(one, other);
        }
    }
}

#[test]
fn a_challenge_outlives_one_rotation_and_not_two() {
    let token = token("192.0.2.1:1");
    let first = Secrets::new(0, [1; 32]);
    let challenge = first.challenge(&token);
    assert!(first.verify(&token, &challenge));
    assert!(first.rotated(ROTATION_NS - 1, [2; 32]).is_none());
    let second = first.rotated(ROTATION_NS, [2; 32]).expect("due");
    assert!(second.verify(&token, &challenge));
    assert_ne!(second.challenge(&token), challenge);
    assert!(!second.is_due(2 * ROTATION_NS - 1));
    let third = second.rotated(2 * ROTATION_NS, [3; 32]).expect("due");
    assert!(!third.verify(&token, &challenge));
    assert!(!second.is_due(0), "a clock that goes back rotates nothing");
}

#[test]
fn a_challenge_answers_only_for_what_it_was_made_for() {
    let token = token("192.0.2.1:1");
    let secrets = Secrets::new(0, [1; 32]);
    let challenge = secrets.challenge(&token);
    for other in others(token) {
        assert!(!secrets.verify(&other, &challenge), "{other:?}");
    }
    assert!(!secrets.verify(&token, &[0; 32]));
}

#[test]
fn debug_shows_no_secret() {
    assert_eq!(format!("{:?}", Secrets::new(3, [0x42; 32])), "Secrets { rotated_ns: 3, .. }");
}
