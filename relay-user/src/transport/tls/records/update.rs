//! The handshake messages that may come after the handshake, in one or several pieces: a key update
//! (RFC 8446, 4.6.3) and, from a server, tickets for resumption (4.6.1), which are skipped.

use super::{HANDSHAKE, RecordFault};

/// Type and length of a key update. One byte follows: whether the receiver must update its keys too.
pub(super) const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

/// Type of a ticket.
const TICKET: u8 = 4;

/// Longest ticket that is skipped: rustls and Go accept handshake messages up to this length too.
const MAX_TICKET: u32 = 0xffff;

/// The part of a message that has arrived: it may be spread over records (RFC 8446, 5.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyUpdate {
    takes_tickets: bool,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Bytes of a key update so far; 0: no message has begun. Each has been checked against the only allowed
    /// value, so none is kept.
    Update(usize),
    /// Bytes of a ticket's length so far, and their value.
    TicketLen(u8, u32),
    /// Bytes of a ticket that are still to come.
    Ticket(u32),
}

impl Default for State {
    fn default() -> Self {
        Self::Update(0)
    }
}

impl KeyUpdate {
    /// At the start of a message; `takes_tickets`: the peer is a server.
    pub(super) fn new(takes_tickets: bool) -> Self {
        Self { takes_tickets, state: State::default() }
    }

    /// Whether a message has begun, so that its other pieces must come next.
    pub(super) fn is_begun(self) -> bool {
        !matches!(self.state, State::Update(0))
    }

    /// Takes one record's content. Once a key update is whole, returns whether the peer asks us to update as
    /// well.
    ///
    /// # Errors
    /// The bytes cannot become a message that is allowed now; the error has the alert that RFC 8446 names.
    pub(super) fn push(&mut self, content: &[u8]) -> Result<Option<bool>, RecordFault> {
        // Section 5.4: empty pieces are not allowed, whatever their padding.
        let (&last, before) = content.split_last().ok_or(RecordFault::Unexpected(HANDSHAKE))?;
        for &byte in before {
            self.take(byte)?;
        }
        if !matches!(self.state, State::Update(len) if len == KEY_UPDATE.len()) {
            self.take(last)?;
            return Ok(None);
        }
        self.state = State::default();
        match last {
            0 => Ok(Some(false)),
            1 => Ok(Some(true)),
            // Section 4.6.3 names this alert.
            _ => Err(RecordFault::Illegal(HANDSHAKE)),
        }
    }

    /// Takes any byte but the last one of a key update.
    fn take(&mut self, byte: u8) -> Result<(), RecordFault> {
        self.state = match self.state {
            State::Update(0) if byte == TICKET && self.takes_tickets => State::TicketLen(0, 0),
            State::Update(len) => match KEY_UPDATE.get(len) {
                Some(&wanted) if wanted == byte => State::Update(len + 1),
                // A client must not send any other message now (sections 4 and 4.1.2), and a server only asks
                // for certificates of clients that offer them (4.6.2).
                Some(_) if len == 0 => return Err(RecordFault::Unexpected(HANDSHAKE)),
                // Section 6: the length is not that of a key update.
                Some(_) => return Err(RecordFault::Malformed(HANDSHAKE)),
                // Section 5.1: the keys change at the end of a record, but this record goes on.
                None => return Err(RecordFault::Unexpected(HANDSHAKE)),
            },
            State::TicketLen(bytes, len) => match (bytes + 1, len << 8 | u32::from(byte)) {
                // An empty ticket has no fields.
                (3, 0) | (3, MAX_TICKET..) => return Err(RecordFault::Malformed(HANDSHAKE)),
                (3, len) => State::Ticket(len),
                (bytes, len) => State::TicketLen(bytes, len),
            },
            State::Ticket(1) => State::default(),
            State::Ticket(left) => State::Ticket(left - 1),
        };
        Ok(())
    }
}
