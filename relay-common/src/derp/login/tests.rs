//! Compares login with known answers, and tests every way in which it fails.

use super::*;
use crate::derp::{HEADER_LEN, MIN_CLIENT_INFO};
use core::array::from_fn;

const SERVER_KEY: &str =
    "010000002844455250f09f949107a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c";
const CLIENT_INFO: &str = concat!(
    "02000000685869aff450549732cbaaed5e5df9b30a6da31cb0e5742bad5ad4a1a768f1a67b",
    "000102030405060708090a0b0c0d0e0f1011121314151617176bdffac6239dc06abd2678210731e1",
    "69d7ad3c284e14bd97d07b31d36052dc1b4b776d33dac1529db871ecd021683e"
);
const SERVER_INFO: &str = concat!(
    "03000000356465666768696a6b6c6d6e6f707172737475767778797a7b",
    "b770dc6557656f17cd1eebf60c61d1108517d9971faac8afed66fcfa1f"
);

fn hex(text: &str) -> Vec<u8> {
    let digit = |d: u8| (d as char).to_digit(16).expect("a hex digit") as u8;
    text.as_bytes().as_chunks::<2>().0.iter().map(|[a, b]| digit(*a) << 4 | digit(*b)).collect()
}

fn server() -> NodePrivate {
    NodePrivate::from_bytes(from_fn(|i| 1 + i as u8))
}

fn client() -> NodePrivate {
    NodePrivate::from_bytes(from_fn(|i| 0x21 + i as u8))
}

fn split(frame: &[u8]) -> (Header, &[u8]) {
    let (header, body) = frame.split_first_chunk::<HEADER_LEN>().expect("a header");
    (Header::decode(header), body)
}

/// Logs in with `frame` just before the deadline.
fn login(frame: &[u8]) -> Result<Ready, LoginError> {
    let (header, body) = split(frame);
    ExpectInfo::new(0).on_frame(header, body, &server(), LOGIN_TIMEOUT_NS - 1)
}

fn sealed(json: &[u8]) -> Vec<u8> {
    let body = client().seal_to(&server().public(), [7; NONCE_LEN], json).expect("an honest key");
    let mut frame = Vec::new();
    FromClient::ClientInfo { key: &client().public(), sealed: &body }.encode(&mut frame);
    frame
}

#[test]
fn the_known_keys_come_out() {
    assert_eq!(server().public().hex(), "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c");
    assert_eq!(client().public().hex(), "5869aff450549732cbaaed5e5df9b30a6da31cb0e5742bad5ad4a1a768f1a67b");
    let text = "privkey:0002030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f60";
    assert_eq!(server().to_text(), text);
    assert_eq!(text.parse::<NodePrivate>().expect("a key").public(), server().public());
}

#[test]
fn the_known_frames_come_out() {
    assert_eq!(server_key_frame(&server().public()), hex(SERVER_KEY));
    let info = client_info_frame(&client(), &server().public(), &ClientInfo::stock(), from_fn(|i| i as u8));
    assert_eq!(info, Some(hex(CLIENT_INFO)));
    let shared = server().shared(&client().public()).expect("an honest key");
    let info = server_info_frame(&shared, &ServerInfo::stock(), from_fn(|i| 0x64 + i as u8));
    assert_eq!(info, hex(SERVER_INFO));
}

#[test]
fn the_known_client_logs_in_and_reads_the_known_answer() {
    let ready = login(&hex(CLIENT_INFO)).expect("a right login");
    assert_eq!((ready.key, ready.info), (client().public(), ClientInfo::stock()));
    let (key, info) = (hex(SERVER_KEY), hex(SERVER_INFO));
    let (header, body) = split(&key);
    let server_key = parse_server_key(header, body).expect("a right greeting");
    assert_eq!(server_key, server().public());
    let (header, body) = split(&info);
    let info = parse_server_info(header, body, &client(), &server_key).expect("a right answer");
    assert_eq!(info, ServerInfo::stock());
}

#[test]
fn time_is_up_after_ten_seconds() {
    let frame = hex(CLIENT_INFO);
    let (header, body) = split(&frame);
    let expect = ExpectInfo::new(5);
    assert!(expect.check(10_000_000_004).is_ok());
    assert!(matches!(expect.check(10_000_000_005), Err(LoginError::Timeout)));
    assert!(matches!(expect.on_frame(header, body, &server(), 10_000_000_005), Err(LoginError::Timeout)));
    assert!(ExpectInfo::new(u64::MAX).check(u64::MAX - 1).is_ok(), "no overflow");
}

#[test]
fn another_frame_is_refused_by_its_type() {
    let header = Header::new(FrameType::SendPacket, 100);
    let result = ExpectInfo::new(0).on_frame(header, &[0; 100], &server(), 0);
    assert!(matches!(result, Err(LoginError::UnexpectedFrame(0x04))));
}

#[test]
fn a_frame_of_a_wrong_length_is_refused() {
    let on = |len: usize| {
        let header = Header::new(FrameType::ClientInfo, len as u32);
        ExpectInfo::new(0).on_frame(header, &vec![1; len], &server(), 0)
    };
    assert!(matches!(on(0), Err(LoginError::TooShort(0))));
    assert!(matches!(on(MIN_CLIENT_INFO - 1), Err(LoginError::TooShort(55))));
    assert!(matches!(on(MIN_CLIENT_INFO), Err(LoginError::BadBox)), "no room for a tag");
    assert!(matches!(on(MAX_CLIENT_INFO + 1), Err(LoginError::TooLong(262_145))));
}

#[test]
fn a_zero_key_is_refused_and_one_of_small_order_opens_nothing() {
    let mut frame = hex(CLIENT_INFO);
    frame[HEADER_LEN..HEADER_LEN + 32].fill(0);
    assert!(matches!(login(&frame), Err(LoginError::ZeroKey)));
    frame[HEADER_LEN] = 1;
    assert!(matches!(login(&frame), Err(LoginError::BadBox)));
}

#[test]
fn a_box_changed_anywhere_or_sealed_for_another_server_does_not_open() {
    let frame = hex(CLIENT_INFO);
    for index in HEADER_LEN..frame.len() {
        let mut bad = frame.clone();
        bad[index] ^= 0x04;
        assert!(matches!(login(&bad), Err(LoginError::BadBox)), "byte {index}");
    }
    let other = client_info_frame(&client(), &client().public(), &ClientInfo::stock(), [0; NONCE_LEN]);
    assert!(matches!(login(&other.expect("an honest key")), Err(LoginError::BadBox)));
}

#[test]
fn a_sealed_body_that_is_no_client_info_is_refused() {
    for json in [&b""[..], b"x", b"[]", br#"{"version":"2"}"#, br#"{"meshKey":""}"#] {
        assert!(matches!(login(&sealed(json)), Err(LoginError::BadJson(_))));
    }
    assert!(matches!(login(&sealed(b"{\"AppName\":\"\\u0007\"}")), Err(LoginError::BadAppName)));
    assert!(login(&sealed(br#"{"appname":"fine"}"#)).is_ok());
}

#[test]
fn a_client_refuses_what_is_not_the_greeting() {
    let (key, info) = (hex(SERVER_KEY), hex(SERVER_INFO));
    let (header, body) = split(&info);
    assert!(matches!(parse_server_key(header, body), Err(ClientLoginError::UnexpectedFrame(0x03))));
    let result = parse_server_info(header, body, &server(), &server().public());
    assert!(matches!(result, Err(ClientLoginError::BadBox)));
    let (header, body) = split(&key);
    let result = parse_server_info(header, body, &client(), &server().public());
    assert!(matches!(result, Err(ClientLoginError::UnexpectedFrame(0x01))));
    assert!(matches!(parse_server_key(header, &body[..39]), Err(ClientLoginError::Message(_))));
    assert_eq!(
        client_info_frame(&client(), &NodePublic::default(), &ClientInfo::stock(), [0; NONCE_LEN]),
        None
    );
    assert!(server().shared(&NodePublic::default()).is_none());
}
