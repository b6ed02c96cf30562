//! DERP, the packet relay protocol over TLS: its constants, frames and messages.
//!
//! A connection is a stream of frames in both directions: one byte of type, four bytes of length, payload.
//! Upstream describes it in `derp/derp.go`; the numbers here are those of Tailscale 1.104. Each layer knows
//! only the layers before it: [`frame`] (types, header), [`limits`] (which lengths are legal), [`deframer`]
//! (bytes to frames), [`message`] (frames to borrowed enums), [`info`] (sealed JSON bodies), [`login`] (their
//! order).

#[cfg(feature = "std")]
pub mod deframer;
pub mod frame;
#[cfg(feature = "std")]
pub mod info;
pub mod limits;
#[cfg(feature = "std")]
pub mod login;
#[cfg(feature = "std")]
pub mod message;

pub use crate::disco::is_disco as is_disco_packet;
pub use crate::key::{KEY_LEN, NONCE_LEN};

/// The first bytes of a ServerKey frame: `DERP` and U+1F511.
pub const MAGIC: [u8; 8] = *b"DERP\xf0\x9f\x94\x91";
/// The protocol version; version 1 had no source key in RecvPacket.
pub const PROTOCOL_VERSION: u8 = 2;
/// Bytes of a frame header.
pub const HEADER_LEN: usize = 5;
/// Longest payload of one packet, in bytes, without keys and header.
pub const MAX_PACKET: usize = 65_536;
/// Longest frame a server reads after login, in bytes after the header: the longest ForwardPacket.
pub const MAX_FRAME: usize = MAX_PACKET + 2 * KEY_LEN;
/// Longest frame of an unknown type that a server skips, in bytes after the header: the longest SendPacket.
pub const MAX_UNKNOWN_FRAME: usize = MAX_PACKET + KEY_LEN;
/// Longest frame a client reads, in bytes after the header.
pub const MAX_CLIENT_FRAME: usize = 1 << 20;
/// Shortest ClientInfo frame, in bytes after the header: key and nonce.
pub const MIN_CLIENT_INFO: usize = KEY_LEN + NONCE_LEN;
/// Longest ClientInfo frame, in bytes after the header.
pub const MAX_CLIENT_INFO: usize = 256 << 10;
/// Bytes of a Pong. A server answers a longer Ping with its first eight bytes.
pub const PING_LEN: usize = 8;
/// Longest Ping, in bytes after the header.
pub const MAX_PING: usize = 1000;
/// Longest application name in ClientInfo and PeerPresent, in bytes.
pub const MAX_APP_NAME: usize = 32;
/// Time between KeepAlive frames, in nanoseconds. Each interval gets up to [`KEEP_ALIVE_JITTER_NS`] more.
pub const KEEP_ALIVE_NS: u64 = 60_000_000_000;
/// Exclusive upper bound of the random part of a keep-alive interval, in nanoseconds.
pub const KEEP_ALIVE_JITTER_NS: u64 = 5_000_000_000;
/// Time in which a client must send its ClientInfo, in nanoseconds.
pub const LOGIN_TIMEOUT_NS: u64 = 10_000_000_000;
/// PeerGone(NotHere) answers that a client may get per second after the burst is used up.
pub const NOT_HERE_PER_SECOND: u32 = 1;
/// PeerGone(NotHere) answers that a client may get at once.
pub const NOT_HERE_BURST: u32 = 3;
