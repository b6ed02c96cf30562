//! The JSON bodies follow Go's rules when read and have Go's bytes when written.

use super::*;
use proptest::prelude::*;

fn read(json: &str) -> ClientInfo {
    ClientInfo::from_json(json.as_bytes()).expect(json)
}

fn text(json: Vec<u8>) -> String {
    String::from_utf8(json).expect("JSON is UTF-8")
}

#[test]
fn stock_bodies_are_byte_for_byte_those_of_go() {
    assert_eq!(text(ClientInfo::stock().to_json()), r#"{"version":2,"CanAckPings":true}"#);
    assert_eq!(text(ServerInfo::stock().to_json()), r#"{"version":2}"#);
    assert_eq!(text(ClientInfo::default().to_json()), r#"{"CanAckPings":false}"#);
    let full = ClientInfo {
        mesh_key: Some(MeshKey::from_bytes([0xab; 32])),
        version: 2,
        can_ack_pings: false,
        is_prober: true,
        app_name: AppName::new("probe").expect("a name"),
    };
    let json = format!(
        r#"{{"meshKey":"{}","version":2,"CanAckPings":false,"IsProber":true,"AppName":"probe"}}"#,
        "ab".repeat(32)
    );
    assert_eq!(text(full.to_json()), json);
    assert_eq!(read(&json), full);
}

#[test]
fn member_names_match_in_any_case_and_unknown_ones_are_ignored() {
    let info =
        read(r#"{"Version":2,"CANACKPINGS":true,"isprober":true,"appNAME":"x","future":{"a":[1,{}]}}"#);
    assert_eq!((info.version, info.can_ack_pings, info.is_prober, &*info.app_name), (2, true, true, "x"));
    let json = format!(r#"{{"MESHKEY":"{}"}}"#, "AB".repeat(32));
    assert_eq!(read(&json).mesh_key, Some(MeshKey::from_bytes([0xab; 32])));
    assert!(
        read("{\"i\u{17f}Prober\":true,\"CanAc\u{212a}Pings\":true}").is_prober,
        "letters that fold to ASCII"
    );
}

#[test]
fn the_last_of_duplicates_counts_and_null_changes_nothing() {
    let info = read(r#"{"version":1,"Version":2,"version":null,"AppName":"a","appname":"b"}"#);
    assert_eq!((info.version, &*info.app_name), (2, "b"));
    assert_eq!(read("null"), ClientInfo::default());
    assert_eq!(read("{}"), ClientInfo::default());
}

#[test]
fn a_mesh_key_that_is_not_64_digits_is_refused() {
    for value in ["\"\"", "null", "\"ab\"", "7", "[]", &format!("\"{}\"", "zz".repeat(32))] {
        let json = format!(r#"{{"meshKey":{value},"version":2}}"#);
        assert!(matches!(ClientInfo::from_json(json.as_bytes()), Err(InfoError::Json(_))), "{json}");
    }
}

#[test]
fn an_invalid_name_is_told_apart_from_bad_json() {
    for name in ["a\\nb", "\u{e9}", &"x".repeat(33)] {
        let json = format!(r#"{{"AppName":"{name}"}}"#);
        assert!(matches!(ClientInfo::from_json(json.as_bytes()), Err(InfoError::AppName(_))), "{json}");
    }
    assert!(matches!(ClientInfo::from_json(b"{\"AppName\":\"\xff\"}"), Err(InfoError::AppName(_))));
}

#[test]
fn values_of_the_wrong_type_and_broken_json_are_refused() {
    for json in [
        "",
        "{",
        "[]",
        "7",
        r#"{"version":"2"}"#,
        r#"{"version":2.0}"#,
        r#"{"version":9223372036854775808}"#,
        r#"{"CanAckPings":1}"#,
        r#"{"AppName":7}"#,
        "{} {}",
    ] {
        assert!(matches!(ClientInfo::from_json(json.as_bytes()), Err(InfoError::Json(_))), "{json}");
    }
}

#[test]
fn a_server_may_ask_for_a_rate() {
    let json = br#"{"version":2,"tokenBucketBytesPerSecond":1000,"TokenBucketBytesBurst":65573}"#;
    let info = ServerInfo::from_json(json).expect("legal");
    assert_eq!(info, ServerInfo { version: 2, rate_bytes: 1000, burst_bytes: 65_573 });
    assert_eq!(ServerInfo::from_json(&info.to_json()).expect("its own output"), info);
}

proptest! {
    #[test]
    fn any_client_info_survives_a_round_trip(
        // The key is not zero, because a zero key equals no key.
        mesh_key in prop::option::of(any::<[u8; 32]>().prop_map(|mut key| { key[0] |= 1; key })),
        version in any::<i64>(),
        can_ack_pings in any::<bool>(),
        is_prober in any::<bool>(),
        app_name in "[ -~]{0,32}",
    ) {
        let mesh_key = mesh_key.map(MeshKey::from_bytes);
        let app_name = AppName::new(&app_name).expect("printable");
        let info = ClientInfo { mesh_key, version, can_ack_pings, is_prober, app_name };
        prop_assert_eq!(ClientInfo::from_json(&info.to_json()).expect("its own output"), info);
    }

    #[test]
    fn no_bytes_panic_the_reader(json in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(info) = ClientInfo::from_json(&json) {
            prop_assert!(AppName::is_valid(&info.app_name));
        }
        let _ = ServerInfo::from_json(&json);
    }
}
