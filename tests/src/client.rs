//! A DERP client for tests: blocking, small, and stricter than stock clients.
//!
//! It checks what stock clients do not check: every header of the upgrade answer, that ServerKey comes first
//! and holds the key that the greeting announced, and that ServerInfo comes second and opens. Every wait ends
//! after [`DEADLINE`].

pub mod forger;
pub mod tls;
pub mod wire;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rand_core::{OsRng, RngCore as _};
use relay_common::{
    derp::{
        NONCE_LEN, PING_LEN, PROTOCOL_VERSION,
        frame::Header,
        info::{ClientInfo, ServerInfo},
        login,
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
        wire.write(&request(dial, false))?;
        let answered = wire.upgrade_answer()?;
        let server = server_key(&mut wire)?;
        ensure!(server == answered, "ServerKey is not the key of the upgrade answer");
        Ok(Self { wire, server })
    }

    /// Logs in with `key` and waits for ServerInfo.
    pub fn login(mut self, key: NodePrivate) -> Result<Client> {
        self.wire.write(&client_info(&key, &self.server)?)?;
        Client::expect_info(self.wire, key, self.server)
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
                let promised =
                    wire.meta_key().context("fast start needs TLS 1.3 and the meta certificate")?;
                // Request and ClientInfo are one write: the relay must find the ClientInfo behind the
                // request.
                wire.write(&[request(dial, true), client_info(&key, &promised)?].concat())?;
                let server = server_key(&mut wire)?;
                ensure!(server == promised, "ServerKey is not the key of the meta certificate");
                Self::expect_info(wire, key, server)
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

    fn expect_info(mut wire: Wire, key: NodePrivate, server: NodePublic) -> Result<Self> {
        let (header, payload) = wire.frame().context("no ServerInfo")?;
        let info = login::parse_server_info(header, &payload, &key, &server)?;
        ensure!(info == ServerInfo { version: PROTOCOL_VERSION.into(), ..info }, "not our protocol version");
        Ok(Self { wire, key, server })
    }
}

/// The ClientInfo frame of an ordinary client.
pub fn client_info(key: &NodePrivate, server: &NodePublic) -> Result<Vec<u8>> {
    login::client_info_frame(key, server, &ClientInfo::stock(), nonce())
        .context("the server's key makes no secret")
}

/// Random bytes for a box.
pub fn nonce() -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    OsRng.fill_bytes(&mut nonce);
    nonce
}

/// The request of the stock client, with the same headers.
pub fn request(dial: &Dial, fast: bool) -> Vec<u8> {
    let fast = if fast { "Derp-Fast-Start: 1\r\n" } else { "" };
    format!(
        "GET /derp HTTP/1.1\r\nHost: {}\r\nUser-Agent: Go-http-client/1.1\r\nConnection: Upgrade\r\n{fast}\
         Upgrade: DERP\r\n\r\n",
        dial.addr
    )
    .into_bytes()
}

fn server_key(wire: &mut Wire) -> Result<NodePublic> {
    let (header, payload) = wire.frame().context("no ServerKey")?;
    Ok(login::parse_server_key(header, &payload)?)
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
