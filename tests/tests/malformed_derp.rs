//! Every malformed login, frame and request that a DERP listener can get, and the counter for it. The relay
//! closes the connection that sent it and no other, and still serves.

use anyhow::{Context as _, Result, ensure};
use rand_core::OsRng;
use relay_common::{
    derp::{
        HEADER_LEN, KEY_LEN, MAX_CLIENT_INFO, MAX_PACKET, MAX_PING, MAX_UNKNOWN_FRAME, MIN_CLIENT_INFO,
        frame::{FrameType, Header},
    },
    key::{NodePrivate, NodePublic},
};
use relay_tests::{
    client::{
        Client, Dial, Greeted, Start, Transport,
        login::{client_info, nonce, request},
        wire::Wire,
    },
    daemon::{Daemon, Setup},
};

#[test]
fn a_login_that_breaks_the_protocol_is_closed_and_counted_by_what_is_wrong() -> Result<()> {
    let site = Target::start()?;
    let key = NodePrivate::generate(&mut OsRng);
    let server = site.good_client()?.server();
    let good = client_info(&key, &server)?;
    let payload = &good[HEADER_LEN..];
    let zero_key = [&[0; KEY_LEN], &payload[KEY_LEN..]].concat();
    let another_key = NodePrivate::generate(&mut OsRng).public();
    let forged = [another_key.as_bytes(), &payload[KEY_LEN..]].concat();
    let mut damaged = payload.to_vec();
    damaged[MIN_CLIENT_INFO] ^= 1;
    let sealed = |json: &[u8]| sealed_info(&key, &server, json);
    let info = FrameType::ClientInfo;
    let cases: [(&str, Vec<u8>, &str); 12] = [
        ("another frame first", frame(FrameType::Ping, &[0; 8]), "login_malformed"),
        ("a type that does not exist first", vec![0xee, 0, 0, 0, 0], "login_malformed"),
        ("shorter than key and nonce", frame(info, &payload[..MIN_CLIENT_INFO - 1]), "login_malformed"),
        ("longer than any", header_of(info, MAX_CLIENT_INFO + 1), "login_malformed"),
        ("the longest length there is", vec![2, 0xff, 0xff, 0xff, 0xff], "login_malformed"),
        ("the zero key", frame(info, &zero_key), "login_malformed"),
        ("a key without its private half", frame(info, &forged), "login_bad_box"),
        ("a damaged box", frame(info, &damaged), "login_bad_box"),
        ("no box", frame(info, &payload[..MIN_CLIENT_INFO]), "login_bad_box"),
        ("no JSON in the box", sealed(b"not JSON")?, "login_malformed"),
        ("JSON of another shape", sealed(br#"{"version":"two"}"#)?, "login_malformed"),
        ("a name with a line break", sealed(br#"{"version":2,"AppName":"a\nb"}"#)?, "login_malformed"),
    ];
    for (what, bytes, counter) in cases {
        let before = site.daemon.counter(counter)?;
        let mut greeted = Greeted::normal(&site.dial)?;
        greeted.wire.write(&bytes)?;
        let answered = greeted.wire.frames_until_closed().with_context(|| what)?;
        ensure!(answered.is_empty(), "{what}: answered {answered:?}");
        site.counts(what, counter, before)?;
    }
    // A fast start has the same login, without a round trip before it.
    let before = site.daemon.counter("login_bad_box")?;
    let mut wire = Wire::connect(&site.dial)?;
    let fast = request(site.dial.addr, true);
    wire.write(&[fast, frame(info, &damaged)].concat())?;
    ensure!(wire.frames_until_closed()?.len() == 1, "ServerKey and nothing else");
    site.counts("a damaged box in fast start", "login_bad_box", before)?;
    site.serves()
}

#[test]
fn a_login_that_stops_half_way_is_counted() -> Result<()> {
    let site = Target::start()?;
    let before = site.daemon.counter("login_transport")?;
    let mut greeted = Greeted::normal(&site.dial)?;
    greeted.wire.write(&client_info(&NodePrivate::generate(&mut OsRng), &greeted.server)?[..20])?;
    drop(greeted);
    site.counts("half a login", "login_transport", before)?;
    site.serves()
}

#[test]
fn a_frame_that_its_type_does_not_allow_ends_the_connection_that_sent_it() -> Result<()> {
    let site = Target::start()?;
    let cases: [(&str, Vec<u8>); 15] = [
        ("a packet without a whole key", frame(FrameType::SendPacket, &[0; KEY_LEN - 1])),
        ("an empty packet frame", frame(FrameType::SendPacket, &[])),
        ("a packet that is too long", header_of(FrameType::SendPacket, KEY_LEN + MAX_PACKET + 1)),
        ("a short ping", frame(FrameType::Ping, &[0; 7])),
        ("a long ping", header_of(FrameType::Ping, MAX_PING + 1)),
        ("a preference of no bytes", frame(FrameType::NotePreferred, &[])),
        ("a preference of two", frame(FrameType::NotePreferred, &[1, 0])),
        ("a forwarded packet with one key", frame(FrameType::ForwardPacket, &[0; 2 * KEY_LEN - 1])),
        ("a forwarded packet without the mesh key", frame(FrameType::ForwardPacket, &[1; 2 * KEY_LEN + 4])),
        ("watching with an argument", frame(FrameType::WatchConns, &[0])),
        ("watching without the mesh key", frame(FrameType::WatchConns, &[])),
        ("closing nobody", frame(FrameType::ClosePeer, &[0; KEY_LEN - 1])),
        ("closing without the mesh key", frame(FrameType::ClosePeer, &[1; KEY_LEN])),
        ("an unknown frame that is too long", header_of_kind(0xee, MAX_UNKNOWN_FRAME + 1)),
        ("the longest length there is", vec![0xee, 0xff, 0xff, 0xff, 0xff]),
    ];
    for (what, bytes) in cases {
        let before = site.daemon.counter("protocol_faults")?;
        let mut client = site.good_client()?;
        client.write_raw(&bytes)?;
        let answered = client.until_closed().with_context(|| what)?;
        ensure!(answered.is_empty(), "{what}: answered {answered:?}");
        site.counts(what, "protocol_faults", before)?;
    }
    site.serves()
}

#[test]
fn a_frame_of_another_version_is_passed_over_and_counted() -> Result<()> {
    let site = Target::start()?;
    let mut client = site.good_client()?;
    let before = (site.daemon.counter("unknown_frames")?, site.daemon.counter("protocol_faults")?);
    for bytes in [
        vec![0xee, 0, 0, 0, 0],
        frame_of_kind(0xee, &[7; 1000]),
        frame_of_kind(0x77, &vec![7; MAX_UNKNOWN_FRAME]),
        // Frames of known types that clients have no reason to send.
        frame(FrameType::RecvPacket, &[7; 40]),
        frame(FrameType::ClientInfo, &[7; 10]),
    ] {
        client.write_raw(&bytes)?;
    }
    assert_eq!(client.ping()?.1, [], "the frame behind them is read");
    assert_eq!(site.daemon.counter("unknown_frames")?, before.0 + 5);
    assert_eq!(site.daemon.counter("protocol_faults")?, before.1);
    site.serves()
}

#[test]
fn a_frame_that_breaks_off_harms_nobody() -> Result<()> {
    let site = Target::start()?;
    let dest = site.good_client()?.key();
    let packet = frame(FrameType::SendPacket, &[dest.as_bytes(), &[1; 100][..]].concat());
    for len in [1, HEADER_LEN - 1, HEADER_LEN, HEADER_LEN + 1, HEADER_LEN + KEY_LEN, packet.len() - 1] {
        let mut client = site.good_client()?;
        client.write_raw(&packet[..len])?;
    }
    site.daemon.wait("their connections to be over", |status| status["derp"]["clients"] == 0)?;
    assert_eq!(site.daemon.counter("packets_received")?, 0);
    site.serves()
}

#[test]
fn what_is_no_request_is_refused_and_counted() -> Result<()> {
    let site = Target::start()?;
    let long = [&b"GET / HTTP/1.1\r\nX: "[..], &vec![b'a'; 10_000]].concat();
    let cases: [(&str, Vec<u8>, &str); 3] = [
        ("garbage", b"\x16\x03\x01 this is no request\r\n\r\n".to_vec(), "HTTP/1.1 400 "),
        ("a head without end", long, "HTTP/1.1 431 "),
        (
            "a body",
            b"POST /derp HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody".to_vec(),
            "HTTP/1.1 413 ",
        ),
    ];
    for (what, bytes, answer) in cases {
        let before = site.daemon.counter("http_malformed")?;
        let mut wire = Wire::connect(&site.dial)?;
        wire.write(&bytes)?;
        let head = wire.http_head().with_context(|| what)?;
        ensure!(head.starts_with(answer), "{what}: {head}");
        site.counts(what, "http_malformed", before)?;
    }
    let before = site.daemon.counter("http_transport")?;
    let plain = Dial { transport: Transport::Plain, ..site.dial.clone() };
    let mut wire = Wire::connect(&plain)?;
    wire.write(b"GET /derp HTTP/1.1\r\n\r\n")?;
    site.counts("HTTP to the TLS port", "http_transport", before)?;
    site.serves()
}

struct Target {
    daemon: Daemon,
    dial: Dial,
}

impl Target {
    fn start() -> Result<Self> {
        let daemon = Daemon::start(Setup::loopback())?;
        let dial = daemon.dial(Start::Normal)?;
        Ok(Self { daemon, dial })
    }

    fn good_client(&self) -> Result<Client> {
        Client::connect(&self.dial)
    }

    /// Waits until `counter` has grown, and checks that it has grown by exactly one.
    fn counts(&self, what: &str, counter: &str, before: u64) -> Result<()> {
        let grown = self.daemon.wait(&format!("{what} to count as {counter}"), |status| {
            status["counters"][counter].as_u64() > Some(before)
        })?;
        ensure!(grown["counters"][counter] == before + 1, "{what} counted more than once as {counter}");
        Ok(())
    }

    /// Checks that two new clients can exchange packets.
    fn serves(&self) -> Result<()> {
        let (mut alice, mut bob) = (self.good_client()?, self.good_client()?);
        alice.send(&bob.key(), b"still served")?;
        ensure!(
            bob.recv_packet()? == (alice.key(), b"still served".to_vec()),
            "the relay does not serve any more"
        );
        Ok(())
    }
}

fn frame(kind: FrameType, payload: &[u8]) -> Vec<u8> {
    frame_of_kind(kind as u8, payload)
}

fn frame_of_kind(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&header_of_kind(kind, payload.len())[..], payload].concat()
}

fn header_of(kind: FrameType, len: usize) -> Vec<u8> {
    header_of_kind(kind as u8, len)
}

fn header_of_kind(kind: u8, len: usize) -> Vec<u8> {
    Header { kind, len: len as u32 }.encode().to_vec()
}

fn sealed_info(key: &NodePrivate, server: &NodePublic, json: &[u8]) -> Result<Vec<u8>> {
    let sealed = key.seal_to(server, nonce(), json).context("the server's key makes no secret")?;
    Ok(frame(FrameType::ClientInfo, &[key.public().as_bytes(), &sealed[..]].concat()))
}
