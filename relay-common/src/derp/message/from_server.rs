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
    /// 0x00: the peer left the region.
    Disconnected,
    /// 0x01: the relay does not know the key.
    NotHere,
    /// A reason that only a later version knows.
    Other(u8),
}

/// Bits that describe the client in a PeerPresent frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerPresentFlags(pub u8);

impl PeerPresentFlags {
    /// An ordinary client: no other bit is set.
    pub const REGULAR: Self = Self(1);
    /// The client holds the mesh key.
    pub const MESH_PEER: Self = Self(2);
    /// The client is a prober, as it says itself.
    pub const PROBER: Self = Self(4);
    /// The client would prefer another relay of the region.
    pub const NOT_IDEAL: Self = Self(8);

    /// The union of both sets of bits.
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
    /// A problem that the user should know about, UTF-8; empty text: the problem is over.
    Health(&'a [u8]),
    /// An empty frame that shows that the connection is alive.
    KeepAlive,
    /// A peer cannot be reached here.
    PeerGone {
        /// The key of the peer.
        peer: &'a NodePublic,
        /// Why the peer is gone.
        reason: PeerGoneReason,
    },
    /// A client is connected; only watchers get this frame.
    PeerPresent {
        /// The key of the client.
        peer: &'a NodePublic,
        /// The address that the client connects from, if known.
        addr: Option<SocketAddr>,
        /// What kind of client it is.
        flags: PeerPresentFlags,
        /// The client's application name; it is left out unless it is at most 32 bytes of printable ASCII.
        app_name: &'a str,
    },
    /// Asks whether the client is alive.
    Ping([u8; PING_LEN]),
    /// The answer to the client's Ping.
    Pong([u8; PING_LEN]),
    /// A packet from another client.
    RecvPacket {
        /// The client that sent the packet.
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
    /// The server's key, in the first frame of a connection.
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
    /// Parses the message in a frame; `payload` is the whole payload. Longer payloads are accepted where
    /// upstream's client accepts them.
    ///
    /// # Errors
    /// The content is too short for the type.
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

/// Decodes an address; an all-zero address means that the relay does not know it.
fn known_addr(bytes: &[u8; ADDR_LEN]) -> Option<SocketAddr> {
    let addr = addr::decode(bytes);
    (!addr.ip().is_unspecified()).then_some(addr)
}

/// Reads the length-prefixed name; it is empty if it runs past the frame or is not valid.
fn app_name(bytes: &[u8]) -> &str {
    let Some((len, rest)) = bytes.split_first() else { return "" };
    let name = rest.get(..usize::from(*len)).unwrap_or_default();
    core::str::from_utf8(name).map_or("", valid_name)
}

fn valid_name(name: &str) -> &str {
    if AppName::is_valid(name) { name } else { "" }
}
