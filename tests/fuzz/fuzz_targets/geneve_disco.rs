//! A UDP payload of the relay port, and the content of its box.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_common::{
    disco::{
        Envelope, is_disco,
        message::{BIND_LEN, Bind, Message},
    },
    geneve,
};

fuzz_target!(|payload: &[u8]| {
    if let Ok((header, rest)) = geneve::parse(payload) {
        assert_eq!([&header.encode()[..], rest].concat(), payload);
        packet(rest);
    }
    packet(payload);
    plain(payload);
});

fn packet(packet: &[u8]) {
    let envelope = Envelope::parse(packet);
    assert_eq!(envelope.is_ok(), is_disco(packet));
    if let Ok(envelope) = envelope {
        let mut out = Vec::new();
        envelope.encode(&mut out);
        assert_eq!(out, packet);
        plain(envelope.sealed);
    }
}

fn plain(plain: &[u8]) {
    if let Ok(message) = Message::parse(plain) {
        let mut out = Vec::new();
        message.encode(&mut out);
        assert_eq!(Message::parse(&out), Ok(message));
    }
    if let Ok((kind, bind)) = Bind::parse(plain) {
        assert_eq!(bind.encode(kind)[2..], plain[2..BIND_LEN]);
    }
}
