//! Turns over real sockets on loopback: what two clients and a relay's worker see of trains.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket as Client};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use nix::sys::socket::{setsockopt, sockopt};
use relay_common::geneve::{Geneve, Protocol};
use relay_common::key::{DiscoPrivate, DiscoPublic};
use socket2::SockRef;

use super::super::batch::MOST_SLOTS;
use super::super::cmsg::Notes;
use super::super::socket::SocketOptions;
use super::*;
use crate::route::sessions::Limits;

const NOW: u64 = 1_000_000_000_000;

struct Lab {
    exchange: Exchange,
    pair: SocketPair,
    udp: UdpRelay,
    router: Router,
    tally: Tally,
}

/// A message as a client receives it.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    bytes: Vec<u8>,
    segment: usize,
    tos: u8,
}

impl Lab {
    fn new(trains: bool) -> Self {
        let key = DiscoPrivate::from_bytes([50; 32]);
        let limits =
            Limits { max_sessions: 80, bind_lifetime_ns: NOW, steady_lifetime_ns: NOW, server: key.public() };
        let options = SocketOptions { trains, mark: 0 };
        Self {
            exchange: Exchange::default(),
            pair: SocketPair::bind_all(0, 1, &options).expect("any port").remove(0),
            udp: UdpRelay::new(key, [3; 32], NOW),
            router: Router::new(limits, None),
            tally: Tally::default(),
        }
    }

    /// The relay's address for clients of this family.
    fn at(&self, v4: bool) -> SocketAddr {
        let port = self.pair.v4.local().port();
        if v4 { (Ipv4Addr::LOCALHOST, port).into() } else { (Ipv6Addr::LOCALHOST, port).into() }
    }

    /// Binds a session between two clients; returns the header of its data.
    fn session(&self, clients: [&Client; 2], seed: u8) -> Vec<u8> {
        let keys = [seed, 100 + seed].map(|n| DiscoPrivate::from_bytes([n; 32]).public());
        let session = self.router.allocate(keys, NOW).expect("room");
        for (leg, client) in clients.into_iter().enumerate() {
            let remote = client.local_addr().expect("address");
            let path = LegPath { remote, local: self.at(remote.is_ipv4()) };
            let number = self.router.bind(session.vni(), leg, NOW).expect("bind");
            self.router.answer(session.vni(), leg, number, path, NOW).expect("answer");
        }
        header(session.vni())
    }

    fn turn(&mut self, v4: bool) -> Turn {
        let socket = if v4 { &self.pair.v4 } else { self.pair.v6.as_ref().expect("IPv6") };
        let rules = Rules { udp: &self.udp, router: &self.router, awaited: None, now_ns: NOW + 1 };
        let bound = |_, _, _| panic!("nobody binds");
        let turn = self.exchange.turn(&self.pair, socket, rules, &mut self.tally, bound);
        turn.expect("loopback has delivered")
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.tally.get(counter)
    }

    /// What the leg's counters say: packets and bytes.
    fn of_leg(&self, vni: u32, leg: usize) -> (u64, u64) {
        let session = self.router.session(vni).expect("a session");
        let counters = &session.side[leg];
        (counters.packets.load(Ordering::Relaxed), counters.bytes.load(Ordering::Relaxed))
    }
}

fn header(vni: u32) -> Vec<u8> {
    let vni = relay_common::geneve::Vni::new(vni).expect("a VNI");
    Geneve { control: false, protocol: Protocol::WireGuard, vni }.encode().to_vec()
}

fn client(v4: bool) -> Client {
    let ip = if v4 { Ipv4Addr::LOCALHOST.into() } else { std::net::IpAddr::from(Ipv6Addr::LOCALHOST) };
    let client = Client::bind((ip, 0)).expect("a socket");
    setsockopt(&client, sockopt::UdpGroSegment, &true).expect("UDP_GRO");
    client.set_nonblocking(true).expect("an option");
    client
}

fn has_ipv6() -> bool {
    Client::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Datagrams of these headers, each of `size` bytes but the last, which has `tail`, numbered in their bodies.
fn train(headers: &[&[u8]], size: usize, tail: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, header) in headers.iter().enumerate() {
        let body = if number + 1 == headers.len() { tail } else { size } - header.len();
        bytes.extend_from_slice(header);
        bytes.extend(std::iter::repeat_n(number as u8, body));
    }
    bytes
}

fn send(from: &Client, to: SocketAddr, bytes: &[u8], segment: usize) {
    setsockopt(from, sockopt::UdpGsoSegment, &(segment as i32)).expect("UDP_SEGMENT");
    assert_eq!(from.send_to(bytes, to).expect("sent"), bytes.len());
}

/// All messages that wait for a client.
fn received(client: &Client) -> Vec<Got> {
    let mut slab = Slab::new(MOST_SLOTS, TRAIN_SLOT_BYTES);
    let mut all = Vec::new();
    while slab.recv(client.as_fd(), TRAIN_SLOT_BYTES, MOST_SLOTS).is_ok() {
        all.extend(slab.arrivals().iter().map(|one| {
            let Notes { segment, tos, .. } = one.notes;
            Got { bytes: slab.bytes(one.at, one.len).to_vec(), segment, tos }
        }));
    }
    all
}

fn got(bytes: &[u8], segment: usize) -> Got {
    Got { bytes: bytes.to_vec(), segment, tos: 0 }
}

#[tokio::test]
async fn a_train_of_one_session_leaves_as_it_came() {
    let mut lab = Lab::new(true);
    let (a, b) = (client(true), client(true));
    let head = lab.session([&a, &b], 1);
    for (size, tail, count) in
        [(1300, 1300, 10), (1300, 500, 45), (1300, 8, 2), (100, 100, 64), (9000, 9000, 7)]
    {
        let bytes = train(&vec![&head[..]; count], size, tail);
        send(&a, lab.at(true), &bytes, size);
        let before = (lab.counted(Counter::UdpForwarded), lab.counted(Counter::UdpSendCalls));
        assert_eq!(lab.turn(true), Turn { messages: 1, more: false, no_room: false });
        assert_eq!(received(&b), [got(&bytes, size)], "{size} {tail} {count}");
        let after = (lab.counted(Counter::UdpForwarded), lab.counted(Counter::UdpSendCalls));
        assert_eq!(after, (before.0 + count as u64, before.1 + 1));
    }
    let all = (lab.counted(Counter::UdpForwarded), lab.counted(Counter::UdpForwardedBytes));
    assert_eq!(all, (10 + 45 + 2 + 64 + 7, 13_000 + 57_700 + 1308 + 6400 + 63_000));
    assert_eq!(lab.of_leg(1, 0), all);
    assert_eq!(lab.of_leg(1, 1), (0, 0));
    assert!(received(&a).is_empty());
}

#[tokio::test]
async fn no_payload_is_copied() {
    let mut lab = Lab::new(true);
    let (a, b) = (client(true), client(true));
    let head = lab.session([&a, &b], 1);
    let bytes = train(&[&head[..]; 20], 1300, 700);
    send(&a, lab.at(true), &bytes, 1300);
    let Lab { exchange, pair, udp, router, tally, .. } = &mut lab;
    pair.v4.recv(&mut exchange.slab, MOST_SLOTS).expect("delivered");
    let arrival = exchange.slab.arrivals()[0];
    let rules = Rules { udp, router, awaited: None, now_ns: NOW };
    exchange.decide(&arrival, path(&arrival, pair.v4.local()), rules, tally, &mut |_, _, _| {});
    let [Outgoing { source: Source::Data { at, .. }, piece }] = &exchange.outgoing[..] else { panic!("one") };
    // What leaves are the bytes of the slab itself, where the kernel put them.
    assert_eq!((*at, piece.len), (arrival.at, bytes.len()));
    assert_eq!(exchange.slab.bytes(*at, piece.len).as_ptr(), exchange.slab.bytes(arrival.at, 1).as_ptr());
}

#[tokio::test]
async fn a_train_that_mixes_sessions_is_split_into_runs() {
    let mut lab = Lab::new(true);
    let (a, b, c) = (client(true), client(true), client(true));
    let (to_b, to_c) = (lab.session([&a, &b], 1), lab.session([&a, &c], 2));
    let unknown = header(77);
    let mut control = to_b.clone();
    control[1] = 0x80;
    control[2..4].copy_from_slice(&[0x7a, 0x11]);
    let mut options = to_b.clone();
    options[0] = 1;
    let headers: Vec<&[u8]> =
        vec![&to_b, &to_b, &to_c, &unknown, &unknown, &to_b, &control, &options, &to_c, &to_c, &to_b];
    let bytes = train(&headers, 200, 50);
    send(&a, lab.at(true), &bytes, 200);
    assert_eq!(lab.turn(true).messages, 1);
    let of = |numbers: &[usize]| -> Vec<u8> {
        numbers.iter().flat_map(|n| bytes[n * 200..].iter().take(200).copied()).collect()
    };
    assert_eq!(received(&b), [got(&of(&[0, 1, 5, 10]), 200)], "joined again, in order");
    assert_eq!(received(&c), [got(&of(&[2, 8, 9]), 200)]);
    assert_eq!(lab.counted(Counter::UdpForwarded), 7);
    assert_eq!(lab.counted(Counter::UdpUnknownVni), 2);
    assert_eq!((lab.counted(Counter::UdpNotDisco), lab.counted(Counter::UdpOptions)), (1, 1));
    assert_eq!(lab.counted(Counter::UdpSendCalls), 1, "for both");
    assert_eq!((lab.of_leg(1, 0).0, lab.of_leg(2, 0).0), (4, 3));
}

#[tokio::test]
async fn a_tail_that_is_no_datagram_of_the_session_is_dropped_alone() {
    let mut lab = Lab::new(true);
    let (a, b) = (client(true), client(true));
    let head = lab.session([&a, &b], 1);
    // Upstream's sentinel: one byte behind datagrams of one size.
    let bytes = [train(&[&head[..]; 3], 200, 200), vec![7]].concat();
    send(&a, lab.at(true), &bytes, 200);
    lab.turn(true);
    assert_eq!(received(&b), [got(&bytes[..600], 200)]);
    assert_eq!((lab.counted(Counter::UdpForwarded), lab.counted(Counter::UdpShort)), (3, 1));
}

#[tokio::test]
async fn datagrams_that_came_by_themselves_leave_together() {
    let mut lab = Lab::new(true);
    let (a, b, c) = (client(true), client(true), client(true));
    let (to_b, to_c) = (lab.session([&a, &b], 1), lab.session([&c, &b], 2));
    // From two clients to one, in turn.
    for number in 0..10u8 {
        let (from, head) = if number % 2 == 0 { (&a, &to_b) } else { (&c, &to_c) };
        send(from, lab.at(true), &[&head[..], &[number; 92]].concat(), 0);
    }
    assert_eq!(lab.turn(true).messages, 10);
    let all = received(&b);
    assert_eq!((all.len(), all[0].segment, all[0].bytes.len()), (1, 100, 1000));
    let order: Vec<_> = all[0].bytes.chunks(100).map(|one| one[99]).collect();
    assert_eq!(order, (0..10).collect::<Vec<_>>());
    assert_eq!((lab.of_leg(1, 0), lab.of_leg(2, 0)), ((5, 500), (5, 500)));
}

#[tokio::test]
async fn without_trains_each_datagram_comes_and_leaves_by_itself() {
    let mut lab = Lab::new(false);
    let (a, b) = (client(true), client(true));
    let head = lab.session([&a, &b], 1);
    let bytes = train(&[&head[..]; 10], 1300, 100);
    send(&a, lab.at(true), &bytes, 1300);
    assert_eq!(lab.turn(true).messages, 10);
    let expected: Vec<_> = bytes.chunks(1300).map(|one| got(one, 0)).collect();
    assert_eq!(received(&b), expected);
    assert_eq!(lab.counted(Counter::UdpForwarded), 10);
    // Longer than a slot: 16,383 bytes.
    send(&a, lab.at(true), &train(&[&head], 20_000, 20_000), 0);
    lab.turn(true);
    assert_eq!((lab.counted(Counter::UdpTruncated), received(&b).len()), (1, 0));
}

#[tokio::test]
async fn families_mix_and_their_sockets_are_chosen_by_the_receiver() {
    if !has_ipv6() {
        return println!("SKIPPED: families_mix_and_their_sockets_are_chosen_by_the_receiver: no IPv6 here");
    }
    let mut lab = Lab::new(true);
    let (a, b) = (client(true), client(false));
    let head = lab.session([&a, &b], 1);
    let bytes = train(&[&head[..]; 10], 1200, 100);
    send(&a, lab.at(true), &bytes, 1200);
    lab.turn(true);
    assert_eq!(received(&b), [got(&bytes, 1200)]);
    send(&b, lab.at(false), &bytes, 1200);
    lab.turn(false);
    assert_eq!(received(&a), [got(&bytes, 1200)]);
    // What fits into IPv6 alone is lost alone, and counted as what it is.
    let long = train(&[&head], 65_527, 65_527);
    send(&b, lab.at(false), &long, 0);
    send(&b, lab.at(false), &bytes, 1200);
    lab.turn(false);
    assert_eq!(received(&a), [got(&bytes, 1200)]);
    assert_eq!((lab.counted(Counter::UdpSendTooLong), lab.counted(Counter::UdpForwarded)), (1, 30));
    assert_eq!(lab.of_leg(1, 1).0, 20);
    // A host that has lost its IPv6 socket.
    lab.pair.v6 = None;
    send(&a, lab.at(true), &bytes, 1200);
    lab.turn(true);
    assert_eq!((lab.counted(Counter::UdpSendFailed), lab.counted(Counter::UdpForwarded)), (10, 30));
    assert_eq!(lab.of_leg(1, 0).0, 10);
}

#[tokio::test]
async fn a_leg_that_cannot_be_reached_costs_no_other_and_its_packets_are_not_forwarded() {
    let mut lab = Lab::new(true);
    let (a, b, c) = (client(true), client(true), client(true));
    let (to_b, to_c) = (lab.session([&a, &b], 1), lab.session([&a, &c], 2));
    // 192.0.2.9 is no address of this host, so nothing can leave from it.
    let path = LegPath {
        remote: b.local_addr().expect("address"),
        local: SocketAddr::new(Ipv4Addr::new(192, 0, 2, 9).into(), lab.at(true).port()),
    };
    let number = lab.router.bind(1, 1, NOW).expect("bind");
    lab.router.answer(1, 1, number, path, NOW).expect("answer");
    let bytes = train(&[&to_b[..], &to_b, &to_c, &to_c], 500, 400);
    for _ in 0..3 {
        send(&a, lab.at(true), &bytes, 500);
    }
    assert_eq!(lab.turn(true).messages, 3);
    let expected = got(&bytes[1000..], 500);
    assert_eq!(received(&c), [&expected; 3].map(|one| got(&one.bytes, 500)));
    assert!(received(&b).is_empty());
    assert_eq!((lab.counted(Counter::UdpSendFailed), lab.counted(Counter::UdpForwarded)), (6, 6));
    assert_eq!((lab.of_leg(1, 0), lab.of_leg(2, 0)), ((0, 0), (6, 2700)));
    // The train that was refused, its first datagram if the refusal was EINVAL, and the rest.
    assert!((2..=3).contains(&lab.counted(Counter::UdpSendCalls)));
    // A closed port is no refusal.
    drop(c);
    send(&a, lab.at(true), &bytes, 500);
    lab.turn(true);
    assert_eq!(lab.counted(Counter::UdpForwarded), 8);
}

#[tokio::test]
async fn the_tos_byte_goes_from_socket_to_socket() {
    let mut lab = Lab::new(true);
    let families: &[bool] = if has_ipv6() { &[true, false] } else { &[true] };
    let mut seed = 0;
    for (from, to) in families.iter().flat_map(|from| families.iter().map(move |to| (*from, *to))) {
        let (a, b) = (client(from), client(to));
        let (sender, receiver) = (SockRef::from(&a), SockRef::from(&b));
        if to { receiver.set_recv_tos_v4(true) } else { receiver.set_recv_tclass_v6(true) }
            .expect("an option");
        seed += 1;
        let head = lab.session([&a, &b], seed);
        // Expedited forwarding, ECN alone, none.
        for tos in [0xb8, 0x02, 0xbb, 0] {
            if from { sender.set_tos_v4(tos) } else { sender.set_tclass_v6(tos) }.expect("an option");
            let bytes = train(&[&head[..]; 3], 300, 300);
            send(&a, lab.at(from), &bytes, 300);
            lab.turn(from);
            let expected = Got { bytes, segment: 300, tos: tos as u8 };
            assert_eq!(received(&b), [expected], "{from} {to} {tos:#x}");
        }
    }
}

#[tokio::test]
async fn what_finds_no_room_in_the_queue_is_counted() {
    let mut lab = Lab::new(true);
    let a = client(true);
    setsockopt(&lab.pair.v4, sockopt::RcvBuf, &4096).expect("an option");
    for _ in 0..100 {
        send(&a, lab.at(true), &[0; 1000], 0);
    }
    let queued = lab.turn(true).messages as u64;
    assert!(queued < 100);
    // The kernel tells with the next one that finds room.
    send(&a, lab.at(true), &[0; 1000], 0);
    lab.turn(true);
    assert_eq!(lab.counted(Counter::UdpQueueFull), 100 - queued);
}

#[tokio::test]
async fn a_bind_is_answered_and_counted_when_the_kernel_took_the_answer() {
    use relay_common::disco::message::{Bind, BindKind};
    let mut lab = Lab::new(true);
    let (a, b) = (client(true), client(true));
    lab.session([&a, &b], 1);
    let keys = [1u8, 101].map(|n| DiscoPrivate::from_bytes([n; 32]));
    let [own, other]: [DiscoPublic; 2] = keys.each_ref().map(DiscoPrivate::public);
    let shared = keys[0].shared(&lab.udp.public()).expect("a good key");
    let vni = relay_common::geneve::Vni::new(1).expect("a VNI");
    let bind = Bind { vni, generation: 5, remote_key: other, challenge: [0; 32] };
    let message = relay_common::disco::seal_control(BindKind::Bind, &bind, &own, &shared, &[7; 24]);
    // Three in one train: control is decided about one by one.
    send(&a, lab.at(true), &message.repeat(3), message.len());
    lab.turn(true);
    assert_eq!(lab.counted(Counter::UdpChallenges), 3);
    let answers = received(&a);
    assert_eq!(answers.iter().map(|one| one.bytes.len()).sum::<usize>(), 3 * message.len());
}

#[tokio::test]
async fn while_trains_arrive_a_turn_takes_fewer_messages() {
    let mut lab = Lab::new(true);
    let a = client(true);
    let single = |lab: &Lab, count: usize| (0..count).for_each(|_| send(&a, lab.at(true), &[0; 100], 0));
    single(&lab, MOST_SLOTS + 1);
    let turn = lab.turn(true);
    assert_eq!((turn.messages, turn.more), (MOST_SLOTS, true));
    assert!(!lab.turn(true).more);
    send(&a, lab.at(true), &[0; 300], 100);
    lab.turn(true);
    single(&lab, TRAIN_SLOTS + 1);
    let turn = lab.turn(true);
    assert_eq!((turn.messages, turn.more), (TRAIN_SLOTS, true));
}
