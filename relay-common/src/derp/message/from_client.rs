//! Frames that clients and mesh peers send.

use super::{super::PING_LEN, MessageError, key, prefix, put};
use crate::{
    derp::{
        HEADER_LEN, KEY_LEN, MIN_CLIENT_INFO,
        frame::{FrameType, Header},
    },
    key::NodePublic,
};

/// A frame from client to server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromClient<'a> {
    /// The client's key and the proof that the client owns it.
    ClientInfo {
        /// The key that the client claims; it is proved if `sealed` opens with it.
        key: &'a NodePublic,
        /// Nonce, tag and ciphertext of the JSON.
        sealed: &'a [u8],
    },
    /// A mesh peer asks the server to close all connections of a key.
    ClosePeer(&'a NodePublic),
    /// A mesh peer forwards a packet for a client of this server.
    ForwardPacket {
        /// The client that sent the packet.
        source: &'a NodePublic,
        /// The client that shall get the packet.
        dest: &'a NodePublic,
        /// The packet.
        payload: &'a [u8],
    },
    /// Whether this relay is the client's home.
    NotePreferred(bool),
    /// Asks whether the server is alive.
    Ping([u8; PING_LEN]),
    /// The answer to the server's Ping.
    Pong([u8; PING_LEN]),
    /// A packet for another client.
    SendPacket {
        /// The client that shall get the packet.
        dest: &'a NodePublic,
        /// The packet.
        payload: &'a [u8],
    },
    /// A frame of a type that no client sends in this version.
    Unknown {
        /// Number of the type.
        kind: u8,
        /// All of the payload.
        payload: &'a [u8],
    },
    /// A mesh peer asks for notices when clients connect and disconnect.
    WatchConns,
}

impl<'a> FromClient<'a> {
    /// Parses the message in a frame; `payload` is the whole payload.
    ///
    /// # Errors
    /// The content does not fit the type.
    pub fn parse(header: Header, payload: &'a [u8]) -> Result<Self, MessageError> {
        let exactly = |len| if payload.len() == len { Ok(()) } else { Err(MessageError::Length(header)) };
        let Some(kind) = header.frame_type() else { return Ok(Self::Unknown { kind: header.kind, payload }) };
        Ok(match kind {
            FrameType::ClientInfo if payload.len() < MIN_CLIENT_INFO => {
                return Err(MessageError::Length(header));
            }
            FrameType::ClientInfo => {
                let (key, sealed) = key(payload, header)?;
                Self::ClientInfo { key, sealed }
            }
            FrameType::ClosePeer => {
                exactly(KEY_LEN)?;
                Self::ClosePeer(key(payload, header)?.0)
            }
            FrameType::ForwardPacket => {
                let (source, rest) = key(payload, header)?;
                let (dest, payload) = key(rest, header)?;
                Self::ForwardPacket { source, dest, payload }
            }
            FrameType::NotePreferred => {
                exactly(1)?;
                Self::NotePreferred(payload != [0])
            }
            FrameType::Ping => Self::Ping(prefix(payload, header)?),
            FrameType::Pong => Self::Pong(prefix(payload, header)?),
            FrameType::SendPacket => {
                let (dest, payload) = key(payload, header)?;
                Self::SendPacket { dest, payload }
            }
            FrameType::WatchConns => {
                exactly(0)?;
                Self::WatchConns
            }
            FrameType::ServerKey
            | FrameType::ServerInfo
            | FrameType::RecvPacket
            | FrameType::KeepAlive
            | FrameType::PeerGone
            | FrameType::PeerPresent
            | FrameType::Health
            | FrameType::Restarting => Self::Unknown { kind: header.kind, payload },
        })
    }

    /// Appends the whole frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let kind = self.kind();
        match self {
            Self::ClientInfo { key, sealed } => put(out, kind, &[key.as_bytes(), sealed]),
            Self::ClosePeer(peer) => put(out, kind, &[peer.as_bytes()]),
            Self::ForwardPacket { source, dest, payload } => {
                put(out, kind, &[source.as_bytes(), dest.as_bytes(), payload]);
            }
            Self::NotePreferred(home) => put(out, kind, &[&[u8::from(*home)]]),
            Self::Ping(data) | Self::Pong(data) => put(out, kind, &[data]),
            Self::SendPacket { dest, payload } => put(out, kind, &[dest.as_bytes(), payload]),
            Self::Unknown { payload, .. } => put(out, kind, &[payload]),
            Self::WatchConns => put(out, kind, &[]),
        }
    }

    /// Bytes that [`Self::encode`] appends.
    pub const fn encoded_len(&self) -> usize {
        HEADER_LEN
            + match self {
                Self::ClientInfo { sealed, .. } => KEY_LEN + sealed.len(),
                Self::ClosePeer(_) => KEY_LEN,
                Self::ForwardPacket { payload, .. } => 2 * KEY_LEN + payload.len(),
                Self::NotePreferred(_) => 1,
                Self::Ping(_) | Self::Pong(_) => PING_LEN,
                Self::SendPacket { payload, .. } => KEY_LEN + payload.len(),
                Self::Unknown { payload, .. } => payload.len(),
                Self::WatchConns => 0,
            }
    }

    const fn kind(&self) -> u8 {
        (match self {
            Self::ClientInfo { .. } => FrameType::ClientInfo,
            Self::ClosePeer(_) => FrameType::ClosePeer,
            Self::ForwardPacket { .. } => FrameType::ForwardPacket,
            Self::NotePreferred(_) => FrameType::NotePreferred,
            Self::Ping(_) => FrameType::Ping,
            Self::Pong(_) => FrameType::Pong,
            Self::SendPacket { .. } => FrameType::SendPacket,
            Self::Unknown { kind, .. } => return *kind,
            Self::WatchConns => FrameType::WatchConns,
        }) as u8
    }
}
