//! What the kernel reports of its routing, and what routers say of packets that are too big for them: any
//! bytes are read, without a panic and to the end.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use relay_user::fastpath::nexthop::changes::{self, Change};
use relay_user::fastpath::nexthop::icmp;

/// Types of messages that are read: links, addresses, routes, neighbours, rules, next-hop objects.
const KINDS: [u16; 12] = [16, 17, 20, 21, 24, 25, 28, 29, 32, 33, 104, 105];

/// Bytes of a message's header.
const HEADER: usize = 16;

fuzz_target!(|input: (Vec<(u8, u8, Vec<u8>)>, Vec<u8>, u16)| {
    let (messages, packet, port) = input;
    let mut bytes = Vec::new();
    for (kind, wrong, body) in &messages {
        // A few lengths are wrong: larger or smaller than the message.
        let length = (HEADER + body.len()) as u32;
        let length = if wrong % 16 == 0 { length.wrapping_add_signed((*wrong as i8).into()) } else { length };
        bytes.extend(length.to_ne_bytes());
        bytes.extend(KINDS[usize::from(*kind) % KINDS.len()].to_ne_bytes());
        bytes.extend([0; HEADER - 6]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let mut found = Vec::new();
    changes::read(&bytes, &mut found);
    for change in &found {
        if let Change::Routes { dirty, .. } = change {
            // Prefixes of any length are compared.
            dirty.concerns(IpAddr::from([192, 0, 2, 1]), IpAddr::from([198, 51, 100, 7]));
            dirty.concerns(IpAddr::from([0; 16]), IpAddr::from([255; 16]));
        }
    }
    if let Some(path) = icmp::read(&packet, port) {
        assert_eq!(path.local.port(), port);
        assert!(path.local.is_ipv4() && path.remote.ip() >= IpAddr::from(Ipv4Addr::UNSPECIFIED));
    }
});
