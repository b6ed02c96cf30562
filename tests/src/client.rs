//! A DERP client for tests: blocking, small, and stricter than stock clients.
//!
//! Every wait ends after [`DEADLINE`]. What it checks of a login: [`login`].

pub mod forger;
pub mod login;
pub mod tls;
pub mod wire;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rand_core::{OsRng, RngCore as _};
use relay_common::{
    derp::{
        PING_LEN,
        frame::Header,
        message::{FromClient, FromServer, PeerGoneReason},
    },
    key::{NodePrivate, NodePublic},
};

use self::{tls::Pinned, wire::Wire};

/// Maximum time of a wait; every answer takes only a few milliseconds.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How to reach a relay.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The address on which the relay listens.
    pub addr: SocketAddr,
    /// The transport of the connection.
    pub transport: Transport,
    /// How the DERP stream starts.
    pub start: Start,
}

/// The transport that carries the DERP stream.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TCP, as in derper with `-dev`.
    Plain,
    /// TLS 1.2, which does not allow a fast start.
    Tls12(Pinned),
    /// TLS 1.3.
    Tls13(Pinned),
}

/// Whether the client waits for an answer to its upgrade request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The client knows the server's key from the meta certificate and does not wait.
    Fast,
    /// The client waits for the answer.
    Normal,
}

/// A message from the relay, with owned data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A packet from another client.
    Packet {
        /// The client that sent the packet.
        source: NodePublic,
        /// The packet.
        payload: Vec<u8>,
    },
    /// A peer cannot be reached here.
    PeerGone {
        /// The key of the peer.
        peer: NodePublic,
        /// Why the peer is gone.
        reason: PeerGoneReason,
    },
    /// The answer to a ping.
    Pong([u8; PING_LEN]),
    /// A frame that shows that the connection is alive.
    KeepAlive,
    /// Any other frame, by its type.
    Other(u8),
}

/// A connection after the greeting: the server's key is known, and no client is logged in.
#[derive(Debug)]
pub struct Greeted {
    /// The stream, for tests that continue without [`Client`].
    pub wire: Wire,
    /// The server's key, from the meta certificate or the ServerKey frame.
    pub server: NodePublic,
}

/// A logged-in client.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    key: NodePrivate,
    server: NodePublic,
}

impl Greeted {
    /// Connects with a normal start, and reads the answer and the ServerKey frame.
    pub fn normal(dial: &Dial) -> Result<Self> {
        let mut wire = Wire::connect(dial)?;
        let server = login::greet(&mut wire, dial.addr)?;
        Ok(Self { wire, server })
    }

    /// Logs in with `key` and waits for ServerInfo.
    pub fn login(self, key: NodePrivate) -> Result<Client> {
        let Self { mut wire, server } = self;
        login::log_in(&mut wire, &key, &server)?;
        Ok(Client { wire, key, server })
    }
}

impl Client {
    /// Connects and logs in with a new key.
    pub fn connect(dial: &Dial) -> Result<Self> {
        Self::connect_as(dial, NodePrivate::generate(&mut OsRng))
    }

    /// Connects two clients, each with a new key.
    pub fn pair(dial: &Dial) -> Result<(Self, Self)> {
        Ok((Self::connect(dial)?, Self::connect(dial)?))
    }

    /// Connects and logs in with `key`.
    pub fn connect_as(dial: &Dial, key: NodePrivate) -> Result<Self> {
        match dial.start {
            Start::Normal => Greeted::normal(dial)?.login(key),
            Start::Fast => {
                let mut wire = Wire::connect(dial)?;
                let server = wire.meta_key().context("fast start needs TLS 1.3 and the meta certificate")?;
                login::log_in_fast(&mut wire, dial.addr, &key, &server)?;
                Ok(Self { wire, key, server })
            }
        }
    }

    /// The client's node key.
    pub fn key(&self) -> NodePublic {
        self.key.public()
    }

    /// The relay's node key.
    pub fn server(&self) -> NodePublic {
        self.server
    }

    /// Sends a packet.
    pub fn send(&mut self, dest: &NodePublic, payload: &[u8]) -> Result<()> {
        self.say(&FromClient::SendPacket { dest, payload })
    }

    /// Sends any frame.
    pub fn say(&mut self, frame: &FromClient<'_>) -> Result<()> {
        let mut bytes = Vec::with_capacity(frame.encoded_len());
        frame.encode(&mut bytes);
        self.wire.write(&bytes)
    }

    /// Sends bytes that need not be a frame.
    pub fn write_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.wire.write(bytes)
    }

    /// The stream alone, for tests that continue below the frames.
    pub fn into_wire(self) -> Wire {
        self.wire
    }

    /// The stream, for tests of the transport.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Waits for the next frame.
    pub fn recv(&mut self) -> Result<Message> {
        self.recv_within(DEADLINE)?.context("nothing came before the deadline")
    }

    /// The next frame, or `None` if no frame arrives within `time`.
    pub fn recv_within(&mut self, time: Duration) -> Result<Option<Message>> {
        let Some((header, payload)) = self.wire.frame_within(time)? else { return Ok(None) };
        Ok(Some(message(header, &payload)?))
    }

    /// The next packet; only keep-alives may come before it.
    pub fn recv_packet(&mut self) -> Result<(NodePublic, Vec<u8>)> {
        loop {
            match self.recv()? {
                Message::Packet { source, payload } => return Ok((source, payload)),
                Message::KeepAlive => {}
                other => bail!("expected a packet, got {other:?}"),
            }
        }
    }

    /// Pings the relay; returns the round trip's time and the messages before the pong. The pong also shows
    /// that the relay has handled everything that this client sent before.
    pub fn ping(&mut self) -> Result<(Duration, Vec<Message>)> {
        let mut data = [0; PING_LEN];
        OsRng.fill_bytes(&mut data);
        let asked = Instant::now();
        self.say(&FromClient::Ping(data))?;
        let mut before = Vec::new();
        loop {
            match self.recv()? {
                Message::Pong(echo) if echo == data => return Ok((asked.elapsed(), before)),
                Message::Pong(_) => bail!("a pong that repeats other bytes than the ping's"),
                other => before.push(other),
            }
        }
    }

    /// Waits until the relay closes the connection; returns the messages before that.
    pub fn until_closed(&mut self) -> Result<Vec<Message>> {
        self.wire
            .frames_until_closed()?
            .into_iter()
            .map(|(header, payload)| message(header, &payload))
            .collect()
    }
}

fn message(header: Header, payload: &[u8]) -> Result<Message> {
    Ok(match FromServer::parse(header, payload)? {
        FromServer::RecvPacket { source, payload } => {
            Message::Packet { source: *source, payload: payload.to_vec() }
        }
        FromServer::PeerGone { peer, reason } => Message::PeerGone { peer: *peer, reason },
        FromServer::Pong(data) => Message::Pong(data),
        FromServer::KeepAlive => Message::KeepAlive,
        _ => Message::Other(header.kind),
    })
}
