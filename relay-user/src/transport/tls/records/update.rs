//! The only handshake message that a client may still send (RFC 8446, 4.6.3): a key update, in one or several
//! pieces.

use super::{HANDSHAKE, RecordFault};

/// Type and length of a key update. One byte follows: whether the receiver must update its keys too.
pub(super) const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

/// The part of a key update that has arrived: a message may be spread over records (RFC 8446, 5.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyUpdate {
    /// Bytes so far. Each has been checked against the only allowed value, so none is kept.
    len: usize,
}

impl KeyUpdate {
    /// Whether the message has begun, so that its other pieces must come next.
    pub(super) fn is_begun(self) -> bool {
        self.len > 0
    }

    /// Takes one record's content. Once the message is whole, returns whether the peer asks us to update as
    /// well.
    ///
    /// # Errors
    /// The bytes cannot become a key update; the error has the alert that RFC 8446 names.
    pub(super) fn push(&mut self, content: &[u8]) -> Result<Option<bool>, RecordFault> {
        // Section 5.4: empty pieces are not allowed, whatever their padding.
        let (&last, before) = content.split_last().ok_or(RecordFault::Unexpected(HANDSHAKE))?;
        for &byte in before {
            self.take(byte)?;
        }
        if self.len < KEY_UPDATE.len() {
            self.take(last)?;
            return Ok(None);
        }
        self.len = 0;
        match last {
            0 => Ok(Some(false)),
            1 => Ok(Some(true)),
            // Section 4.6.3 names this alert.
            _ => Err(RecordFault::Illegal(HANDSHAKE)),
        }
    }

    /// Takes a byte of type or length.
    fn take(&mut self, byte: u8) -> Result<(), RecordFault> {
        match KEY_UPDATE.get(self.len) {
            Some(&wanted) if wanted == byte => self.len += 1,
            // A client must not send any other message now (sections 4 and 4.1.2).
            Some(_) if self.len == 0 => return Err(RecordFault::Unexpected(HANDSHAKE)),
            // Section 6: the length is not that of a key update.
            Some(_) => return Err(RecordFault::Malformed(HANDSHAKE)),
            // Section 5.1: the keys change at the end of a record, but this record goes on.
            None => return Err(RecordFault::Unexpected(HANDSHAKE)),
        }
        Ok(())
    }
}
