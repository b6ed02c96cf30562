//! The kernel's notes with a UDP message: any bytes are read, and what is written for the kernel reads back.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use relay_user::udp::cmsg::{ControlBuffer, Notes, Wishes};

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    notes: Vec<u8>,
    to: IpAddr,
    from: Option<IpAddr>,
    tos: u8,
    segment: u16,
    before: Vec<u8>,
}

fuzz_target!(|input: Input| {
    for end in 0..=input.notes.len().min(256) {
        let _ = Notes::read(&input.notes[..end]);
    }
    let mut control = ControlBuffer::default();
    let old = input.before.len().min(control.0.len());
    control.0[..old].copy_from_slice(&input.before[..old]);
    let wishes = Wishes { from: input.from, tos: input.tos, segment: input.segment.into() };
    let used = control.write(SocketAddr::new(input.to, 1), &wishes);
    let notes = Notes::read(&control.0[..used]);
    let source = input.from.filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
    assert_eq!((notes.tos, notes.local_ip), (input.tos, source.map(|ip| ip.to_canonical())));
    // What is written is a size to cut by; the kernel reports sizes in another message.
    assert_eq!((notes.segment, notes.queue_drops), (0, None));
});
