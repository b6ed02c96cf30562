//! Which frame lengths are legal, decided from the header alone, before a byte of payload is read.
//!
//! One function per place in a connection's life. Values are those of upstream (`derp/derpserver`): a
//! violation closes the connection.

use super::{
    KEY_LEN, MAX_CLIENT_FRAME, MAX_CLIENT_INFO, MAX_FRAME, MAX_PACKET, MAX_PING, MAX_UNKNOWN_FRAME,
    MIN_CLIENT_INFO, PING_LEN,
    frame::{FrameType, Header},
};

/// What to do with a frame of legal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Hand it over.
    Deliver,
    /// Read past it.
    Skip,
}

/// What is wrong with a frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// No frame of this type is that long.
    TooLong,
    /// No frame of this type is that short.
    TooShort,
    /// This type may not come now.
    Unexpected,
}

/// A frame that ends the connection, by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(thiserror::Error))]
#[cfg_attr(feature = "std", error("frame of type {:#04x} and length {}: {fault:?}", header.kind, header.len))]
pub struct FrameError {
    /// Type and length as received.
    pub header: Header,
    /// What is wrong with them.
    pub fault: HeaderFault,
}

/// A server, once the client has logged in.
///
/// # Errors
/// The length is not one of its type.
pub fn server(header: Header) -> Result<Disposition, FrameError> {
    let (min, max) = match header.frame_type() {
        Some(FrameType::SendPacket) => (KEY_LEN, KEY_LEN + MAX_PACKET),
        Some(FrameType::ForwardPacket) => (2 * KEY_LEN, MAX_FRAME),
        Some(FrameType::NotePreferred) => (1, 1),
        Some(FrameType::WatchConns) => (0, 0),
        Some(FrameType::ClosePeer) => (KEY_LEN, KEY_LEN),
        Some(FrameType::Ping) => (PING_LEN, MAX_PING),
        // Also known types that clients have no business sending, Pong among them.
        _ => return within(header, 0, MAX_UNKNOWN_FRAME).map(|()| Disposition::Skip),
    };
    within(header, min, max).map(|()| Disposition::Deliver)
}

/// A server that waits for ClientInfo: nothing else may come.
///
/// # Errors
/// It is another frame, or of a length that ClientInfo does not have.
pub fn login(header: Header) -> Result<Disposition, FrameError> {
    if header.frame_type() != Some(FrameType::ClientInfo) {
        return Err(FrameError { header, fault: HeaderFault::Unexpected });
    }
    within(header, MIN_CLIENT_INFO, MAX_CLIENT_INFO).map(|()| Disposition::Deliver)
}

/// A client: everything is delivered that is not absurdly long.
///
/// # Errors
/// It is longer than any frame.
pub fn client(header: Header) -> Result<Disposition, FrameError> {
    within(header, 0, MAX_CLIENT_FRAME).map(|()| Disposition::Deliver)
}

fn within(header: Header, min: usize, max: usize) -> Result<(), FrameError> {
    let len = header.len as usize;
    match () {
        () if len < min => Err(FrameError { header, fault: HeaderFault::TooShort }),
        () if len > max => Err(FrameError { header, fault: HeaderFault::TooLong }),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_says(kind: u8, len: u32) -> Result<Disposition, HeaderFault> {
        server(Header { kind, len }).map_err(|e| e.fault)
    }

    #[test]
    fn the_server_delivers_exactly_the_legal_lengths() {
        for (kind, min, max) in [
            (FrameType::SendPacket, 32, 32 + 65_536),
            (FrameType::ForwardPacket, 64, 64 + 65_536),
            (FrameType::NotePreferred, 1, 1),
            (FrameType::WatchConns, 0, 0),
            (FrameType::ClosePeer, 32, 32),
            (FrameType::Ping, 8, 1000),
        ] {
            let kind = kind as u8;
            assert_eq!(server_says(kind, min), Ok(Disposition::Deliver), "{kind:#x}");
            assert_eq!(server_says(kind, max), Ok(Disposition::Deliver), "{kind:#x}");
            assert_eq!(server_says(kind, max + 1), Err(HeaderFault::TooLong), "{kind:#x}");
            if let Some(below) = min.checked_sub(1) {
                assert_eq!(server_says(kind, below), Err(HeaderFault::TooShort), "{kind:#x}");
            }
        }
    }

    #[test]
    fn the_server_skips_what_it_does_not_read_up_to_the_longest_send_packet() {
        for kind in [0x00, 0x01, 0x02, 0x03, 0x05, 0x06, 0x08, 0x09, 0x13, 0x14, 0x15, 0x16, 0xff] {
            assert_eq!(server_says(kind, 0), Ok(Disposition::Skip), "{kind:#x}");
            assert_eq!(server_says(kind, 65_568), Ok(Disposition::Skip), "{kind:#x}");
            assert_eq!(server_says(kind, 65_569), Err(HeaderFault::TooLong), "{kind:#x}");
            assert_eq!(server_says(kind, u32::MAX), Err(HeaderFault::TooLong), "{kind:#x}");
        }
    }

    #[test]
    fn login_takes_a_client_info_and_nothing_else() {
        let says = |kind, len| login(Header { kind, len }).map_err(|e| e.fault);
        assert_eq!(says(2, 56), Ok(Disposition::Deliver));
        assert_eq!(says(2, 262_144), Ok(Disposition::Deliver));
        assert_eq!(says(2, 55), Err(HeaderFault::TooShort));
        assert_eq!(says(2, 262_145), Err(HeaderFault::TooLong));
        assert_eq!(says(4, 56), Err(HeaderFault::Unexpected));
        assert_eq!(says(0xee, 0), Err(HeaderFault::Unexpected));
    }

    #[test]
    fn an_error_names_type_and_length() {
        let error = server(Header { kind: 0x0a, len: 3 }).expect_err("too short");
        assert_eq!(error.to_string(), "frame of type 0x0a and length 3: TooShort");
    }
}
