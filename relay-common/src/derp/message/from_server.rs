//! Frames a server sends.

use super::{super::PING_LEN, MessageError, key, prefix, put};
use crate::{
    addr::{self, ADDR_LEN},
    derp::{
        HEADER_LEN, KEY_LEN, MAGIC, NONCE_LEN,
        frame::{FrameType, Header},
        info::AppName,
    },
    key::NodePublic,
};
use core::net::SocketAddr;

/// Why a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerGoneReason {
    /// 0x00: it left the region.
    Disconnected,
    /// 0x01: the relay does not know the key.
    NotHere,
    /// A number of a later version.
    Other(u8),
}

/// What kind of client a PeerPresent announces: bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerPresentFlags(pub u8);

impl PeerPresentFlags {
    /// None of the others: an ordinary client.
    pub const REGULAR: Self = Self(1);
    /// Holds the mesh key.
    pub const MESH_PEER: Self = Self(2);
    /// Said it is a prober.
    pub const PROBER: Self = Self(4);
    /// Wished for another relay of the region.
    pub const NOT_IDEAL: Self = Self(8);

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A frame from server to client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromServer<'a> {
    /// A problem the user should hear of, UTF-8; empty: healthy again.
    Health(&'a [u8]),
    /// Nothing, so that the connection is seen to live.
    KeepAlive,
    /// A peer cannot be reached here.
    PeerGone {
        /// Who.
        peer: &'a NodePublic,
        /// Why.
        reason: PeerGoneReason,
    },
    /// A client is connected; to watchers only.
    PeerPresent {
        /// Who.
        peer: &'a NodePublic,
        /// Where it connects from, if known.
        addr: Option<SocketAddr>,
        /// What it is.
        flags: PeerPresentFlags,
        /// What it calls itself; at most 32 bytes of printable ASCII, else it is left out.
        app_name: &'a str,
    },
    /// A question whether we are there.
    Ping([u8; PING_LEN]),
    /// The answer to our Ping.
    Pong([u8; PING_LEN]),
    /// A packet from another client.
    RecvPacket {
        /// Who sent it.
        source: &'a NodePublic,
        /// The packet.
        payload: &'a [u8],
    },
    /// The server is about to restart.
    Restarting {
        /// Milliseconds to wait before connecting again.
        reconnect_in_ms: u32,
        /// Milliseconds to keep trying.
        try_for_ms: u32,
    },
    /// The server's half of login: nonce, tag and ciphertext of the JSON.
    ServerInfo {
        /// Nonce, tag and ciphertext.
        sealed: &'a [u8],
    },
    /// The server's key, first of all frames.
    ServerKey {
        /// The key.
        key: &'a NodePublic,
    },
    /// A frame of a type that no server sends in this version.
    Unknown {
        /// Number of the type.
        kind: u8,
        /// All of the payload.
        payload: &'a [u8],
    },
}

impl<'a> FromServer<'a> {
    /// The message in a frame; `payload` is all of it. As tolerant of longer payloads as upstream's client.
    ///
    /// # Errors
    /// Its content is too short for its type.
    pub fn parse(header: Header, payload: &'a [u8]) -> Result<Self, MessageError> {
        let Some(kind) = header.frame_type() else { return Ok(Self::Unknown { kind: header.kind, payload }) };
        Ok(match kind {
            FrameType::Health => Self::Health(payload),
            FrameType::KeepAlive => Self::KeepAlive,
            FrameType::PeerGone => {
                let (peer, rest) = key(payload, header)?;
                let reason = match rest.first() {
                    None | Some(0) => PeerGoneReason::Disconnected,
                    Some(1) => PeerGoneReason::NotHere,
                    Some(other) => PeerGoneReason::Other(*other),
                };
                Self::PeerGone { peer, reason }
            }
            FrameType::PeerPresent => {
                let (peer, rest) = key(payload, header)?;
                let (addr, rest) = match rest.split_first_chunk::<ADDR_LEN>() {
                    Some((bytes, rest)) => (known_addr(bytes), rest),
                    None => (None, &[][..]),
                };
                let flags = PeerPresentFlags(rest.first().copied().unwrap_or_default());
                Self::PeerPresent { peer, addr, flags, app_name: app_name(rest.get(1..).unwrap_or_default()) }
            }
            FrameType::Ping => Self::Ping(prefix(payload, header)?),
            FrameType::Pong => Self::Pong(prefix(payload, header)?),
            FrameType::RecvPacket => {
                let (source, payload) = key(payload, header)?;
                Self::RecvPacket { source, payload }
            }
            FrameType::Restarting => {
                let [a, b, c, d, e, f, g, h] = prefix(payload, header)?;
                let (reconnect_in_ms, try_for_ms) =
                    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
                Self::Restarting { reconnect_in_ms, try_for_ms }
            }
            FrameType::ServerInfo if payload.len() < NONCE_LEN => return Err(MessageError::Length(header)),
            FrameType::ServerInfo => Self::ServerInfo { sealed: payload },
            FrameType::ServerKey => {
                if payload.len() < MAGIC.len() + KEY_LEN {
                    return Err(MessageError::Length(header));
                }
                let rest = payload.strip_prefix(&MAGIC).ok_or(MessageError::Magic)?;
                Self::ServerKey { key: key(rest, header)?.0 }
            }
            FrameType::ClientInfo
            | FrameType::SendPacket
            | FrameType::NotePreferred
            | FrameType::ForwardPacket
            | FrameType::WatchConns
            | FrameType::ClosePeer => Self::Unknown { kind: header.kind, payload },
        })
    }

    /// Appends the whole frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let kind = self.kind();
        match self {
            Self::Health(text) => put(out, kind, &[text]),
            Self::KeepAlive => put(out, kind, &[]),
            Self::PeerGone { peer, reason } => {
                let reason = match reason {
                    PeerGoneReason::Disconnected => 0,
                    PeerGoneReason::NotHere => 1,
                    PeerGoneReason::Other(number) => *number,
                };
                put(out, kind, &[peer.as_bytes(), &[reason]]);
            }
            Self::PeerPresent { peer, addr, flags, app_name } => {
                let addr = addr.map_or([0; ADDR_LEN], addr::encode);
                let name = valid_name(app_name);
                put(out, kind, &[peer.as_bytes(), &addr, &[flags.0, name.len() as u8], name.as_bytes()]);
            }
            Self::Ping(data) | Self::Pong(data) => put(out, kind, &[data]),
            Self::RecvPacket { source, payload } => put(out, kind, &[source.as_bytes(), payload]),
            Self::Restarting { reconnect_in_ms, try_for_ms } => {
                put(out, kind, &[&reconnect_in_ms.to_be_bytes(), &try_for_ms.to_be_bytes()]);
            }
            Self::ServerInfo { sealed } => put(out, kind, &[sealed]),
            Self::ServerKey { key } => put(out, kind, &[&MAGIC, key.as_bytes()]),
            Self::Unknown { payload, .. } => put(out, kind, &[payload]),
        }
    }

    /// Bytes that [`Self::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN
            + match self {
                Self::Health(text) => text.len(),
                Self::KeepAlive => 0,
                Self::PeerGone { .. } => KEY_LEN + 1,
                Self::PeerPresent { app_name, .. } => KEY_LEN + ADDR_LEN + 2 + valid_name(app_name).len(),
                Self::Ping(_) | Self::Pong(_) => PING_LEN,
                Self::RecvPacket { payload, .. } => KEY_LEN + payload.len(),
                Self::Restarting { .. } => 8,
                Self::ServerInfo { sealed } => sealed.len(),
                Self::ServerKey { .. } => MAGIC.len() + KEY_LEN,
                Self::Unknown { payload, .. } => payload.len(),
            }
    }

    const fn kind(&self) -> u8 {
        (match self {
            Self::Health(_) => FrameType::Health,
            Self::KeepAlive => FrameType::KeepAlive,
            Self::PeerGone { .. } => FrameType::PeerGone,
            Self::PeerPresent { .. } => FrameType::PeerPresent,
            Self::Ping(_) => FrameType::Ping,
            Self::Pong(_) => FrameType::Pong,
            Self::RecvPacket { .. } => FrameType::RecvPacket,
            Self::Restarting { .. } => FrameType::Restarting,
            Self::ServerInfo { .. } => FrameType::ServerInfo,
            Self::ServerKey { .. } => FrameType::ServerKey,
            Self::Unknown { kind, .. } => return *kind,
        }) as u8
    }
}

/// An all-zero address means that the relay does not know it.
fn known_addr(bytes: &[u8; ADDR_LEN]) -> Option<SocketAddr> {
    let addr = addr::decode(bytes);
    (!addr.ip().is_unspecified()).then_some(addr)
}

/// The length-prefixed name, or none if it runs past the frame or is not valid.
fn app_name(bytes: &[u8]) -> &str {
    let Some((len, rest)) = bytes.split_first() else { return "" };
    let name = rest.get(..usize::from(*len)).unwrap_or_default();
    core::str::from_utf8(name).map_or("", valid_name)
}

fn valid_name(name: &str) -> &str {
    if AppName::is_valid(name) { name } else { "" }
}
