//! The intended differences between our record layer and rustls', with the section of RFC 8446 that we
//! follow.

use relay_user::transport::tls::cipher::{APPLICATION_DATA, HEADER};

use super::script::{Context, Record};
use super::sides::{Outcome, State};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

const BAD_RECORD_MAC: State = State::Ended(Some(20));
const RECORD_OVERFLOW: State = State::Ended(Some(22));
const UNEXPECTED_MESSAGE: State = State::Ended(Some(10));
const DECODE_ERROR: State = State::Ended(Some(50));
const SILENT: State = State::Ended(None);

/// The longest body that RFC 8446, 5.2, allows.
const MAX_BODY: u16 = (1 << 14) + 256;

/// Why `ours` is right where `theirs` differs; `None` if the difference is not intended. `front` is the
/// header of the record that was opened.
pub(super) fn intended(
    context: &Context,
    front: Option<[u8; HEADER]>,
    record: &Record,
    ours: &Outcome,
    theirs: &Outcome,
) -> Option<&'static str> {
    // rustls opens a record whose header was changed on the way, because it authenticates the expected header
    // and not the received one.
    match (front, ours.state) {
        (Some([kind, ..]), UNEXPECTED_MESSAGE) if kind != APPLICATION_DATA => {
            return Some(
                "5: a record type without a place here is unexpected, and said so by its header alone",
            );
        }
        (Some([_, major, minor, ..]), BAD_RECORD_MAC) if (major, minor) != (3, 3) => {
            return Some("5.2: the header is authenticated as it came, not as it should have been");
        }
        _ => {}
    }
    // For any other difference, both sides must have delivered the same plaintext.
    if ours.plaintext != theirs.plaintext {
        return None;
    }
    let Some(front) = front else {
        let early = (ours.state, theirs.state) == (State::Alive, DECODE_ERROR);
        return early.then_some("5.1: a header is judged when it has come whole");
    };
    by_header(front, ours.state, theirs.state).or_else(|| {
        let (kind, content) = match record {
            Record::Sealed(inner) if inner.iter().all(|&byte| byte == 0) => (0, &[][..]),
            _ => record.inner()?,
        };
        by_content(context, kind, content, ours.state, theirs.state)
    })
}

fn by_header([_, major, _, high, low]: [u8; HEADER], ours: State, theirs: State) -> Option<&'static str> {
    let len = u16::from_be_bytes([high, low]);
    match (ours, theirs) {
        (RECORD_OVERFLOW, State::Alive | DECODE_ERROR | BAD_RECORD_MAC) if len > MAX_BODY => {
            Some("5.2: longer than 2^14 + 256 is record_overflow, and said so by the header alone")
        }
        (State::Alive, DECODE_ERROR) if major != 3 => {
            Some("5.1: the version must be ignored; 5.2: it is authenticated")
        }
        _ => None,
    }
}

fn by_content(
    context: &Context,
    kind: u8,
    content: &[u8],
    ours: State,
    theirs: State,
) -> Option<&'static str> {
    // The bytes of a key update, in their order.
    let so_far = context.update;
    let misfit = content.iter().zip([24, 0, 0, 1].iter().skip(so_far)).position(|(is, must)| is != must);
    match (ours, theirs) {
        (UNEXPECTED_MESSAGE, SILENT) if kind == 0 => {
            Some("5.4: a record without a type is unexpected_message; rustls says nothing")
        }
        (UNEXPECTED_MESSAGE, SILENT) if kind != HANDSHAKE && so_far > 0 => {
            Some("5.1: nothing between the pieces of a message; rustls says nothing")
        }
        (UNEXPECTED_MESSAGE, DECODE_ERROR) if !(20..=23).contains(&kind) => {
            Some("5: an unexpected record type is unexpected_message")
        }
        (UNEXPECTED_MESSAGE, SILENT) if kind == HANDSHAKE && so_far + content.len() > 5 => {
            Some("5.1: keys change at the end of a record; of a message in pieces rustls says nothing")
        }
        (UNEXPECTED_MESSAGE, _) if matches!(kind, ALERT | HANDSHAKE) && content.is_empty() => {
            Some("5.4: no empty handshake and alert records")
        }
        (UNEXPECTED_MESSAGE, _) if context.fruitless > 32 => {
            Some("no rule: so many records without data, of whatever kind, are enough")
        }
        (UNEXPECTED_MESSAGE, _) if kind == HANDSHAKE && so_far == 0 && misfit == Some(0) => {
            Some("4: no other message has a place here, and its first byte says so")
        }
        (DECODE_ERROR, State::Alive | SILENT) if kind == HANDSHAKE && misfit.is_some() => {
            Some("6: a length that the message cannot have, said as soon as it is seen")
        }
        (SILENT, DECODE_ERROR) if kind == ALERT && matches!(content, [1, _]) => {
            Some("6.2: an error alert is one whatever its level, and nothing answers it")
        }
        (State::Alive, SILENT) if kind == ALERT && content == [2, 90] => {
            Some("6, 6.1: user_canceled is followed by close_notify; the level may be ignored")
        }
        (State::Alive, SILENT) if kind == ALERT && content == [1, 90] && context.canceled > 4 => {
            Some("no rule: rustls suffers four of them in a connection")
        }
        _ => None,
    }
}
