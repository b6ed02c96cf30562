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

#[test]
fn the_known_challenge_comes_out() {
    let mac = mac(&from_fn(|i| i as u8), vni(0xab), 7, &DiscoPublic::from_bytes(B), addr("192.0.2.1:41641"));
    assert_eq!(
        mac,
        [
            0x6a, 0xf3, 0x91, 0x9d, 0x82, 0xbb, 0xd7, 0xbb, 0x23, 0x3b, 0x00, 0xa3, 0xe4, 0xf7, 0xb5, 0xce,
            0xc6, 0x91, 0x48, 0x45, 0x17, 0x06, 0x39, 0xda, 0x7c, 0xfc, 0xf4, 0x27, 0x5c, 0xa8, 0x5e, 0xda,
        ]
    );
}

#[test]
fn a_challenge_depends_on_every_input() {
    let key = DiscoPublic::from_bytes(B);
    let all = [
        mac(&[1; 32], vni(1), 1, &key, addr("192.0.2.1:1")),
        mac(&[2; 32], vni(1), 1, &key, addr("192.0.2.1:1")),
        mac(&[1; 32], vni(2), 1, &key, addr("192.0.2.1:1")),
        mac(&[1; 32], vni(1), 2, &key, addr("192.0.2.1:1")),
        mac(&[1; 32], vni(1), 1, &DiscoPublic::default(), addr("192.0.2.1:1")),
        mac(&[1; 32], vni(1), 1, &key, addr("192.0.2.2:1")),
        mac(&[1; 32], vni(1), 1, &key, addr("192.0.2.1:2")),
        mac(&[1; 32], vni(1), 1, &key, addr("[fe80::1]:1")),
        mac(&[1; 32], vni(1), 1, &key, addr("[fe80::1%2]:1")),
    ];
    for (i, one) in all.iter().enumerate() {
        for other in &all[..i] {
            assert_ne!(one, other);
        }
    }
}

#[test]
fn a_challenge_outlives_one_rotation_and_not_two() {
    let (key, src) = (DiscoPublic::from_bytes(B), addr("192.0.2.1:1"));
    let first = Secrets::new(0, [1; 32]);
    let challenge = first.challenge(vni(1), 1, &key, src);
    assert!(first.verify(vni(1), 1, &key, src, &challenge));
    assert!(first.rotated(ROTATION_NS - 1, [2; 32]).is_none());
    let second = first.rotated(ROTATION_NS, [2; 32]).expect("due");
    assert!(second.verify(vni(1), 1, &key, src, &challenge));
    assert_ne!(second.challenge(vni(1), 1, &key, src), challenge);
    assert!(!second.is_due(2 * ROTATION_NS - 1));
    let third = second.rotated(2 * ROTATION_NS, [3; 32]).expect("due");
    assert!(!third.verify(vni(1), 1, &key, src, &challenge));
    assert!(!second.is_due(0), "a clock that goes back rotates nothing");
}

#[test]
fn a_challenge_answers_only_for_its_own_session_attempt_and_address() {
    let (key, src) = (DiscoPublic::from_bytes(B), addr("192.0.2.1:1"));
    let secrets = Secrets::new(0, [1; 32]);
    let challenge = secrets.challenge(vni(1), 1, &key, src);
    assert!(!secrets.verify(vni(2), 1, &key, src, &challenge));
    assert!(!secrets.verify(vni(1), 2, &key, src, &challenge));
    assert!(!secrets.verify(vni(1), 1, &DiscoPublic::default(), src, &challenge));
    assert!(!secrets.verify(vni(1), 1, &key, addr("192.0.2.1:2"), &challenge));
    assert!(!secrets.verify(vni(1), 1, &key, src, &[0; 32]));
}

#[test]
fn debug_shows_no_secret() {
    assert_eq!(format!("{:?}", Secrets::new(3, [0x42; 32])), "Secrets { rotated_ns: 3, .. }");
}
