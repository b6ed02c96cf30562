//! A table of shapes, and what must hold for any.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn flow(to: &str) -> Flow {
    Flow { to: to.parse().expect("address"), from: "192.0.2.9".parse().ok(), tos: 0 }
}

fn v4() -> Flow {
    flow("192.0.2.1:1000")
}

fn v6() -> Flow {
    flow("[2001:db8::1]:1000")
}

/// Datagrams of one piece: their size and their lengths together.
fn piece(flow: Flow, segment: usize, len: usize) -> Piece {
    Piece { flow, len, segment }
}

fn one(len: usize) -> Piece {
    piece(v4(), 0, len)
}

fn plan_with(pieces: &[Piece], may_gather: impl Fn(&Flow, usize) -> bool) -> Plan {
    let mut plan = Plan::default();
    gather(pieces.iter().copied().enumerate(), may_gather, &mut plan);
    plan
}

/// The messages as (segment, datagrams, bytes).
fn shapes(pieces: &[Piece]) -> Vec<(usize, usize, usize)> {
    let plan = plan_with(pieces, |_, _| true);
    plan.messages.iter().map(|message| (message.segment, message.datagrams, message.bytes)).collect()
}

type Case = (&'static str, Vec<Piece>, Vec<(usize, usize, usize)>);

#[test]
fn the_table_of_shapes() {
    let train = |segment, len| piece(v4(), segment, len);
    let cases: Vec<Case> = vec![
        ("nothing", vec![], vec![]),
        ("one", vec![one(100)], vec![(100, 1, 100)]),
        ("equal ones", vec![one(100); 3], vec![(100, 3, 300)]),
        ("a shorter last one", vec![one(100), one(100), one(40)], vec![(100, 3, 240)]),
        ("a shorter one closes", vec![one(100), one(40), one(40)], vec![(100, 2, 140), (40, 1, 40)]),
        ("a longer one opens", vec![one(40), one(100)], vec![(40, 1, 40), (100, 1, 100)]),
        ("65 equal ones", vec![one(10); 65], vec![(10, 64, 640), (10, 1, 10)]),
        ("63 and a shorter one", [vec![one(10); 63], vec![one(9)]].concat(), vec![(10, 64, 639)]),
        ("64 and a shorter one", [vec![one(10); 64], vec![one(9)]].concat(), vec![(10, 64, 640), (9, 1, 9)]),
        ("bytes over IPv4", vec![one(1300); 51], vec![(1300, 50, 65_000), (1300, 1, 1300)]),
        ("to the byte", [vec![one(1300); 50], vec![one(507)]].concat(), vec![(1300, 51, 65_507)]),
        (
            "a byte more",
            [vec![one(1300); 50], vec![one(508)]].concat(),
            vec![(1300, 50, 65_000), (508, 1, 508)],
        ),
        ("a train", vec![train(1300, 13_000)], vec![(1300, 10, 13_000)]),
        ("a train with a tail", vec![train(1300, 13_001)], vec![(1300, 11, 13_001)]),
        ("a tail closes a train", vec![train(1300, 13_001), one(1)], vec![(1300, 11, 13_001), (1, 1, 1)]),
        ("two trains", vec![train(100, 500), train(100, 550)], vec![(100, 11, 1050)]),
        ("two sizes", vec![train(100, 500), train(99, 990)], vec![(100, 5, 500), (99, 10, 990)]),
        ("a train, then one", vec![train(100, 500), one(100), one(7)], vec![(100, 7, 607)]),
        ("one, then a train", vec![one(100), train(100, 200), train(100, 150)], vec![(100, 5, 450)]),
        ("128 of a newer kernel", vec![train(10, 1280)], vec![(10, 64, 640), (10, 64, 640)]),
        ("65 with a tail", vec![train(10, 641)], vec![(10, 64, 640), (1, 1, 1)]),
        ("too many bytes", vec![train(1300, 65_511)], vec![(1300, 50, 65_000), (511, 1, 511)]),
        ("one of the largest", vec![one(65_507), one(1)], vec![(65_507, 1, 65_507), (1, 1, 1)]),
        ("too long for IPv4", vec![one(65_527)], vec![(65_527, 1, 65_527)]),
        ("an empty one behind one byte", vec![one(1), one(0), one(1)], vec![(1, 1, 1), (0, 1, 0), (1, 1, 1)]),
        ("an empty one is alone", vec![one(5), one(0), one(5)], vec![(5, 1, 5), (0, 1, 0), (5, 1, 5)]),
    ];
    for (name, pieces, expected) in cases {
        assert_eq!(shapes(&pieces), expected, "{name}");
    }
}

#[test]
fn ipv6_takes_twenty_bytes_more() {
    let full = [vec![piece(v6(), 0, 1300); 50], vec![piece(v6(), 0, 527)]].concat();
    assert_eq!(shapes(&full), [(1300, 51, 65_527)]);
    let over = [vec![piece(v6(), 0, 1300); 50], vec![piece(v6(), 0, 528)]].concat();
    assert_eq!(shapes(&over), [(1300, 50, 65_000), (528, 1, 528)]);
    let mapped = piece(flow("[::ffff:192.0.2.1]:1000"), 0, 1300);
    assert_eq!(shapes(&[vec![mapped; 50], vec![Piece { len: 508, ..mapped }]].concat()).len(), 2, "IPv4");
}

#[test]
fn destinations_take_turns_and_each_keeps_its_order() {
    let (a, b) = (one(100), piece(flow("192.0.2.2:1000"), 0, 100));
    let plan = plan_with(&[a, b, a, b, Piece { len: 50, ..a }, a, b], |_, _| true);
    let pieces = |message: &Message| -> Vec<usize> {
        plan.parts[message.parts.clone()].iter().map(|part| part.piece).collect()
    };
    let all: Vec<_> = plan.messages.iter().map(pieces).collect();
    assert_eq!(all, [vec![0, 2, 4], vec![1, 3, 6], vec![5]]);
}

#[test]
fn what_differs_in_source_or_tos_or_port_shares_no_message() {
    let a = v4();
    let others = [
        Flow { from: "192.0.2.8".parse().ok(), ..a },
        Flow { from: None, ..a },
        Flow { tos: 1, ..a },
        flow("192.0.2.1:1001"),
        v6(),
    ];
    for other in others {
        assert_eq!(shapes(&[one(100), piece(other, 0, 100)]).len(), 2, "{other:?}");
    }
    // Another TOS byte opens a message, and nothing overtakes it.
    let marked = piece(Flow { tos: 1, ..a }, 0, 100);
    assert_eq!(shapes(&[one(100), marked, one(100)]).len(), 3);
}

#[test]
fn where_nothing_may_be_gathered_each_datagram_is_a_message() {
    let pieces = [piece(v4(), 100, 250), one(100), piece(v6(), 100, 200), piece(v4(), 10, 20)];
    let plan = plan_with(&pieces, |flow, size| flow.to.is_ipv6() || size < 100);
    let all: Vec<_> = plan.messages.iter().map(|message| (message.datagrams, message.bytes)).collect();
    assert_eq!(all, [(1, 100), (1, 100), (1, 50), (1, 100), (2, 200), (2, 20)]);
}

#[test]
fn the_memory_of_a_plan_is_used_again() {
    let mut plan = Plan::default();
    for count in [3, 1, 0, 2] {
        gather(vec![one(10); count].into_iter().enumerate(), |_, _| true, &mut plan);
        assert_eq!((plan.messages.len(), plan.parts.len()), (count.min(1), count));
    }
}

/// The datagrams of a piece, as ranges in it.
fn datagrams(piece: &Piece) -> Vec<(usize, usize)> {
    if piece.len == 0 {
        return vec![(0, 0)];
    }
    let size = piece.size();
    (0..piece.len).step_by(size).map(|at| (at, size.min(piece.len - at))).collect()
}

/// The datagrams that the kernel makes of a message, as (piece, at, len).
fn cut(message: &Message, parts: &[Part]) -> Vec<(usize, usize, usize)> {
    let mut all = Vec::new();
    for part in &parts[message.parts.clone()] {
        let size = message.segment.max(1);
        let mut at = 0;
        loop {
            all.push((part.piece, part.at + at, size.min(part.len - at)));
            at += size;
            if at >= part.len {
                break;
            }
        }
    }
    all
}

fn any_piece() -> impl Strategy<Value = Piece> {
    let flows = prop_oneof![Just(v4()), Just(v6()), Just(Flow { tos: 3, ..v4() }), Just(flow("192.0.2.2:5"))];
    let size = prop_oneof![Just(100usize), Just(1300), 1..2000usize, Just(65_000)];
    (flows, size, 0..70usize, 0..4usize, 1..2000usize).prop_map(|(flow, size, count, kind, tail)| {
        let len = match kind {
            0 => size,
            1 => (size * count.max(1)).min(65_535),
            2 => (size * count + tail.min(size)).min(65_535),
            _ => count / 69,
        };
        piece(flow, if kind == 0 { 0 } else { size }, len)
    })
}

proptest! {
    #[test]
    fn the_kernel_gets_what_it_takes_and_every_datagram_leaves_once_and_in_order(
        pieces in proptest::collection::vec(any_piece(), 0..80), small_only in any::<bool>(),
    ) {
        let may_gather = |_: &Flow, size: usize| !small_only || size <= 100;
        let plan = plan_with(&pieces, may_gather);
        let mut sent: HashMap<_, Vec<_>> = HashMap::new();
        for message in &plan.messages {
            let datagrams = cut(message, &plan.parts);
            let lengths: Vec<_> = datagrams.iter().map(|(_, _, len)| *len).collect();
            prop_assert_eq!(lengths.len(), message.datagrams);
            prop_assert_eq!(lengths.iter().sum::<usize>(), message.bytes);
            let (last, rest) = lengths.split_last().expect("a datagram");
            prop_assert!(rest.iter().all(|len| *len == message.segment) && *last <= message.segment);
            prop_assert!(message.datagrams == 1 || (*last > 0 && message.datagrams <= MOST_DATAGRAMS));
            prop_assert!(message.datagrams == 1 || message.bytes <= message.flow.most_bytes());
            prop_assert!(message.datagrams == 1 || may_gather(&message.flow, message.segment));
            for (number, at, len) in datagrams {
                prop_assert_eq!(pieces[number].flow, message.flow);
                sent.entry((message.flow.to, message.flow.from)).or_default().push((number, at, len));
            }
        }
        let mut expected: HashMap<_, Vec<_>> = HashMap::new();
        for (number, piece) in pieces.iter().enumerate() {
            let of = expected.entry((piece.flow.to, piece.flow.from)).or_default();
            of.extend(datagrams(piece).into_iter().map(|(at, len)| (number, at, len)));
        }
        prop_assert_eq!(sent, expected);
    }
}
