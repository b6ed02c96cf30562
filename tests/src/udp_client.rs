//! A client of the UDP relay for tests: binds a leg, sends and receives, pings its peer through the relay.
//!
//! It blocks. Wire format and handshake: `relay-user/docs/protocol.md`. It is as strict as upstream's client:
//! it accepts packets only from the relay's address, and only Geneve with its own VNI.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rand_core::{OsRng, RngCore as _};
use relay_common::{
    disco::{
        CONTROL_LEN, Envelope,
        message::{Bind, BindKind, Message, Ping, Pong},
        seal_control,
    },
    endpoint::ServerEndpoint,
    geneve::{self, GENEVE_LEN, Geneve, Protocol},
    key::{DiscoPrivate, DiscoPublic, DiscoShared, NONCE_LEN},
};

use crate::{admin::Admin, process::until};

/// Maximum time of a wait.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// A handshake message is sent again after this time, because datagrams may get lost.
const RETRY: Duration = Duration::from_millis(500);
/// Longest datagram a test sends.
const MAX_DATAGRAM: usize = 1 << 16;

/// One client of a session.
#[derive(Debug)]
pub struct UdpClient {
    /// The client's socket, for tests that send other datagrams than this type does.
    pub socket: UdpSocket,
    /// The relay's address that this client uses.
    pub relay: SocketAddr,
    /// The session.
    pub endpoint: ServerEndpoint,
    peer: DiscoPublic,
    own: DiscoPublic,
    with_relay: DiscoShared,
    with_peer: DiscoShared,
    generation: u32,
}

impl UdpClient {
    /// A client of `endpoint` that sends to `relay` from `local`, in the network namespace of the calling
    /// thread. Its leg is not yet bound.
    pub fn new(
        endpoint: &ServerEndpoint,
        relay: SocketAddr,
        key: &DiscoPrivate,
        local: SocketAddr,
    ) -> Result<Self> {
        let own = key.public();
        let [a, b] = endpoint.client_disco;
        let peer = if own == a { b } else { a };
        ensure!(own == a || own == b, "the session is not for this key");
        let socket = UdpSocket::bind(local).with_context(|| format!("no socket on {local}"))?;
        Ok(Self {
            socket,
            relay,
            endpoint: endpoint.clone(),
            peer,
            own,
            with_relay: key.shared(&endpoint.server_disco).context("the relay's key makes no secret")?,
            with_peer: key.shared(&peer).context("the peer's key makes no secret")?,
            generation: 0,
        })
    }

    /// The address from which this client sends.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Binds this client's leg: Bind, Challenge, Answer. The relay does not confirm the Answer, so the daemon
    /// is asked.
    pub fn bind(&mut self, admin: &Admin) -> Result<()> {
        self.next_generation();
        let challenge = self.challenge()?;
        self.send_raw(&self.control(BindKind::Answer, challenge))?;
        let (own, local) = (self.own.to_string(), self.local()?.to_string());
        until("the leg to be bound", || {
            let sessions = admin.get("/v1/sessions")?;
            let legs =
                sessions.as_array().into_iter().flatten().filter_map(|session| session["legs"].as_array());
            Ok(legs.flatten().any(|leg| leg["client"] == own && leg["remote"] == local))
        })
    }

    /// Starts a new bind attempt.
    pub fn next_generation(&mut self) {
        self.generation += 1;
    }

    /// Changes to another socket, like a client behind a NAT that restarted; the leg is not yet bound there.
    /// Returns the old socket.
    pub fn roam(&mut self, to: UdpSocket) -> UdpSocket {
        std::mem::replace(&mut self.socket, to)
    }

    /// Sends Bind until a Challenge arrives; returns the challenge.
    pub fn challenge(&mut self) -> Result<[u8; 32]> {
        let bind = self.control(BindKind::Bind, [0; 32]);
        for _ in 0..DEADLINE.as_millis() / RETRY.as_millis() {
            self.send_raw(&bind)?;
            let end = Instant::now() + RETRY;
            while let Some(packet) = self.recv_raw(end.saturating_duration_since(Instant::now()))? {
                if let Some(challenge) = self.opened_challenge(&packet)? {
                    return Ok(challenge);
                }
            }
        }
        bail!("no challenge from {}", self.relay)
    }

    /// A handshake message of the current generation.
    pub fn control(&self, kind: BindKind, challenge: [u8; 32]) -> Vec<u8> {
        self.sealed(kind, &self.bind_message(challenge))
    }

    /// The body of a handshake message, which tests may change.
    pub fn bind_message(&self, challenge: [u8; 32]) -> Bind {
        let (vni, generation) = (self.endpoint.vni, self.generation);
        Bind { vni, generation, remote_key: self.peer, challenge }
    }

    /// A handshake message with any body.
    pub fn sealed(&self, kind: BindKind, bind: &Bind) -> Vec<u8> {
        seal_control(kind, bind, &self.own, &self.with_relay, &nonce())
    }

    /// A control packet with any plaintext in the box.
    pub fn sealed_plain(&self, plain: &[u8]) -> Vec<u8> {
        let nonce = nonce();
        let header = Geneve { control: true, protocol: Protocol::Disco, vni: self.endpoint.vni };
        let mut packet = header.encode().to_vec();
        let sealed = self.with_relay.seal(&nonce, plain);
        Envelope { sender: &self.own, nonce: &nonce, sealed: &sealed }.encode(&mut packet);
        packet
    }

    /// A WireGuard-typed packet of this session around `payload`.
    pub fn data(&self, payload: &[u8]) -> Vec<u8> {
        self.framed(Protocol::WireGuard, payload)
    }

    /// Sends `payload` to the peer.
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        self.send_raw(&self.data(payload))
    }

    /// Sends a datagram to the relay unchanged.
    pub fn send_raw(&self, datagram: &[u8]) -> Result<()> {
        let sent = self.socket.send_to(datagram, self.relay).context("cannot send")?;
        ensure!(sent == datagram.len(), "a datagram was cut");
        Ok(())
    }

    /// The next payload from the peer, or `None` if none arrives within `time`.
    pub fn recv(&self, time: Duration) -> Result<Option<Vec<u8>>> {
        let Some(packet) = self.recv_raw(time)? else { return Ok(None) };
        let (header, rest) = geneve::parse(&packet)?;
        let expected = Geneve { control: false, protocol: header.protocol, vni: self.endpoint.vni };
        ensure!(header == expected, "not a packet of this session: {header:?}");
        Ok(Some(rest.to_vec()))
    }

    /// The next datagram, which must come from the relay's address; `None` if none arrives within `time`.
    pub fn recv_raw(&self, time: Duration) -> Result<Option<Vec<u8>>> {
        if time.is_zero() {
            return Ok(None);
        }
        self.socket.set_read_timeout(Some(time))?;
        let mut buffer = vec![0; MAX_DATAGRAM];
        match self.socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                ensure!(from == self.relay, "a datagram from {from}, not from the address asked");
                buffer.truncate(len);
                Ok(Some(buffer))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A disco Ping to the peer, sealed for it.
    pub fn ping_packet(&self, tx_id: [u8; 12]) -> Vec<u8> {
        self.disco(&Message::Ping(Ping { tx_id, node_key: None, padding: 0 }))
    }

    /// Pings `peer`, the other client of the session, through the relay; returns the round trip's time.
    pub fn ping(&self, peer: &Self) -> Result<Duration> {
        let mut tx_id = [0; 12];
        OsRng.fill_bytes(&mut tx_id);
        let sent = Instant::now();
        self.send_raw(&self.ping_packet(tx_id))?;
        let Message::Ping(ping) = peer.recv_disco()? else { bail!("the peer got no ping") };
        ensure!(ping.tx_id == tx_id, "the peer got another ping");
        peer.send_raw(&peer.disco(&Message::Pong(Pong { tx_id, src: peer.relay })))?;
        let Message::Pong(pong) = self.recv_disco()? else { bail!("no pong came back") };
        ensure!(pong == Pong { tx_id, src: peer.relay }, "another pong came back");
        Ok(sent.elapsed())
    }

    fn recv_disco(&self) -> Result<Message> {
        let packet = self.recv(DEADLINE)?.context("nothing from the peer")?;
        let envelope = Envelope::parse(&packet).context("not disco")?;
        ensure!(*envelope.sender == self.peer, "not from the peer");
        let plain = self.with_peer.open(envelope.nonce, envelope.sealed).context("the box does not open")?;
        Ok(Message::parse(&plain)?)
    }

    fn disco(&self, message: &Message) -> Vec<u8> {
        let (mut plain, mut packet, nonce) = (Vec::new(), Vec::new(), nonce());
        message.encode(&mut plain);
        let sealed = self.with_peer.seal(&nonce, &plain);
        Envelope { sender: &self.own, nonce: &nonce, sealed: &sealed }.encode(&mut packet);
        self.framed(Protocol::Disco, &packet)
    }

    /// A packet of this session for the peer.
    pub fn framed(&self, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
        let header = Geneve { control: false, protocol, vni: self.endpoint.vni };
        [&header.encode()[..], payload].concat()
    }

    /// The challenge in a packet, if it belongs to the current generation. Late answers to earlier Binds are
    /// ignored.
    fn opened_challenge(&self, packet: &[u8]) -> Result<Option<[u8; 32]>> {
        ensure!(packet.len() == CONTROL_LEN, "a challenge of {} bytes", packet.len());
        let header = Geneve { control: true, protocol: Protocol::Disco, vni: self.endpoint.vni };
        ensure!(packet[..GENEVE_LEN] == header.encode(), "not a challenge of this session");
        let envelope = Envelope::parse(&packet[GENEVE_LEN..]).context("not disco")?;
        ensure!(*envelope.sender == self.endpoint.server_disco, "not from the relay");
        let plain = self.with_relay.open(envelope.nonce, envelope.sealed).context("the box does not open")?;
        let (kind, bind) = Bind::parse(&plain)?;
        ensure!(kind == BindKind::Challenge, "not a challenge: {kind:?}");
        ensure!((bind.vni, bind.remote_key) == (self.endpoint.vni, self.peer), "not our challenge: {bind:?}");
        Ok((bind.generation == self.generation).then_some(bind.challenge))
    }
}

fn nonce() -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    OsRng.fill_bytes(&mut nonce);
    nonce
}
