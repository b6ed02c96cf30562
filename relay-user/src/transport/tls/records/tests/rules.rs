//! The faults that end a connection, by the section of RFC 8446 that defines each.

use super::*;

/// Records that end the connection, sent one after the other: section of RFC 8446, its rule, the records, and
/// the alert for the last of them, if the peer gets one.
type Ending = (&'static str, &'static str, &'static [(u8, &'static [u8])], Option<u8>);

const CHANGE_CIPHER_SPEC: u8 = 20;
const UNEXPECTED_MESSAGE: Option<u8> = Some(10);
const ILLEGAL_PARAMETER: Option<u8> = Some(47);
const DECODE_ERROR: Option<u8> = Some(50);

const ENDINGS: &[Ending] = &[
    ("4.1.2", "no second ClientHello", &[(HANDSHAKE, &[1, 0, 0, 0])], UNEXPECTED_MESSAGE),
    ("4.4", "no Certificate that nobody asked for", &[(HANDSHAKE, &[11, 0, 0, 0])], UNEXPECTED_MESSAGE),
    ("4.4.4", "no second Finished", &[(HANDSHAKE, &[20, 0, 0, 32])], UNEXPECTED_MESSAGE),
    ("4.5", "no EndOfEarlyData", &[(HANDSHAKE, &[5, 0, 0, 0])], UNEXPECTED_MESSAGE),
    ("4.6.1", "tickets are the server's", &[(HANDSHAKE, &[4, 0, 0, 9])], UNEXPECTED_MESSAGE),
    ("4", "no message that does not exist", &[(HANDSHAKE, &[99, 0, 0, 0])], UNEXPECTED_MESSAGE),
    ("4.6.3", "an update is requested or not", &[(HANDSHAKE, &[24, 0, 0, 1, 2])], ILLEGAL_PARAMETER),
    ("4.6.3", "the same of its last value", &[(HANDSHAKE, &[24, 0, 0, 1, 255])], ILLEGAL_PARAMETER),
    ("4.6.3", "and in pieces", &[(HANDSHAKE, &[24, 0]), (HANDSHAKE, &[0, 1, 2])], ILLEGAL_PARAMETER),
    ("6", "a key update of no length", &[(HANDSHAKE, &[24, 0, 0, 0])], DECODE_ERROR),
    ("6", "a key update of two bytes", &[(HANDSHAKE, &[24, 0, 0, 2, 0, 0])], DECODE_ERROR),
    ("6", "a key update of many bytes", &[(HANDSHAKE, &[24, 255, 255, 255])], DECODE_ERROR),
    ("5.1", "keys change at the end of a record", &[(HANDSHAKE, &[24, 0, 0, 1, 0, 0])], UNEXPECTED_MESSAGE),
    (
        "5.1",
        "two updates do not share a record",
        &[(HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])],
        UNEXPECTED_MESSAGE,
    ),
    (
        "5.1",
        "nor does the end of one with the beginning of another",
        &[(HANDSHAKE, &[24, 0, 0]), (HANDSHAKE, &[1, 0, 24])],
        UNEXPECTED_MESSAGE,
    ),
    (
        "5.1",
        "no data between the pieces of a message",
        &[(HANDSHAKE, &[24]), (APPLICATION_DATA, b"x")],
        UNEXPECTED_MESSAGE,
    ),
    (
        "5.1",
        "no empty data between them",
        &[(HANDSHAKE, &[24, 0, 0, 1]), (APPLICATION_DATA, b"")],
        UNEXPECTED_MESSAGE,
    ),
    (
        "5.1",
        "no alert between them",
        &[(HANDSHAKE, &[24, 0]), (ALERT, &[WARNING, USER_CANCELED])],
        UNEXPECTED_MESSAGE,
    ),
    ("5.1", "no half alerts", &[(ALERT, &[2])], DECODE_ERROR),
    ("5.1", "no two alerts in a record", &[(ALERT, &[1, 90, 1, 90])], DECODE_ERROR),
    ("5.4", "no empty handshake record", &[(HANDSHAKE, b"")], UNEXPECTED_MESSAGE),
    (
        "5.4",
        "not in the middle of a message either",
        &[(HANDSHAKE, &[24]), (HANDSHAKE, b"")],
        UNEXPECTED_MESSAGE,
    ),
    ("5.4", "no empty alert", &[(ALERT, b"")], UNEXPECTED_MESSAGE),
    // A type of zero is one more byte of padding: this record holds only padding.
    ("5.4", "no record without a type", &[(0, &[0, 0, 0])], UNEXPECTED_MESSAGE),
    ("5", "no protected change_cipher_spec", &[(CHANGE_CIPHER_SPEC, &[1])], UNEXPECTED_MESSAGE),
    ("5", "no heartbeat", &[(24, &[1, 0, 0])], UNEXPECTED_MESSAGE),
    ("5", "no type that does not exist", &[(99, &[1, 2, 3])], UNEXPECTED_MESSAGE),
    ("6", "no level that does not exist", &[(ALERT, &[0, CLOSE_NOTIFY])], ILLEGAL_PARAMETER),
    ("6", "whatever the alert", &[(ALERT, &[3, 40])], ILLEGAL_PARAMETER),
    ("6.2", "an error is answered by nothing", &[(ALERT, &[FATAL, 40])], None),
    ("6.2", "also if it calls itself a warning", &[(ALERT, &[WARNING, 40])], None),
    ("6.2", "also if nobody knows it", &[(ALERT, &[WARNING, 255])], None),
];

#[test]
fn what_breaks_the_rules_ends_the_connection_with_the_alert_that_the_rfc_names() {
    for (section, what, sent, alert) in ENDINGS {
        let (mut cipher, mut records) = forger();
        let mut data = forged(&mut cipher, APPLICATION_DATA, b"before");
        for (kind, plaintext) in *sent {
            data.extend(forged(&mut cipher, *kind, plaintext));
        }
        data.extend(forged(&mut cipher, APPLICATION_DATA, b"behind"));
        let (got, result) = open(&mut records, &mut data);
        let fault = result.expect_err(what);
        assert_eq!(got, b"before", "{section}: {what}");
        assert_eq!(fault.alert().map(u8::from), *alert, "{section}: {what}: {fault}");
    }
}

#[test]
fn a_record_that_is_not_encrypted_is_unexpected_whatever_it_says() {
    // Section 5: after the handshake a change_cipher_spec record ends the connection too.
    for (kind, body) in [(CHANGE_CIPHER_SPEC, &[1][..]), (ALERT, &[1, 0]), (HANDSHAKE, &[24, 0, 0, 1, 0])] {
        let (_, mut records) = forger();
        let mut data = [&[kind, 3, 3, 0, body.len() as u8], body].concat();
        let fault = open(&mut records, &mut data).1.expect_err("not encrypted");
        assert_eq!(fault.alert().map(u8::from), UNEXPECTED_MESSAGE, "type {kind}");
    }
}

#[test]
fn padding_does_not_make_a_record_longer_than_it_may_be() {
    // Section 5.4: content, type and padding are at most 2^14 + 1 bytes, else it is record_overflow (5.2).
    for (kind, content) in [(APPLICATION_DATA, &b"x"[..]), (HANDSHAKE, &[24, 0, 0, 1, 0]), (0, b"")] {
        for (longer, wanted) in [(0, None), (1, Some(22)), (255, Some(22))] {
            let (mut cipher, mut records) = forger();
            let mut inner = content.to_vec();
            inner.push(kind);
            inner.resize(MAX_PLAINTEXT + longer, 0);
            // The sealer's own type is the last zero of the padding.
            let fault = open(&mut records, &mut forged(&mut cipher, 0, &inner)).1.err();
            let alert = fault.map(|fault| fault.alert().map(u8::from));
            // Padding alone is another fault, unless it is too long.
            let wanted = if kind == 0 { wanted.or(UNEXPECTED_MESSAGE) } else { wanted };
            assert_eq!(alert, wanted.map(Some), "type {kind}, {longer} more than allowed");
        }
    }
}

#[test]
fn a_key_update_may_come_in_pieces() {
    // Section 5.1: a message may be spread over records, as long as nothing comes between.
    let update = [24, 0, 0, 1, 1];
    for cuts in 0..1 << (update.len() - 1) {
        let (mut client, mut records) = forging_client();
        let mut data = Vec::new();
        let mut piece = Vec::new();
        for (at, byte) in update.into_iter().enumerate() {
            piece.push(byte);
            if cuts >> at & 1 == 1 || at == update.len() - 1 {
                data.extend(forged(&mut client.0, HANDSHAKE, &piece));
                piece.clear();
            }
        }
        let (got, result) = open(&mut records, &mut data);
        assert_eq!((got, result), (Vec::new(), Ok(Opened { used: data.len(), closed: false })), "{cuts:b}");
        assert!(records.owes_update());
        client.0 = Cipher::new(client.1.update_tx_secret().expect("TLS 1.3")).expect("known");
        let mut data = forged(&mut client.0, APPLICATION_DATA, b"under new keys");
        assert_eq!(open(&mut records, &mut data).0, b"under new keys", "{cuts:b}");
    }
}
