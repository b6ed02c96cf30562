//! A message that parses from any frame encodes to its announced length, and the encoded frame parses to the
//! same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_common::derp::{
    frame::Header,
    message::{FromClient, FromServer},
};

fn split(frame: &[u8]) -> (Header, &[u8]) {
    let (header, body) = frame.split_first_chunk().expect("an encoder writes a header");
    let header = Header::decode(header);
    assert_eq!(header.len as usize, body.len());
    (header, body)
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, payload)) = input.split_first() else { return };
    let header = Header { kind: kind % 0x18, len: payload.len() as u32 };
    let mut frame = Vec::new();
    if let Ok(message) = FromClient::parse(header, payload) {
        message.encode(&mut frame);
        assert_eq!(frame.len(), message.encoded_len());
        let (header, body) = split(&frame);
        assert_eq!(FromClient::parse(header, body), Ok(message));
    }
    frame.clear();
    if let Ok(message) = FromServer::parse(header, payload) {
        message.encode(&mut frame);
        assert_eq!(frame.len(), message.encoded_len());
        let (header, body) = split(&frame);
        assert_eq!(FromServer::parse(header, body), Ok(message));
    }
});
