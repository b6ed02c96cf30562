//! DERP frame types and the 5-byte frame header.
//!
//! The header is `type: u8`, then `length: u32` big-endian. The length counts the bytes after the header.

use super::HEADER_LEN;

macro_rules! frame_types {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        /// The frame types of protocol version 2, with their numbers on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum FrameType { $($(#[$doc])* $name = $number,)* }

        impl FrameType {
            /// All frame types, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The type with this number, if there is one.
            pub const fn from_u8(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

frame_types! {
    /// Server to client, first: magic, server key.
    ServerKey = 0x01;
    /// Client to server: client key, nonce, sealed JSON.
    ClientInfo = 0x02;
    /// Server to client: nonce, sealed JSON.
    ServerInfo = 0x03;
    /// Client to server: destination key, packet.
    SendPacket = 0x04;
    /// Server to client: source key, packet.
    RecvPacket = 0x05;
    /// Server to client: empty.
    KeepAlive = 0x06;
    /// Client to server: whether this relay is the client's home, one byte.
    NotePreferred = 0x07;
    /// Server to client: key, reason.
    PeerGone = 0x08;
    /// Server to watcher: key, address, flags, application name.
    PeerPresent = 0x09;
    /// Mesh peer to server: source key, destination key, packet.
    ForwardPacket = 0x0a;
    /// Mesh peer to server: empty. Requests PeerPresent and PeerGone for every client.
    WatchConns = 0x10;
    /// Mesh peer to server: the key whose connections the server closes.
    ClosePeer = 0x11;
    /// Both ways: eight bytes that the Pong repeats.
    Ping = 0x12;
    /// Both ways: the bytes of the Ping.
    Pong = 0x13;
    /// Server to client: text of a problem; empty text: the problem is over.
    Health = 0x14;
    /// Server to client: time until reconnecting, time to keep trying; milliseconds.
    Restarting = 0x15;
}

/// A frame header: type and payload length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the frame type, known or not.
    pub kind: u8,
    /// Bytes after the header.
    pub len: u32,
}

impl Header {
    /// The header of a frame of a known type.
    pub const fn new(kind: FrameType, len: u32) -> Self {
        Self { kind: kind as u8, len }
    }

    /// The frame type, if it is a known one.
    pub const fn frame_type(self) -> Option<FrameType> {
        FrameType::from_u8(self.kind)
    }

    /// The bytes on the wire.
    pub const fn encode(self) -> [u8; HEADER_LEN] {
        let [a, b, c, d] = self.len.to_be_bytes();
        [self.kind, a, b, c, d]
    }

    /// Decodes a header; any five bytes are a header.
    pub const fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let [kind, a, b, c, d] = *bytes;
        Self { kind, len: u32::from_be_bytes([a, b, c, d]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_number_and_no_other_is() {
        let known = (0..=u8::MAX).filter_map(FrameType::from_u8).collect::<Vec<_>>();
        assert_eq!(known, FrameType::ALL);
        for kind in known {
            assert_eq!(FrameType::from_u8(kind as u8), Some(kind));
        }
        assert_eq!(FrameType::ALL.len(), 16);
    }

    #[test]
    fn a_header_is_type_then_big_endian_length() {
        let header = Header::new(FrameType::ClientInfo, 0x0102_0304);
        assert_eq!(header.encode(), [2, 1, 2, 3, 4]);
        assert_eq!(Header::decode(&header.encode()), header);
        assert_eq!(Header { kind: 0xee, len: 0 }.frame_type(), None);
    }
}
