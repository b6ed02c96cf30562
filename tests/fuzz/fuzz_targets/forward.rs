//! The rules of the XDP program, on frames of a bound session that are damaged, cut and repaired anywhere: a
//! frame that is not forwarded stays unchanged, and in a forwarded frame only the headers change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_common::{
    forward::{
        apply,
        sample::{self, StillMaps},
    },
    net::{
        IPV4_PAYLOAD_OFFSET, SliceFrame,
        checksum::full,
        datagram::{fill_checksums, udp_checksum_is_right},
    },
};

const INTERFACE: u32 = 7;
const NOW: u64 = 1_000_000_000_000;

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    from_second: bool,
    body: Vec<u8>,
    damage: Vec<(u16, u8)>,
    length: u16,
    mend: bool,
}

fuzz_target!(|input: Input| {
    let mut frame = sample::frame(input.from_second.into(), &sample::geneve(sample::VNI, &input.body));
    for (at, value) in input.damage {
        let at = usize::from(at) % frame.len();
        frame[at] ^= value;
    }
    frame.truncate(usize::from(input.length).max(frame.len() / 2));
    if input.mend {
        fill_checksums(&mut frame);
    }
    let before = frame.clone();
    let mut maps = StillMaps::new(NOW, INTERFACE);
    let outcome = apply(&mut SliceFrame(&mut frame), &sample::config(NOW), INTERFACE, &mut maps);
    let Ok(decision) = outcome else {
        assert_eq!(frame, before);
        return;
    };
    let to = sample::CLIENTS[1 - usize::from(decision.from_leg)];
    assert_eq!(decision.destination.ip, to.ip().octets());
    assert_eq!(decision.destination.port, to.port().to_be_bytes());
    assert_eq!(frame[IPV4_PAYLOAD_OFFSET..], before[IPV4_PAYLOAD_OFFSET..]);
    assert_eq!(frame[22], before[22] - 1, "TTL");
    assert_eq!(full(&frame[14..34]), 0, "IP checksum");
    if udp_checksum_is_right(&before) {
        assert!(udp_checksum_is_right(&frame));
    }
});
