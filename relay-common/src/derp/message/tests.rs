//! Every message survives encoding and parsing, and every payload that is too short is refused.

use super::*;
use crate::derp::{MAGIC, MAX_APP_NAME, deframer::Deframer, limits};
use core::net::SocketAddr;
use proptest::prelude::*;

const KEY: NodePublic = NodePublic::from_bytes([0xaa; KEY_LEN]);
const OTHER: NodePublic = NodePublic::from_bytes([0xbb; KEY_LEN]);

fn client_messages<'a>(payload: &'a [u8], bytes: [u8; 8], kind: u8) -> Vec<FromClient<'a>> {
    vec![
        FromClient::ClientInfo { key: &KEY, sealed: payload },
        FromClient::ClosePeer(&OTHER),
        FromClient::ForwardPacket { source: &KEY, dest: &OTHER, payload },
        FromClient::NotePreferred(bytes[0] & 1 == 1),
        FromClient::Ping(bytes),
        FromClient::Pong(bytes),
        FromClient::SendPacket { dest: &OTHER, payload },
        FromClient::Unknown { kind, payload },
        FromClient::WatchConns,
    ]
}

fn server_messages<'a>(
    payload: &'a [u8],
    bytes: [u8; 8],
    addr: SocketAddr,
    name: &'a str,
) -> Vec<FromServer<'a>> {
    let addr = Some(addr).filter(|addr| !addr.ip().is_unspecified());
    vec![
        FromServer::Health(payload),
        FromServer::KeepAlive,
        FromServer::PeerGone { peer: &KEY, reason: PeerGoneReason::Disconnected },
        FromServer::PeerGone { peer: &KEY, reason: PeerGoneReason::NotHere },
        FromServer::PeerGone { peer: &KEY, reason: PeerGoneReason::Other(0xf0) },
        FromServer::PeerPresent { peer: &KEY, addr, flags: PeerPresentFlags(bytes[0]), app_name: name },
        FromServer::PeerPresent { peer: &KEY, addr: None, flags: PeerPresentFlags::REGULAR, app_name: "" },
        FromServer::Ping(bytes),
        FromServer::Pong(bytes),
        FromServer::RecvPacket { source: &KEY, payload },
        FromServer::Restarting { reconnect_in_ms: 5, try_for_ms: u32::MAX },
        FromServer::ServerInfo { sealed: payload },
        FromServer::ServerKey { key: &KEY },
        FromServer::Unknown { kind: 0xee, payload },
    ]
}

/// Splits `bytes`, which hold one frame, into header and payload.
fn split(bytes: &[u8]) -> (Header, &[u8]) {
    let (header, body) = bytes.split_first_chunk().expect("a header");
    let header = Header::decode(header);
    assert_eq!(header.len as usize, body.len());
    (header, body)
}

fn from_client(kind: FrameType, payload: &[u8]) -> Result<FromClient<'_>, MessageError> {
    FromClient::parse(Header::new(kind, payload.len() as u32), payload)
}

fn from_server(kind: FrameType, payload: &[u8]) -> Result<FromServer<'_>, MessageError> {
    FromServer::parse(Header::new(kind, payload.len() as u32), payload)
}

#[test]
fn client_frames_of_a_wrong_length_are_refused() {
    for (kind, bad) in [
        (FrameType::ClientInfo, &[0, 31, 32, 55][..]),
        (FrameType::ClosePeer, &[0, 31, 33]),
        (FrameType::ForwardPacket, &[0, 32, 63]),
        (FrameType::NotePreferred, &[0, 2]),
        (FrameType::Ping, &[0, 7]),
        (FrameType::Pong, &[0, 7]),
        (FrameType::SendPacket, &[0, 31]),
        (FrameType::WatchConns, &[1]),
    ] {
        for len in bad {
            let header = Header::new(kind, *len);
            let payload = vec![0; *len as usize];
            assert_eq!(from_client(kind, &payload), Err(MessageError::Length(header)));
        }
    }
}

#[test]
fn server_frames_of_a_wrong_length_are_refused() {
    for (kind, bad) in [
        (FrameType::PeerGone, &[0, 31][..]),
        (FrameType::PeerPresent, &[0, 31]),
        (FrameType::Ping, &[0, 7]),
        (FrameType::Pong, &[7]),
        (FrameType::RecvPacket, &[31]),
        (FrameType::Restarting, &[0, 7]),
        (FrameType::ServerInfo, &[0, 23]),
        (FrameType::ServerKey, &[0, 8, 39]),
    ] {
        for len in bad {
            let header = Header::new(kind, *len);
            let payload = vec![0; *len as usize];
            assert_eq!(from_server(kind, &payload), Err(MessageError::Length(header)));
        }
    }
    assert_eq!(from_server(FrameType::ServerKey, &[0; 40]), Err(MessageError::Magic));
}

#[test]
fn a_long_ping_counts_for_its_first_eight_bytes() {
    let payload: Vec<u8> = (0..100).collect();
    assert_eq!(from_client(FrameType::Ping, &payload), Ok(FromClient::Ping([0, 1, 2, 3, 4, 5, 6, 7])));
}

#[test]
fn any_byte_but_zero_makes_a_home() {
    assert_eq!(from_client(FrameType::NotePreferred, &[0]), Ok(FromClient::NotePreferred(false)));
    assert_eq!(from_client(FrameType::NotePreferred, &[9]), Ok(FromClient::NotePreferred(true)));
}

#[test]
fn a_server_key_may_be_followed_by_bytes_of_the_future() {
    let mut payload = MAGIC.to_vec();
    payload.extend([0xaa; 40]);
    assert_eq!(from_server(FrameType::ServerKey, &payload), Ok(FromServer::ServerKey { key: &KEY }));
}

#[test]
fn peer_gone_without_a_reason_means_disconnected() {
    let gone = FromServer::PeerGone { peer: &KEY, reason: PeerGoneReason::Disconnected };
    assert_eq!(from_server(FrameType::PeerGone, KEY.as_bytes()), Ok(gone));
}

#[test]
fn peer_present_is_read_in_all_its_historical_lengths() {
    let addr: SocketAddr = "192.0.2.1:443".parse().expect("an address");
    let flags = PeerPresentFlags::MESH_PEER.with(PeerPresentFlags::PROBER);
    let full = FromServer::PeerPresent { peer: &KEY, addr: Some(addr), flags, app_name: "app" };
    let mut frame = Vec::new();
    full.encode(&mut frame);
    let payload = &frame[HEADER_LEN..];
    assert_eq!(payload.len(), 55);
    let read = |payload| from_server(FrameType::PeerPresent, payload).expect("long enough");
    let none = PeerPresentFlags::default();
    assert_eq!(
        read(&payload[..32]),
        FromServer::PeerPresent { peer: &KEY, addr: None, flags: none, app_name: "" }
    );
    let with = |flags, app_name| FromServer::PeerPresent { peer: &KEY, addr: Some(addr), flags, app_name };
    assert_eq!(read(&payload[..50]), with(none, ""));
    assert_eq!(read(&payload[..51]), with(flags, ""));
    assert_eq!(read(&payload[..52]), with(flags, ""), "a name that runs past the frame is left out");
    assert_eq!(read(payload), full);
    assert_eq!(read(&[payload, b"future"].concat()), full);
}

#[test]
fn an_invalid_name_is_neither_read_nor_written() {
    let long = "x".repeat(MAX_APP_NAME + 1);
    for name in [long.as_str(), "a\nb", "é"] {
        let present = FromServer::PeerPresent {
            peer: &KEY,
            addr: None,
            flags: PeerPresentFlags::REGULAR,
            app_name: name,
        };
        let mut frame = Vec::new();
        present.encode(&mut frame);
        assert_eq!(frame.len(), present.encoded_len());
        assert_eq!(frame.len(), HEADER_LEN + 52);
        let mut payload = frame.split_off(HEADER_LEN);
        payload[51] = name.len() as u8;
        payload.extend_from_slice(name.as_bytes());
        let read = from_server(FrameType::PeerPresent, &payload).expect("long enough");
        assert!(matches!(read, FromServer::PeerPresent { app_name: "", .. }), "{read:?}");
    }
}

#[test]
fn frames_of_the_other_direction_are_unknown() {
    let kinds = [
        FrameType::ServerKey,
        FrameType::ServerInfo,
        FrameType::RecvPacket,
        FrameType::KeepAlive,
        FrameType::PeerGone,
        FrameType::PeerPresent,
        FrameType::Health,
        FrameType::Restarting,
    ];
    for kind in kinds {
        assert_eq!(from_client(kind, b"x"), Ok(FromClient::Unknown { kind: kind as u8, payload: b"x" }));
    }
    assert_eq!(
        from_server(FrameType::SendPacket, b"x"),
        Ok(FromServer::Unknown { kind: 0x04, payload: b"x" })
    );
}

#[test]
fn the_short_cut_of_the_hot_path_writes_the_same_bytes() {
    let mut frame = Vec::new();
    FromServer::RecvPacket { source: &KEY, payload: b"hello" }.encode(&mut frame);
    assert_eq!([&recv_packet_header(&KEY, 5)[..], b"hello"].concat(), frame);
}

proptest! {
    #[test]
    fn client_messages_survive_a_round_trip_and_know_their_length(
        payload in prop::collection::vec(any::<u8>(), 24..2000),
        bytes in any::<[u8; 8]>(),
        kind in 0x16u8..,
    ) {
        let messages = client_messages(&payload, bytes, kind);
        let mut stream = Vec::new();
        for message in &messages {
            let start = stream.len();
            message.encode(&mut stream);
            prop_assert_eq!(stream.len() - start, message.encoded_len());
            let (header, body) = split(&stream[start..]);
            prop_assert_eq!(FromClient::parse(header, body), Ok(*message));
        }
        let mut count = 0;
        let result = Deframer::new().push(&stream, limits::client, |header, body| {
            count += 1;
            FromClient::parse(header, body).map(drop)
        });
        prop_assert_eq!((result, count), (Ok(()), messages.len()));
    }

    #[test]
    fn server_messages_survive_a_round_trip_and_know_their_length(
        payload in prop::collection::vec(any::<u8>(), 24..2000),
        bytes in any::<[u8; 8]>(),
        ip in any::<core::net::IpAddr>(),
        port in any::<u16>(),
        name in "[ -~]{0,32}",
    ) {
        let addr = SocketAddr::new(ip.to_canonical(), port);
        for message in server_messages(&payload, bytes, addr, &name) {
            let mut frame = Vec::new();
            message.encode(&mut frame);
            prop_assert_eq!(frame.len(), message.encoded_len());
            let (header, body) = split(&frame);
            prop_assert_eq!(FromServer::parse(header, body), Ok(message));
        }
    }

    #[test]
    fn what_parses_from_any_bytes_encodes_to_something_that_parses_alike(
        kind in 0u8..0x18,
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let header = Header { kind, len: payload.len() as u32 };
        if let Ok(message) = FromClient::parse(header, &payload) {
            let mut frame = Vec::new();
            message.encode(&mut frame);
            let (header, body) = split(&frame);
            prop_assert_eq!(FromClient::parse(header, body), Ok(message));
        }
        if let Ok(message) = FromServer::parse(header, &payload) {
            let mut frame = Vec::new();
            message.encode(&mut frame);
            let (header, body) = split(&frame);
            prop_assert_eq!(FromServer::parse(header, body), Ok(message));
        }
    }
}
