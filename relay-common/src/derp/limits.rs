//! Decides from the header alone which frame lengths are legal, before any payload is read.
//!
//! There is one function for each state of a connection. The values are upstream's (`derp/derpserver`): a
//! violation closes the connection.

use super::{
    KEY_LEN, MAX_CLIENT_FRAME, MAX_CLIENT_INFO, MAX_FRAME, MAX_PACKET, MAX_PING, MAX_UNKNOWN_FRAME,
    MIN_CLIENT_INFO, PING_LEN,
    frame::{FrameType, Header},
};

/// What to do with a frame of legal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Deliver the frame.
    Deliver,
    /// Read and discard the frame.
    Skip,
}

/// What is wrong with a frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// The frame is longer than its type allows.
    TooLong,
    /// The frame is shorter than its type allows.
    TooShort,
    /// This type is not allowed now.
    Unexpected,
}

/// A frame whose header ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(thiserror::Error))]
#[cfg_attr(feature = "std", error("frame of type {:#04x} and length {}: {fault:?}", header.kind, header.len))]
pub struct FrameError {
    /// Type and length from the wire.
    pub header: Header,
    /// What is wrong with the header.
    pub fault: HeaderFault,
}

/// The limits of a server after the client has logged in.
///
/// # Errors
/// The frame's length is not legal for its type.
pub fn server(header: Header) -> Result<Disposition, FrameError> {
    let (min, max) = match header.frame_type() {
        Some(FrameType::SendPacket) => (KEY_LEN, KEY_LEN + MAX_PACKET),
        Some(FrameType::ForwardPacket) => (2 * KEY_LEN, MAX_FRAME),
        Some(FrameType::NotePreferred) => (1, 1),
        Some(FrameType::WatchConns) => (0, 0),
        Some(FrameType::ClosePeer) => (KEY_LEN, KEY_LEN),
        Some(FrameType::Ping) => (PING_LEN, MAX_PING),
        // This includes known types that clients should not send, such as Pong.
        _ => return within(header, 0, MAX_UNKNOWN_FRAME).map(|()| Disposition::Skip),
    };
    within(header, min, max).map(|()| Disposition::Deliver)
}

/// The limits of a server that waits for ClientInfo: only that frame is allowed.
///
/// # Errors
/// The frame is not a ClientInfo, or its length is not legal.
pub fn login(header: Header) -> Result<Disposition, FrameError> {
    if header.frame_type() != Some(FrameType::ClientInfo) {
        return Err(FrameError { header, fault: HeaderFault::Unexpected });
    }
    within(header, MIN_CLIENT_INFO, MAX_CLIENT_INFO).map(|()| Disposition::Deliver)
}

/// The limits of a client: it accepts every frame up to [`MAX_CLIENT_FRAME`].
///
/// # Errors
/// The frame is too long.
pub fn client(header: Header) -> Result<Disposition, FrameError> {
    within(header, 0, MAX_CLIENT_FRAME).map(|()| Disposition::Deliver)
}

fn within(header: Header, min: usize, max: usize) -> Result<(), FrameError> {
    let len = header.len as usize;
    if len < min {
        return Err(FrameError { header, fault: HeaderFault::TooShort });
    }
    if len > max {
        return Err(FrameError { header, fault: HeaderFault::TooLong });
    }
    Ok(())
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
