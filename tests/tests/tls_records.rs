//! TLS after the handshake, between a real client and a real daemon, with either record layer: key updates
//! while packets flow, and the handling of invalid records.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result, ensure};
use relay_common::derp::message::FromClient;
use relay_tests::{
    client::{Client, DEADLINE, Start, forger::LastWords},
    daemon::{Daemon, Setup},
};

/// Packets each way; every seventh comes with new keys.
const PACKETS: u32 = 300;
/// The record layers; each test runs with both.
const LAYERS: [&str; 2] = ["own", "rustls"];
/// Bytes that a client sends after its fault and that nobody reads: more than the daemon reads at once, and
/// fewer than it discards.
const UNREAD: usize = 150_000;
/// Content types of TLS.
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

fn start(layer: &str) -> Result<Daemon> {
    Daemon::start(Setup::loopback().with(&["--tls-records", layer]))
}

#[test]
fn keys_change_while_packets_flow_both_ways() -> Result<()> {
    for layer in LAYERS {
        let daemon = start(layer)?;
        let dial = daemon.dial(Start::Fast)?;
        let (mut alice, mut bob) = Client::pair(&dial)?;
        for number in 0..PACKETS {
            carry(&mut alice, &mut bob, number)?;
            carry(&mut bob, &mut alice, number)?;
        }
        // The relay's own answer also comes with the new keys, without a packet from another client.
        alice.wire().write_with_new_keys(&[])?;
        assert_eq!(alice.ping()?.1, []);
        assert_eq!(daemon.counter("tls_faults")?, 0);
    }
    Ok(())
}

#[test]
fn a_damaged_record_ends_its_connection_with_an_alert_and_nothing_else() -> Result<()> {
    for layer in LAYERS {
        let daemon = start(layer)?;
        let dial = daemon.dial(Start::Fast)?;
        let (mut alice, mut bob) = Client::pair(&dial)?;
        let mut eve = Client::connect(&dial)?;
        eve.wire().write_damaged(b"anything")?;
        let error = eve.wire().frame().err().context("the connection goes on")?;
        ensure!(format!("{error:#}").contains("BadRecordMac"), "{error:#}");
        daemon.wait("the fault to be counted", |status| status["counters"]["tls_faults"] == 1)?;
        alice.send(&bob.key(), b"as before")?;
        assert_eq!(bob.recv_packet()?, (alice.key(), b"as before".to_vec()));
        assert_eq!(daemon.counter("protocol_faults")?, 0);
    }
    Ok(())
}

#[test]
fn a_handshake_that_is_none_is_answered_with_an_alert() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let dial = daemon.dial(Start::Normal)?;
    let before = daemon.counter("http_transport")?;
    let mut tcp = TcpStream::connect(dial.addr)?;
    tcp.set_read_timeout(Some(DEADLINE))?;
    // A ClientHello of no bytes.
    tcp.write_all(&[22, 3, 1, 0, 4, 1, 0, 0, 0])?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer)?;
    ensure!(answer.len() == 7 && answer[0] == 21 && answer[5] == 2, "no fatal alert: {answer:02x?}");
    daemon.wait("the failure to be counted", |status| {
        status["counters"]["http_transport"].as_u64() == Some(before + 1)
    })?;
    Ok(())
}

#[test]
fn a_client_that_still_sends_reads_the_alert_and_not_a_reset() -> Result<()> {
    // Section of RFC 8446, the record that breaks it, and the alert. The unit tests of the record layer have
    // many more; here are the cases in which rustls sends the same alert.
    let cases: [(&str, u8, &[u8], usize, u8); 8] = [
        ("4.6.3: an update is requested or not", HANDSHAKE, &[24, 0, 0, 1, 2], 0, 47),
        ("5.1: keys change at the end of a record", HANDSHAKE, &[24, 0, 0, 1, 0, 24], 0, 10),
        ("5.1: no half alerts", ALERT, &[1], 0, 50),
        ("5.4: padding does not make it longer", DATA, b"x", 1 << 14, 22),
        ("5.2: nor does it save what is too long", DATA, &[7; (1 << 14) + 1], 0, 22),
        ("5: no protected change_cipher_spec", CHANGE_CIPHER_SPEC, &[1], 0, 10),
        ("6: no such level", ALERT, &[9, 0], 0, 47),
        ("6: a key update of no length", HANDSHAKE, &[24, 0, 0, 0], 0, 50),
    ];
    for layer in LAYERS {
        let daemon = start(layer)?;
        let dial = daemon.dial(Start::Fast)?;
        for (what, kind, content, padding, alert) in cases {
            let mut forger = Client::connect(&dial)?.into_wire().into_forger()?;
            let mut bytes = forger.seal(kind, content, padding)?;
            bytes.resize(bytes.len() + UNREAD, 0);
            forger.write(&bytes).with_context(|| format!("{layer}: {what}"))?;
            let said = forger.last_words().with_context(|| format!("{layer}: {what}"))?;
            ensure!(said == LastWords { data: Vec::new(), alert: Some(alert) }, "{layer}: {what}: {said:?}");
        }
        let mut forger = Client::connect(&dial)?.into_wire().into_forger()?;
        let mut bytes = forger.seal(DATA, b"anything", 0)?;
        *bytes.last_mut().context("a record")? ^= 1;
        bytes.resize(bytes.len() + UNREAD, 0);
        forger.write(&bytes)?;
        let said = forger.last_words().with_context(|| format!("{layer}: a damaged record"))?;
        ensure!(said.alert == Some(20), "{layer}: a damaged record: {said:?}");
        daemon.wait("all faults to be counted", |status| {
            status["counters"]["tls_faults"] == cases.len() + 1 && status["derp"]["clients"] == 0
        })?;
    }
    Ok(())
}

#[test]
fn a_client_that_breaks_derp_and_still_sends_reads_the_goodbye() -> Result<()> {
    let mut watch = Vec::new();
    FromClient::WatchConns.encode(&mut watch);
    for layer in LAYERS {
        let daemon = start(layer)?;
        let mut forger = Client::connect(&daemon.dial(Start::Fast)?)?.into_wire().into_forger()?;
        let mut bytes = forger.seal(DATA, &watch, 0)?;
        bytes.resize(bytes.len() + UNREAD, 0);
        forger.write(&bytes)?;
        let said = forger.last_words().with_context(|| layer)?;
        ensure!(said == LastWords { data: Vec::new(), alert: Some(0) }, "{layer}: {said:?}");
        daemon.wait("the fault to be counted", |status| status["counters"]["protocol_faults"] == 1)?;
    }
    Ok(())
}

#[test]
fn who_sends_no_request_and_does_not_stop_reads_the_answer() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback().plain())?;
    let dial = daemon.dial(Start::Normal)?;
    let mut tcp = TcpStream::connect(dial.addr)?;
    tcp.set_read_timeout(Some(DEADLINE))?;
    let mut bytes = b"\x16\x03\x01 this is no request\r\n\r\n".to_vec();
    bytes.resize(bytes.len() + UNREAD, 0);
    tcp.write_all(&bytes)?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).context("no orderly end")?;
    ensure!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    Ok(())
}

#[test]
fn packets_reach_a_client_in_the_middle_of_its_key_update() -> Result<()> {
    for layer in LAYERS {
        let daemon = start(layer)?;
        let (mut alice, bob) = Client::pair(&daemon.dial(Start::Fast)?)?;
        let key = bob.key();
        let mut forger = bob.into_wire().into_forger()?;
        let piece = forger.seal(HANDSHAKE, &[24, 0], 0)?;
        forger.write(&piece)?;
        for number in 0..3 {
            alice.send(&key, &[number; 100])?;
            let data = forger.data().with_context(|| layer)?;
            ensure!(data.ends_with(&[number; 100]), "{layer}: {data:02x?}");
        }
    }
    Ok(())
}

/// Sends one packet; its number decides its length and whether it comes with new keys.
fn carry(sender: &mut Client, receiver: &mut Client, number: u32) -> Result<()> {
    let payload = vec![number as u8; 1 + number as usize * 50];
    let mut frame = Vec::new();
    FromClient::SendPacket { dest: &receiver.key(), payload: &payload }.encode(&mut frame);
    match number % 7 {
        0 => sender.wire().write_with_new_keys(&frame)?,
        _ => sender.wire().write(&frame)?,
    }
    ensure!(receiver.recv_packet()? == (sender.key(), payload), "packet {number} is not what was sent");
    Ok(())
}
