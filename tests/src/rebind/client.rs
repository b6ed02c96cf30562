//! The two clients of a session: their handshake, and their packets.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand_core::{OsRng, RngCore as _};
use relay_common::disco::message::{Bind, BindKind};
use relay_common::disco::{CONTROL_LEN, Envelope, seal_control};
use relay_common::endpoint::ServerEndpoint;
use relay_common::geneve::{GENEVE_LEN, Geneve, Protocol};
use relay_common::key::{DiscoPrivate, DiscoShared, NONCE_LEN};

use super::ports::Owner;

/// A Bind is sent again after this time, under a new generation.
const RETRY: Duration = Duration::from_millis(100);
/// Binds without a challenge after which the session has ended.
const TRIES: usize = 5;
/// Pause while nothing arrives.
const PAUSE: Duration = Duration::from_micros(20);

/// A handshake as an attacker on the path sees it.
#[derive(Clone, Debug)]
pub(super) struct Handshake {
    pub(super) bind: Vec<u8>,
    pub(super) answer: Vec<u8>,
}

/// A session and its clients.
#[derive(Debug)]
pub(super) struct Pair {
    /// The number of the session within the run.
    pub(super) serial: u64,
    pub(super) endpoint: ServerEndpoint,
    /// The clients' keys, in the order of the legs.
    pub(super) keys: [DiscoPrivate; 2],
    /// The ports from which the clients are bound.
    pub(super) ports: [Option<usize>; 2],
    with_relay: [DiscoShared; 2],
    generations: [u32; 2],
}

impl Pair {
    pub(super) fn new(serial: u64, endpoint: ServerEndpoint, keys: [DiscoPrivate; 2]) -> Result<Self> {
        let shared = |key: &DiscoPrivate| key.shared(&endpoint.server_disco).context("no secret");
        let with_relay = [shared(&keys[0])?, shared(&keys[1])?];
        Ok(Self { serial, endpoint, keys, ports: [None; 2], with_relay, generations: [0; 2] })
    }

    /// A packet for the client of `leg`, which it names.
    pub(super) fn data(&self, leg: usize, number: u64) -> Vec<u8> {
        let header = Geneve { control: false, protocol: Protocol::WireGuard, vni: self.endpoint.vni };
        let body = Owner { serial: self.serial, leg }.body(number);
        [&header.encode()[..], &body].concat()
    }

    /// Binds a leg from `socket`, and makes sure of it. Other datagrams that arrive there go to `other`.
    /// `None`: the relay knows the session no more.
    pub(super) fn bind(
        &mut self,
        leg: usize,
        socket: &UdpSocket,
        retries: &mut u64,
        mut other: impl FnMut(&[u8]),
    ) -> Result<Option<Handshake>> {
        for _ in 0..TRIES {
            let (bind, challenge) = match self.challenge(leg, socket, &mut other)? {
                Some(challenged) => challenged,
                None => {
                    *retries += 1;
                    continue;
                }
            };
            let answer = self.control(leg, BindKind::Answer, challenge);
            send(socket, &answer)?;
            // The challenge for a further Bind comes after the answer was served. That Bind stays open, as a
            // client's does that lost its challenge.
            if self.challenge(leg, socket, &mut other)?.is_some() {
                return Ok(Some(Handshake { bind, answer }));
            }
            *retries += 1;
        }
        Ok(None)
    }

    /// Sends a Bind of the next generation; returns it with its challenge, or `None` if none comes.
    fn challenge(
        &mut self,
        leg: usize,
        socket: &UdpSocket,
        other: &mut impl FnMut(&[u8]),
    ) -> Result<Option<(Vec<u8>, [u8; 32])>> {
        self.generations[leg] += 1;
        let bind = self.control(leg, BindKind::Bind, [0; 32]);
        send(socket, &bind)?;
        let end = Instant::now() + RETRY;
        let mut buffer = [0; 2048];
        while Instant::now() < end {
            match socket.recv(&mut buffer) {
                Ok(len) => match self.opened(leg, &buffer[..len]) {
                    Some(challenge) => return Ok(Some((bind, challenge))),
                    None => other(&buffer[..len]),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(error) => return Err(error).context("receiving"),
            }
        }
        Ok(None)
    }

    /// The challenge for this leg's present generation.
    fn opened(&self, leg: usize, packet: &[u8]) -> Option<[u8; 32]> {
        let header = Geneve { control: true, protocol: Protocol::Disco, vni: self.endpoint.vni };
        if packet.len() != CONTROL_LEN || packet[..GENEVE_LEN] != header.encode() {
            return None;
        }
        let envelope = Envelope::parse(&packet[GENEVE_LEN..]).ok()?;
        let plain = self.with_relay[leg].open(envelope.nonce, envelope.sealed)?;
        let (kind, bind) = Bind::parse(&plain).ok()?;
        (kind == BindKind::Challenge && bind.generation == self.generations[leg]).then_some(bind.challenge)
    }

    fn control(&self, leg: usize, kind: BindKind, challenge: [u8; 32]) -> Vec<u8> {
        let [own, peer] = [leg, 1 - leg].map(|leg| self.keys[leg].public());
        let (vni, generation) = (self.endpoint.vni, self.generations[leg]);
        let mut nonce = [0; NONCE_LEN];
        OsRng.fill_bytes(&mut nonce);
        let bind = Bind { vni, generation, remote_key: peer, challenge };
        seal_control(kind, &bind, &own, &self.with_relay[leg], &nonce)
    }
}

fn send(socket: &UdpSocket, datagram: &[u8]) -> Result<()> {
    match socket.send(datagram) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error).context("sending a handshake"),
        _ => Ok(()),
    }
}
