//! Compares STUN with known answers, and tests every request that gets no answer.

use super::*;
use proptest::prelude::*;

const REQUEST: [u8; 40] = [
    0x00, 0x01, 0x00, 0x14, 0x21, 0x12, 0xa4, 0x42, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x80, 0x22, 0x00,
    0x08, 0x74, 0x61, 0x69, 0x6c, 0x6e, 0x6f, 0x64, 0x65, 0x80, 0x28, 0x00, 0x04, 0x8a, 0xab, 0xad, 0x90,
];
const TX: TxId = TxId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);

fn response(addr: &str) -> Vec<u8> {
    let mut out = [0; MAX_RESPONSE_LEN];
    let len = binding_response(TX, addr.parse().expect("an address"), &mut out);
    out[..len].to_vec()
}

/// A request with these attributes, followed by a correct fingerprint.
fn request(attributes: &[u8]) -> Vec<u8> {
    let mut out = REQUEST[..HEADER_LEN].to_vec();
    out.extend_from_slice(attributes);
    let fingerprint = fingerprint(&out);
    out.extend_from_slice(&[0x80, 0x28, 0, 4]);
    out.extend_from_slice(&fingerprint);
    out
}

#[test]
fn the_crc_is_the_well_known_one() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(b""), 0);
}

#[test]
fn the_known_request_is_read_and_written() {
    assert_eq!(parse_binding_request(&REQUEST), Ok(TX));
    assert_eq!(binding_request(TX), REQUEST);
}

#[test]
fn the_known_responses_come_out() {
    let header = [1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    let v4 = [0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0x25, 0x13, 0xe1, 0x12, 0xa6, 0x43];
    assert_eq!(response("192.0.2.1:1025"), [&header[..], &v4].concat());
    assert_eq!(response("[::ffff:192.0.2.1]:1025"), response("192.0.2.1:1025"));
    let v6 = [
        0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0x25, 0x13, 0x01, 0x13, 0xa9, 0xfa, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
        10, 10,
    ];
    let mut wanted = [&header[..], &v6].concat();
    wanted[3] = 24;
    assert_eq!(response("[2001:db8::1]:1025"), wanted);
}

#[test]
fn what_is_not_stun_is_told_apart() {
    for len in 0..HEADER_LEN {
        assert_eq!(parse_binding_request(&REQUEST[..len]), Err(StunError::NotStun));
    }
    for (index, bit) in [(0, 0x40), (0, 0x80), (4, 1), (5, 1), (6, 1), (7, 1)] {
        let mut bad = REQUEST;
        bad[index] ^= bit;
        assert!(!is_stun(&bad));
        assert_eq!(parse_binding_request(&bad), Err(StunError::NotStun));
    }
    for (index, bit) in [(0, 0x01), (0, 0x20), (1, 0x01), (1, 0x10)] {
        let mut bad = REQUEST;
        bad[index] ^= bit;
        assert!(is_stun(&bad));
        assert_eq!(parse_binding_request(&bad), Err(StunError::NotRequest));
    }
}

#[test]
fn a_request_needs_the_software_and_a_right_fingerprint_last() {
    let software = &REQUEST[HEADER_LEN..32];
    assert_eq!(parse_binding_request(&request(software)), Ok(TX));
    assert_eq!(parse_binding_request(&request(&[])), Err(StunError::Software));
    let mut other = software.to_vec();
    other[4] = b'T';
    assert_eq!(parse_binding_request(&request(&other)), Err(StunError::Software));
    // Another attribute before it and a second software attribute make no difference.
    let odd = [&[0x00, 0x06, 0x00, 0x01, 9, 0, 0, 0][..], software, &other].concat();
    assert_eq!(parse_binding_request(&request(&odd)), Ok(TX));
    let after = [&REQUEST[..], &[0x00, 0x06, 0x00, 0x00]].concat();
    assert_eq!(parse_binding_request(&after), Err(StunError::Fingerprint), "not last");
    assert_eq!(parse_binding_request(&REQUEST[..32]), Err(StunError::Fingerprint), "missing");
    for index in [2, 8, 19, 36, 39] {
        let mut bad = REQUEST;
        bad[index] ^= 1;
        assert_eq!(parse_binding_request(&bad), Err(StunError::Fingerprint), "byte {index}");
    }
}

#[test]
fn an_attribute_cut_short_is_refused() {
    for len in HEADER_LEN + 1..REQUEST.len() {
        let wanted = if len == 32 { StunError::Fingerprint } else { StunError::Attribute };
        assert_eq!(parse_binding_request(&REQUEST[..len]), Err(wanted), "{len} bytes");
    }
    assert_eq!(parse_binding_request(&REQUEST[..20]), Err(StunError::Software));
    let mut long = REQUEST;
    long[34..36].copy_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(parse_binding_request(&long), Err(StunError::Attribute));
}

#[test]
fn the_answer_of_older_servers_to_ipv4_is_understood() {
    let mut old = response("[2001:db8::1]:1025");
    let mapped = [0x21, 0x12, 0xa4, 0x42, 0, 1, 2, 3, 4, 5, 0xf9, 0xf8, 0xc8, 9, 8, 10];
    old[28..].copy_from_slice(&mapped);
    assert_eq!(parse_binding_response(&old), Some((TX, "192.0.2.1:1025".parse().expect("an address"))));
    assert_eq!(parse_binding_response(&REQUEST), None);
    assert_eq!(parse_binding_response(&old[..40]), None);
}

/// A response with these attributes.
fn answer(attributes: &[&[u8]]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut out = REQUEST[..HEADER_LEN].to_vec();
    out[..2].copy_from_slice(&BINDING_SUCCESS);
    out[2..4].copy_from_slice(&(attributes.len() as u16).to_be_bytes());
    [out, attributes].concat()
}

const XOR_V4: &[u8] = &[0x00, 0x20, 0, 8, 0, 1, 0x25, 0x13, 0xe1, 0x12, 0xa6, 0x43];
const OLD_XOR_V4: &[u8] = &[0x80, 0x20, 0, 8, 0, 1, 0x25, 0x13, 0xe1, 0x12, 0xa6, 0x44];
const PLAIN_V4: &[u8] = &[0x00, 0x01, 0, 8, 0, 1, 0x04, 0x02, 203, 0, 113, 9];
const OTHER: &[u8] = &[0x80, 0x22, 0, 3, b'x', b'y', b'z', 0];

#[test]
fn the_hidden_address_goes_before_the_plain_one() {
    let addr = |text: &str| Some((TX, text.parse().expect("an address")));
    for (attributes, told) in [
        (&[XOR_V4][..], addr("192.0.2.1:1025")),
        (&[PLAIN_V4, OTHER, XOR_V4], addr("192.0.2.1:1025")),
        (&[XOR_V4, PLAIN_V4], addr("192.0.2.1:1025")),
        (&[OLD_XOR_V4, PLAIN_V4], addr("192.0.2.6:1025")),
        (&[OTHER, PLAIN_V4, OTHER], addr("203.0.113.9:1026")),
        (&[OTHER], None),
        (&[], None),
    ] {
        assert_eq!(parse_binding_response(&answer(attributes)), told, "{attributes:?}");
    }
}

#[test]
fn an_answer_that_is_cut_or_lies_about_a_length_is_refused() {
    let good = answer(&[OTHER, XOR_V4]);
    for len in 0..good.len() {
        assert_eq!(parse_binding_response(&good[..len]), None, "{len} bytes");
    }
    let followed = [&good[..], &[1, 2, 3]].concat();
    assert_eq!(parse_binding_response(&followed), parse_binding_response(&good), "what follows is ignored");
    // (byte, value): the header's length, an attribute's, the family of an address, and its length.
    for (at, value) in [(3, 21), (3, 8), (23, 40), (33, 3), (33, 2), (31, 4), (31, 3), (31, 0)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(parse_binding_response(&bad), None, "byte {at} = {value}");
    }
    let mut v6 = answer(&[&[0, 0x20, 0, 20, 0, 2, 0, 0], &[7; 16]]);
    assert!(parse_binding_response(&v6).is_some());
    v6[23] = 16;
    assert_eq!(parse_binding_response(&v6), None, "an IPv6 address of 12 bytes");
}

#[test]
fn an_answer_is_told_from_what_the_relay_forwards() {
    assert!(is_answer(&answer(&[XOR_V4])));
    assert!(is_answer(&REQUEST), "upstream hands requests to its client too, which refuses them");
    let mut other = answer(&[XOR_V4]);
    other[1] = 0x11;
    assert!(!is_answer(&other), "an error response");
    assert!(!is_answer(&answer(&[])[..HEADER_LEN - 1]));
}

proptest! {
    #[test]
    fn every_request_and_response_is_understood(
        tx in any::<[u8; 12]>(),
        ip in any::<core::net::IpAddr>(),
        port in any::<u16>(),
    ) {
        let tx = TxId(tx);
        prop_assert_eq!(parse_binding_request(&binding_request(tx)), Ok(tx));
        let mut out = [0xff; MAX_RESPONSE_LEN];
        let addr = SocketAddr::new(ip.to_canonical(), port);
        let len = binding_response(tx, addr, &mut out);
        prop_assert_eq!(len, if addr.is_ipv4() { 32 } else { 44 });
        prop_assert_eq!(usize::from(u16::from_be_bytes([out[2], out[3]])), len - HEADER_LEN);
        prop_assert_eq!(parse_binding_response(&out[..len]), Some((tx, addr)));
    }

    #[test]
    fn no_bytes_panic_the_readers(
        mut bytes in prop::collection::vec(any::<u8>(), 0..120),
        kind in 0u8..2,
    ) {
        if let Some(start) = bytes.get_mut(..8) {
            start.copy_from_slice(&[kind, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        }
        let _ = parse_binding_request(&bytes);
        let _ = parse_binding_response(&bytes);
    }
}
