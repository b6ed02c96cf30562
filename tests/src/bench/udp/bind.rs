//! Allocates and binds sessions in bulk, over a few sockets and with a few keys, through the relay's own
//! handshake.
//!
//! A key costs the relay and the client one Diffie-Hellman for each pair, so the client's share is made once
//! for each key: a thousand keys on each side make a million pairs. A client's socket is a leg of many
//! sessions. Requests are pipelined, and many handshakes are on their way at a time.

use std::collections::HashMap;
use std::io::{BufReader, ErrorKind, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rand_core::{OsRng, RngCore as _};
use relay_common::disco::message::{Bind, BindKind};
use relay_common::disco::{CONTROL_LEN, Envelope, seal_control};
use relay_common::endpoint::ServerEndpoint;
use relay_common::geneve::{self, GENEVE_LEN, Vni};
use relay_common::key::{DiscoPrivate, DiscoPublic, DiscoShared, NONCE_LEN};
use serde_json::json;

use super::http;
use crate::admin::Admin;

/// Handshakes on their way at a time: their messages fit into any relay's socket buffer.
const WINDOW: usize = 128;
/// Requests on their way at a time.
const PIPELINE: usize = 64;
/// A handshake message is sent again after this time.
const RETRY: Duration = Duration::from_millis(250);
/// Times that nothing may arrive before the relay counts as gone.
const TRIES: usize = 40;
/// Pause while nothing arrives.
const PAUSE: Duration = Duration::from_micros(50);

/// One session of the load.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Session {
    /// The session's VNI.
    pub(in crate::bench) vni: Vni,
    keys: [u32; 2],
}

/// The clients' keys on both sides, and what they share with the relay.
pub(in crate::bench) struct Keys {
    sides: [Vec<Key>; 2],
    server: DiscoPublic,
}

struct Key {
    public: DiscoPublic,
    shared: DiscoShared,
}

impl Keys {
    /// `count` keys for each side of a relay, which is asked for its own.
    pub(in crate::bench) fn new(admin: &Admin, count: usize) -> anyhow::Result<Keys> {
        let probe = [(); 2].map(|()| DiscoPrivate::generate(&mut OsRng).public());
        let server = admin.allocate(probe)?.server_disco;
        let key = || {
            let private = DiscoPrivate::generate(&mut OsRng);
            let shared = private.shared(&server).context("the relay's key makes no secret")?;
            Ok(Key { public: private.public(), shared })
        };
        let side = || (0..count).map(|_| key()).collect::<anyhow::Result<Vec<_>>>();
        Ok(Keys { sides: [side()?, side()?], server })
    }

    /// Allocates the sessions of the pairs `range`, in this order.
    pub(in crate::bench) fn allocate(
        &self,
        admin: &Admin,
        range: std::ops::Range<usize>,
    ) -> anyhow::Result<Vec<Session>> {
        let count = self.sides[1].len();
        let stream = UnixStream::connect(admin.path()).context("connecting to the admin socket")?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let (mut writer, mut reader) = (stream.try_clone()?, BufReader::new(stream));
        let (mut sessions, mut asked, mut out) = (Vec::with_capacity(range.len()), range.start, Vec::new());
        while sessions.len() < range.len() {
            let answered = range.start + sessions.len();
            // The pipeline is filled when half of it is answered.
            if asked - answered <= PIPELINE / 2 {
                out.clear();
                while asked < range.end && asked - answered < PIPELINE {
                    let pair = self.pair(asked, count);
                    let pair = [0, 1].map(|side| self.sides[side][pair[side] as usize].public);
                    http::post(&mut out, "/v1/udp/endpoints", &json!({ "ClientDisco": pair }).to_string());
                    asked += 1;
                }
                writer.write_all(&out)?;
            }
            let body = http::answer(&mut reader).context("allocating sessions")?;
            let endpoint: ServerEndpoint = serde_json::from_slice(&body)?;
            ensure!(endpoint.server_disco == self.server, "another relay answered");
            let keys = self.pair(range.start + sessions.len(), count);
            sessions.push(Session { vni: endpoint.vni, keys });
        }
        Ok(sessions)
    }

    /// Binds both legs of all `sessions`: side `s` of session `n` from socket `n` of `sockets[s]`, and again
    /// from the first one behind the last.
    pub(in crate::bench) fn bind(
        &self,
        sockets: [&[UdpSocket]; 2],
        sessions: &[Session],
    ) -> anyhow::Result<()> {
        for (side, sockets) in sockets.iter().enumerate() {
            for (index, socket) in sockets.iter().enumerate() {
                let of_socket: Vec<Session> =
                    sessions.iter().skip(index).step_by(sockets.len()).copied().collect();
                Binder::new(self, side, socket).all(&of_socket)?;
            }
        }
        Ok(())
    }

    fn pair(&self, number: usize, count: usize) -> [u32; 2] {
        [(number / count % self.sides[0].len()) as u32, (number % count) as u32]
    }
}

/// The handshakes of one socket.
struct Binder<'k> {
    keys: &'k Keys,
    side: usize,
    socket: &'k UdpSocket,
    nonce: [u8; NONCE_LEN],
    count: u64,
    buffer: [u8; 2048],
}

impl<'k> Binder<'k> {
    fn new(keys: &'k Keys, side: usize, socket: &'k UdpSocket) -> Binder<'k> {
        let mut nonce = [0; NONCE_LEN];
        OsRng.fill_bytes(&mut nonce);
        Binder { keys, side, socket, nonce, count: 0, buffer: [0; 2048] }
    }

    fn all(&mut self, sessions: &[Session]) -> anyhow::Result<()> {
        let mut waiting: HashMap<u32, Session> = HashMap::new();
        let (mut next, mut heard, mut tries) = (0, Instant::now(), 0);
        while next < sessions.len() || !waiting.is_empty() {
            while next < sessions.len() && waiting.len() < WINDOW {
                waiting.insert(sessions[next].vni.get(), sessions[next]);
                self.send(&sessions[next], BindKind::Bind, [0; 32])?;
                next += 1;
            }
            match self.challenged(&waiting)? {
                Some((session, challenge)) => {
                    self.send(&session, BindKind::Answer, challenge)?;
                    waiting.remove(&session.vni.get());
                    (heard, tries) = (Instant::now(), 0);
                }
                None if heard.elapsed() > RETRY => {
                    ensure!(tries < TRIES, "{} handshakes stay without a challenge", waiting.len());
                    (heard, tries) = (Instant::now(), tries + 1);
                    let again: Vec<Session> = waiting.values().copied().collect();
                    again.iter().try_for_each(|session| self.send(session, BindKind::Bind, [0; 32]))?;
                }
                None => thread::sleep(PAUSE),
            }
        }
        // The challenge for one more Bind comes after all Answers were served; Binds change no binding.
        let Some(last) = sessions.last() else { return Ok(()) };
        let waiting = HashMap::from([(last.vni.get(), *last)]);
        for _ in 0..TRIES {
            self.send(last, BindKind::Bind, [0; 32])?;
            let end = Instant::now() + RETRY;
            while Instant::now() < end {
                if self.challenged(&waiting)?.is_some() {
                    return Ok(());
                }
                thread::sleep(PAUSE);
            }
        }
        bail!("the relay has stopped answering")
    }

    fn send(&mut self, session: &Session, kind: BindKind, challenge: [u8; 32]) -> anyhow::Result<()> {
        let key = |side: usize| &self.keys.sides[side][session.keys[side] as usize];
        self.count += 1;
        self.nonce[..8].copy_from_slice(&self.count.to_be_bytes());
        let remote_key = key(1 - self.side).public;
        let bind = Bind { vni: session.vni, generation: 1, remote_key, challenge };
        let own = key(self.side);
        let packet = seal_control(kind, &bind, &own.public, &own.shared, &self.nonce);
        match self.socket.send(&packet) {
            Ok(_) => Ok(()),
            // It is as good as lost, and sent again.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error).context("sending a handshake"),
        }
    }

    /// The next challenge that one of `waiting` gets.
    fn challenged(&mut self, waiting: &HashMap<u32, Session>) -> anyhow::Result<Option<(Session, [u8; 32])>> {
        loop {
            let len = match self.socket.recv(&mut self.buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("receiving a challenge"),
            };
            // Anything else, such as a challenge for a Bind that was sent twice, changes nothing.
            let packet = &self.buffer[..len];
            if len != CONTROL_LEN {
                continue;
            }
            let Ok((header, _)) = geneve::parse(packet) else { continue };
            let Some(session) = waiting.get(&header.vni.get()) else { continue };
            let Ok(envelope) = Envelope::parse(&packet[GENEVE_LEN..]) else { continue };
            let own = &self.keys.sides[self.side][session.keys[self.side] as usize];
            let plain = own.shared.open(envelope.nonce, envelope.sealed).context("a box does not open")?;
            let (kind, bind) = Bind::parse(&plain)?;
            ensure!(kind == BindKind::Challenge && bind.vni == session.vni, "no challenge: {bind:?}");
            return Ok(Some((*session, bind.challenge)));
        }
    }
}

/// Drains what is left in the sockets' buffers after binding.
pub(in crate::bench) fn drain(sockets: &[UdpSocket]) {
    let mut buffer = [0; 2048];
    for socket in sockets {
        while socket.recv(&mut buffer).is_ok() {}
    }
}
