//! Trains of the UDP relay: a message of any bytes splits into runs, any runs are gathered into messages that
//! the kernel takes, and each datagram leaves once, whole and in the order of its destination.
#![no_main]

use std::{collections::HashMap, net::SocketAddr};

use libfuzzer_sys::fuzz_target;
use relay_user::udp::{
    gather::{Flow, MOST_DATAGRAMS, Piece, Plan, gather},
    runs::runs,
};

#[derive(arbitrary::Arbitrary, Debug)]
struct Received {
    message: Vec<u8>,
    stretched: u8,
    segment: u16,
    to: u8,
    tos: u8,
}

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    received: Vec<Received>,
    largest_train: u16,
}

fuzz_target!(|input: Input| {
    let mut messages = Vec::new();
    let mut pieces = Vec::new();
    for (number, one) in input.received.iter().enumerate().take(64) {
        let mut message = one.message.repeat(1 + usize::from(one.stretched));
        message.truncate(65_535);
        let segment = usize::from(one.segment);
        let size = if segment == 0 { message.len().max(1) } else { segment };
        let mut end = 0;
        for run in runs(&message, segment) {
            assert_eq!(run.at, end);
            end += run.len;
            let bytes = &message[run.at..end];
            assert!(bytes.chunks(size).all(|datagram| datagram.first_chunk().copied() == run.head));
            pieces.push((number, run.at, Piece { flow: flow(one.to, one.tos % 2), len: run.len, segment }));
        }
        assert_eq!(end, message.len());
        messages.push(message);
    }
    let may_gather = |_: &Flow, size: usize| size <= usize::from(input.largest_train);
    let mut plan = Plan::default();
    gather(pieces.iter().map(|one| one.2).enumerate(), may_gather, &mut plan);

    let mut left: HashMap<SocketAddr, Vec<&[u8]>> = HashMap::new();
    for message in &plan.messages {
        let mut lengths = Vec::new();
        for part in &plan.parts[message.parts.clone()] {
            let (number, at, piece) = pieces[part.piece];
            assert_eq!(piece.flow, message.flow);
            let bytes = &messages[number][at + part.at..][..part.len];
            let before = lengths.len();
            for datagram in bytes.chunks(message.segment.max(1)) {
                lengths.push(datagram.len());
                left.entry(message.flow.to).or_default().push(datagram);
            }
            if bytes.is_empty() {
                lengths.push(0);
                left.entry(message.flow.to).or_default().push(bytes);
            }
            assert!(lengths.len() > before);
        }
        assert_eq!((lengths.len(), lengths.iter().sum()), (message.datagrams, message.bytes));
        let (last, rest) = lengths.split_last().expect("a datagram");
        assert!(rest.iter().all(|len| *len == message.segment) && *last <= message.segment);
        if message.is_train() {
            assert!(*last > 0 && message.datagrams <= MOST_DATAGRAMS);
            assert!(may_gather(&message.flow, message.segment));
            assert!(message.bytes <= message.flow.most_bytes());
        }
    }
    let mut came: HashMap<SocketAddr, Vec<&[u8]>> = HashMap::new();
    for (number, at, piece) in &pieces {
        let bytes = &messages[*number][*at..][..piece.len];
        let to = came.entry(piece.flow.to).or_default();
        if bytes.is_empty() { to.push(bytes) } else { to.extend(bytes.chunks(piece.size())) }
    }
    assert_eq!(left, came);
});

fn flow(to: u8, tos: u8) -> Flow {
    let ip = match to % 3 {
        0 => [192, 0, 2, to].into(),
        1 => std::net::Ipv6Addr::from([to; 16]).into(),
        _ => std::net::Ipv4Addr::from([192, 0, 2, to]).to_ipv6_mapped().into(),
    };
    Flow { to: SocketAddr::new(ip, 1), from: None, tos }
}
