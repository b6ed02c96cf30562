//! STUN on the relay's port: a client learns its own address, and the answer comes from the address that it
//! asked.

use std::{net::UdpSocket, time::Duration};

use anyhow::{Context as _, Result};
use relay_common::stun::{TxId, binding_request, parse_binding_response};
use relay_tests::daemon::{Daemon, STUN_PORT, Setup};

#[test]
fn a_client_is_told_its_own_address_and_nonsense_is_counted() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let socket = UdpSocket::bind((daemon.ip(), 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let transaction = TxId([7; 12]);
    let mut cut = binding_request(transaction).to_vec();
    cut.pop();
    for nonsense in [&b"no STUN at all"[..], &[], &cut] {
        socket.send_to(nonsense, (daemon.ip(), STUN_PORT))?;
    }
    socket.send_to(&binding_request(transaction), (daemon.ip(), STUN_PORT))?;
    let mut answer = [0; 128];
    let (len, from) = socket.recv_from(&mut answer).context("no answer")?;
    assert_eq!((from.ip(), from.port()), (daemon.ip(), STUN_PORT));
    assert_eq!(parse_binding_response(&answer[..len]), Some((transaction, socket.local_addr()?)));
    let status =
        daemon.wait("the answer to be counted", |status| status["counters"]["stun_answered"] == 1)?;
    assert_eq!(status["counters"]["stun_not_stun"], 3);
    Ok(())
}
