//! TLS beyond the handshake, between a real client and a real daemon: new keys while packets flow, and what
//! happens to who sends records that are none.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result, ensure};
use relay_common::derp::message::FromClient;
use relay_tests::{
    client::{Client, DEADLINE, Start},
    daemon::{Daemon, Setup},
};

/// Packets each way; every seventh comes under new keys.
const PACKETS: u32 = 300;

#[test]
fn keys_change_while_packets_flow_both_ways() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let dial = daemon.dial(Start::Fast)?;
    let (mut alice, mut bob) = Client::pair(&dial)?;
    for number in 0..PACKETS {
        carry(&mut alice, &mut bob, number)?;
        carry(&mut bob, &mut alice, number)?;
    }
    // An answer needs no packet of somebody else to come under the new keys.
    alice.wire().write_with_new_keys(&[])?;
    assert_eq!(alice.ping()?.1, []);
    assert_eq!(daemon.counter("tls_faults")?, 0);
    Ok(())
}

#[test]
fn a_damaged_record_ends_its_connection_with_an_alert_and_nothing_else() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
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

/// One packet, of a length and under keys that depend on its number.
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
