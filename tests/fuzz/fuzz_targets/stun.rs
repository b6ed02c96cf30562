//! STUN: only STUN requests are answered, and every answer parses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_common::stun::{
    MAX_RESPONSE_LEN, binding_response, is_stun, parse_binding_request, parse_binding_response,
};
use std::net::{Ipv6Addr, SocketAddr};

fuzz_target!(|payload: &[u8]| {
    if let Ok(tx) = parse_binding_request(payload) {
        assert!(is_stun(payload));
        assert_eq!(tx.0, payload[8..20]);
        // Any address is good enough, so this one comes from the request's own bytes.
        let ip = Ipv6Addr::from(*payload.first_chunk::<16>().expect("STUN has 20 bytes"));
        let addr = SocketAddr::new(ip.to_canonical(), u16::from_be_bytes([tx.0[0], tx.0[1]]));
        let mut out = [0; MAX_RESPONSE_LEN];
        let len = binding_response(tx, addr, &mut out);
        assert_eq!(parse_binding_response(&out[..len]), Some((tx, addr)));
    }
    if let Some((tx, _)) = parse_binding_response(payload) {
        assert_eq!(tx.0, payload[8..20]);
    }
});
