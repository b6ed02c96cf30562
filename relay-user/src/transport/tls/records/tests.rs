//! Tests the record layer with rustls' client, and with forged records that no client would send.

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::kernel::KernelConnection;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite};

use super::*;
use crate::transport::tls::handshake::{Handshake, InRustls as _};

mod rules;

const HOST: &str = "relay.test";

/// Two alerts, as RFC 8446, 6 numbers them.
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// The configurations of both sides, with a new certificate.
fn configs(suite: SupportedCipherSuite) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([HOST.to_owned()]).expect("certificate");
    let provider = Arc::new(default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("key");
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("identity");
    server.enable_secret_extraction = true;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("root");
    let provider = rustls::crypto::CryptoProvider { cipher_suites: vec![suite], ..default_provider() };
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    (Arc::new(server), Arc::new(client))
}

/// A client and the server's record layer after their handshake. `early` is data that the client sends
/// together with the end of its handshake.
fn connected(suite: SupportedCipherSuite, early: &[u8]) -> (ClientConnection, Records, Vec<u8>) {
    let (server, client) = configs(suite);
    let name = ServerName::try_from(HOST).expect("name");
    let mut client = ClientConnection::new(client, name).expect("client");
    let mut handshake = Handshake::new(server).expect("server");

    client.writer().write_all(early).expect("kept until the handshake is over");
    let mut rest = Vec::new();
    for _ in 0..4 {
        let mut replies = Vec::new();
        client.write_tls(&mut rest).expect("memory");
        let mut sink = |_: &[u8]| unreachable!("rustls opens no data");
        let Opened { used, closed } = handshake.open(&mut rest, &mut replies, &mut sink).expect("valid");
        assert!(!closed);
        rest.drain(..used);
        hear(&mut client, &replies);
        if handshake.is_over() {
            break;
        }
    }
    assert!(handshake.is_over());
    let mut records = Box::new(handshake).hand_over().expect("handed over");
    let (got, result) = open(&mut records, &mut rest);
    assert_eq!(result, Ok(Opened { used: rest.len(), closed: false }));
    (client, records, got)
}

fn usual() -> (ClientConnection, Records) {
    let (client, records, _) = connected(cipher_suite::TLS13_AES_128_GCM_SHA256, b"");
    (client, records)
}

/// Like [`usual`], but returns the client's sending key, to forge records that no client would send.
fn forger() -> (Cipher, Records) {
    let (client, records) = usual();
    let secrets = client.dangerous_extract_secrets().expect("allowed");
    (Cipher::new(secrets.tx).expect("known"), records)
}

/// Like [`forger`], with the state that makes the client's next keys.
fn forging_client() -> ((Cipher, KernelConnection<ClientConnectionData>), Records) {
    let (server, client) = configs(cipher_suite::TLS13_AES_128_GCM_SHA256);
    let name = ServerName::try_from(HOST).expect("name");
    let mut client = UnbufferedClientConnection::new(client, name).expect("client");
    let mut handshake = Handshake::new(server).expect("server");
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    for _ in 0..16 {
        let UnbufferedStatus { discard, state, .. } = client.process_tls_records(&mut heard);
        match state.expect("valid") {
            ConnectionState::EncodeTlsData(mut message) => {
                let at = said.len();
                said.resize(at + 4096, 0);
                let len = message.encode(&mut said[at..]).expect("room");
                said.truncate(at + len);
            }
            ConnectionState::TransmitTlsData(transmit) => transmit.done(),
            _ => {
                let mut sink = |_: &[u8]| ControlFlow::Continue(());
                let opened = handshake.open(&mut said, &mut heard, &mut sink).expect("valid");
                said.drain(..opened.used);
            }
        }
        heard.drain(..discard);
    }
    let (secrets, client) = client.dangerous_into_kernel_connection().expect("allowed");
    let records = Box::new(handshake).hand_over().expect("handed over");
    ((Cipher::new(secrets.tx).expect("known"), client), records)
}

fn hear(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).expect("memory");
        let state = client.process_new_packets().expect("valid");
        let at = got.len();
        got.resize(at + state.plaintext_bytes_to_read(), 0);
        client.reader().read_exact(&mut got[at..]).expect("as many as it said");
    }
    got
}

fn say(client: &mut ClientConnection, plaintext: &[u8]) -> Vec<u8> {
    client.set_buffer_limit(None);
    client.writer().write_all(plaintext).expect("no limit");
    let mut sealed = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut sealed).expect("memory");
    }
    sealed
}

fn open(records: &mut Records, data: &mut [u8]) -> (Vec<u8>, Result<Opened, RecordFault>) {
    let mut got = Vec::new();
    let result = records.open(data, &mut |bytes| {
        got.extend_from_slice(bytes);
        ControlFlow::Continue(())
    });
    (got, result)
}

fn seal(records: &mut Records, plaintext: &[u8]) -> Vec<u8> {
    let mut out = vec![0; Records::sealed_len(plaintext.len())];
    let len = records.seal(plaintext, &mut out).expect("room");
    out.truncate(len);
    out
}

fn forged(cipher: &mut Cipher, kind: u8, plaintext: &[u8]) -> Vec<u8> {
    let mut out = vec![0; plaintext.len() + OVERHEAD];
    cipher.seal(kind, plaintext, &mut out).expect("room");
    out
}

#[test]
fn data_passes_both_ways_with_every_cipher() {
    for suite in [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ] {
        let (mut client, mut records, early) = connected(suite, b"right behind the handshake");
        assert_eq!(early, b"right behind the handshake");
        for len in [1, 64, 1200, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 5 * MAX_PLAINTEXT] {
            let plaintext: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let mut data = say(&mut client, &plaintext);
            let (got, result) = open(&mut records, &mut data);
            assert_eq!(result, Ok(Opened { used: data.len(), closed: false }), "{suite:?} {len}");
            assert!(got == plaintext, "{suite:?} {len}");
            assert!(hear(&mut client, &seal(&mut records, &plaintext)) == plaintext, "{suite:?} {len}");
        }
    }
}

#[test]
fn a_client_may_change_its_keys_and_ask_for_ours() {
    let (mut client, mut records) = usual();
    for round in 0..100u8 {
        client.refresh_traffic_keys().expect("TLS 1.3");
        let mut data = say(&mut client, &[round]);
        assert_eq!(open(&mut records, &mut data).0, [round]);
        assert!(records.owes_update());
        let sealed = if round % 2 == 0 { seal(&mut records, &[]) } else { Vec::new() };
        assert_eq!(records.owes_update(), round % 2 == 1);
        assert!(hear(&mut client, &sealed).is_empty());
        assert_eq!(hear(&mut client, &seal(&mut records, &[round])), [round]);
        assert!(!records.owes_update());
    }
}

#[test]
fn a_key_is_changed_before_it_is_worn_out() {
    let (mut client, mut records) = usual();
    records.most = 3;
    let plaintext = vec![9; 10 * MAX_PLAINTEXT];
    for _ in 0..10 {
        let mut sealed = vec![0; plaintext.len() + 40 * OVERHEAD];
        let len = records.seal(&plaintext, &mut sealed).expect("room");
        assert!(hear(&mut client, &sealed[..len]) == plaintext);
        assert!(records.tx.sequence() <= records.most);
    }
}

#[test]
fn a_client_sees_why_it_was_refused() {
    let (mut client, mut records) = usual();
    let mut data = say(&mut client, b"text");
    data[7] ^= 1;
    let fault = open(&mut records, &mut data).1.expect_err("broken");
    assert_eq!(fault, RecordFault::Broken(Broken::Seal));
    let mut alert = [0; 64];
    let len = records.seal_alert(Some(fault), &mut alert).expect("room");
    client.read_tls(&mut &alert[..len]).expect("memory");
    let error = client.process_new_packets().expect_err("an alert");
    assert_eq!(error, Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
}

#[test]
fn goodbyes_are_understood_both_ways() {
    let (mut client, mut records) = usual();
    let mut goodbye = [0; 64];
    let len = records.seal_alert(None, &mut goodbye).expect("room");
    client.read_tls(&mut &goodbye[..len]).expect("memory");
    assert!(client.process_new_packets().expect("valid").peer_has_closed());

    let (mut client, mut records) = usual();
    client.send_close_notify();
    let mut data = say(&mut client, &[]);
    assert_eq!(open(&mut records, &mut data).1, Ok(Opened { used: data.len(), closed: true }));
}

#[test]
fn records_without_data_are_suffered_for_a_while() {
    let (mut cipher, mut records) = forger();
    let empty = |cipher: &mut Cipher, times: u8| -> Vec<u8> {
        let kinds = [(APPLICATION_DATA, &[][..]), (ALERT, &[1, USER_CANCELED])];
        (0..times)
            .flat_map(|n| forged(cipher, kinds[usize::from(n % 2)].0, kinds[usize::from(n % 2)].1))
            .collect()
    };
    for _ in 0..3 {
        assert!(open(&mut records, &mut empty(&mut cipher, MAX_FRUITLESS)).1.is_ok());
        assert_eq!(open(&mut records, &mut forged(&mut cipher, APPLICATION_DATA, b"x")).0, b"x");
    }
    assert_eq!(open(&mut records, &mut empty(&mut cipher, MAX_FRUITLESS + 1)).1, Err(RecordFault::Fruitless));
}

#[test]
fn the_sink_may_end_it() {
    let (mut client, mut records) = usual();
    let mut data = say(&mut client, b"first");
    let one = data.len();
    data.extend(say(&mut client, b"second"));
    let result = records.open(&mut data, &mut |_| ControlFlow::Break(()));
    assert_eq!(result, Ok(Opened { used: one, closed: true }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_stream_cut_anywhere_comes_whole(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        cuts in prop::collection::vec(1usize..400, 1..40),
        refresh in any::<u32>(),
    ) {
        let (mut client, mut records) = usual();
        let mut data = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            if refresh >> (at % 32) & 1 == 1 {
                client.refresh_traffic_keys().expect("TLS 1.3");
            }
            data.extend(say(&mut client, text));
        }
        let (mut got, mut kept) = (Vec::new(), Vec::new());
        for cut in cuts.into_iter().chain([usize::MAX]) {
            kept.extend(data.drain(..cut.min(data.len())));
            let (part, result) = open(&mut records, &mut kept);
            got.extend(part);
            kept.drain(..result.expect("valid").used);
        }
        prop_assert!(kept.is_empty());
        prop_assert_eq!(got, texts.concat());
    }

    #[test]
    fn no_sequence_of_sealed_records_does_worse_than_end_the_connection(
        sent in prop::collection::vec(
            // A type of zero would be padding, and the byte before it would be the type.
            (prop_oneof![20u8..26, 1u8..], prop::collection::vec(0u8..30, 0..8)),
            0..50,
        ),
    ) {
        let (mut cipher, mut records) = forger();
        let mut data = Vec::new();
        let mut wanted = Vec::new();
        for (kind, plaintext) in &sent {
            data.extend(forged(&mut cipher, *kind, plaintext));
            if *kind == APPLICATION_DATA {
                wanted.extend_from_slice(plaintext);
            }
        }
        let (got, result) = open(&mut records, &mut data);
        prop_assert!(wanted.starts_with(&got));
        if result == Ok(Opened { used: data.len(), closed: false }) {
            prop_assert_eq!(got, wanted);
        }
    }
}
