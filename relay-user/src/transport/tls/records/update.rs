//! The one handshake message that a client may still send (RFC 8446, 4.6.3): a key update, in one piece or in
//! several.

use super::{HANDSHAKE, RecordFault};

/// Type and length of a key update; behind them one byte, whether we shall update too.
pub(super) const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

/// How much of a key update has come: a message may be spread over records (RFC 8446, 5.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyUpdate {
    /// Bytes so far; each was what it must be, so none is kept.
    len: usize,
}

impl KeyUpdate {
    /// Whether its other pieces must come next.
    pub(super) fn is_begun(self) -> bool {
        self.len > 0
    }

    /// Takes one record's content. Once the message is whole: whether the peer asks us to update as well.
    ///
    /// # Errors
    /// As soon as it cannot become a key update any more, with the alert that RFC 8446 names.
    pub(super) fn push(&mut self, content: &[u8]) -> Result<Option<bool>, RecordFault> {
        // Section 5.4: no empty pieces, whatever their padding.
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
            // Section 4.6.3 names the alert.
            _ => Err(RecordFault::Illegal(HANDSHAKE)),
        }
    }

    /// Takes a byte of type or length.
    fn take(&mut self, byte: u8) -> Result<(), RecordFault> {
        match KEY_UPDATE.get(self.len) {
            Some(&wanted) if wanted == byte => self.len += 1,
            // No other message is a client's to send now (sections 4 and 4.1.2).
            Some(_) if self.len == 0 => return Err(RecordFault::Unexpected(HANDSHAKE)),
            // Section 6: a length that is not the message's.
            Some(_) => return Err(RecordFault::Malformed(HANDSHAKE)),
            // Section 5.1: the keys change at the end of a record, and this one goes on.
            None => return Err(RecordFault::Unexpected(HANDSHAKE)),
        }
        Ok(())
    }
}
