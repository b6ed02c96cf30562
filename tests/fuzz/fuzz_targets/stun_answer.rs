//! Answers of STUN servers: the attributes behind a right header, as a hostile server would send them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_common::stun::{
    HEADER_LEN, MAX_RESPONSE_LEN, TxId, binding_response, is_answer, parse_binding_response,
};

fuzz_target!(|input: (u16, [u8; 12], &[u8])| {
    let (length, tx, attributes) = input;
    // Half of the inputs have a header that fits, so that the attributes are reached.
    let length = if length % 2 == 0 { attributes.len().min(usize::from(u16::MAX)) as u16 } else { length };
    let mut payload = vec![1, 1];
    payload.extend(length.to_be_bytes());
    payload.extend([0x21, 0x12, 0xa4, 0x42]);
    payload.extend(tx);
    payload.extend(attributes);
    assert!(is_answer(&payload));
    let Some((read, addr)) = parse_binding_response(&payload) else { return };
    assert_eq!(read, TxId(tx));
    assert!(usize::from(length) <= attributes.len(), "it reads no further than the datagram");
    assert_eq!(addr.ip(), addr.ip().to_canonical());
    // What is behind the length in the header is not read.
    let end = HEADER_LEN + usize::from(length);
    assert_eq!(parse_binding_response(&payload[..end]), Some((read, addr)));
    // A server that sees this address says the same in the usual form.
    let mut usual = [0; MAX_RESPONSE_LEN];
    let len = binding_response(read, addr, &mut usual);
    assert_eq!(parse_binding_response(&usual[..len]), Some((read, addr)));
});
