//! A TLS 1.3 connection after its handshake. rustls keeps the secrets; this module opens and seals the
//! records.
//!
//! rustls hands a connection over as it would to a kernel that implements TLS. From then on there are only
//! three kinds of records: data, alerts, and handshake messages, which are key updates and, from a server,
//! tickets. We take no ticket: links are not resumed.

mod update;

use std::fmt;
use std::ops::ControlFlow;

use rustls::{AlertDescription, Error, SupportedCipherSuite};

use self::update::{KEY_UPDATE, KeyUpdate};
use super::cipher::{APPLICATION_DATA, Broken, Cipher, MAX_PLAINTEXT, OVERHEAD, Record};
use super::side::{KeySchedule, Side};

/// Inner content types other than data.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// Levels of an alert (RFC 8446, 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Records in a row without data: as many as rustls and BoringSSL accept.
const MAX_FRUITLESS: u8 = 32;

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// A record that breaks the rules.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The peer sent a fatal alert.
    #[error("alert {0:?} from the peer")]
    Alert(AlertDescription),
    /// A record or message of a kind that is not allowed after the handshake.
    #[error("an unexpected record of type {0}")]
    Unexpected(u8),
    /// A message whose content does not fit its type.
    #[error("a malformed record of type {0}")]
    Malformed(u8),
    /// A message with a value that its field does not allow.
    #[error("an illegal value in a record of type {0}")]
    Illegal(u8),
    /// Too many records in a row without data.
    #[error("nothing but records without data")]
    Fruitless,
    /// The keys cannot be updated.
    #[error("no new keys")]
    Keys,
}

impl RecordFault {
    /// The alert to send before the end, unless the peer sent one.
    fn alert(self) -> Option<AlertDescription> {
        Some(match self {
            Self::Alert(_) => return None,
            Self::Broken(Broken::Seal) => AlertDescription::BadRecordMac,
            Self::Broken(Broken::TooLong(_)) => AlertDescription::RecordOverflow,
            Self::Broken(_) | Self::Unexpected(_) | Self::Fruitless => AlertDescription::UnexpectedMessage,
            Self::Malformed(_) => AlertDescription::DecodeError,
            Self::Illegal(_) => AlertDescription::IllegalParameter,
            Self::Keys => AlertDescription::InternalError,
        })
    }
}

/// The progress of [`Records::open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of whole records; the rest is the beginning of the next record.
    pub used: usize,
    /// Whether reading is over, because the peer or the sink ended it.
    pub closed: bool,
}

/// A connection's record layer.
pub struct Records {
    rx: Cipher,
    tx: Cipher,
    secrets: Box<dyn KeySchedule>,
    /// Records that may be sealed with one key.
    most: u64,
    fruitless: u8,
    update: KeyUpdate,
    owes_update: bool,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("rx", &self.rx).field("tx", &self.tx).finish_non_exhaustive()
    }
}

impl Records {
    /// Takes a connection over from rustls. The handshake must be over, and all bytes that it sends must be
    /// taken.
    ///
    /// # Errors
    /// The handshake is not over, or the configuration does not allow the handover.
    pub fn take_over(tls: impl Side) -> Result<Self, Error> {
        let (secrets, connection) = tls.into_secrets()?;
        let most = match connection.suite() {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls12(_) => return Err(Error::General("TLS 1.2 has other records".into())),
        };
        Ok(Self {
            rx: Cipher::new(secrets.rx)?,
            tx: Cipher::new(secrets.tx)?,
            most,
            fruitless: 0,
            update: KeyUpdate::new(connection.takes_tickets()),
            secrets: connection,
            owes_update: false,
        })
    }

    /// Opens the whole records in `data`, in place, and hands their plaintext to `sink` until `sink` breaks.
    ///
    /// # Errors
    /// The connection is over; [`Records::seal_alert`] makes the alert for the peer.
    pub fn open(
        &mut self,
        data: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Opened, RecordFault> {
        let mut used = 0;
        let mut closed = false;
        while !closed && let Some(record) = self.rx.open(&mut data[used..])? {
            let Record { kind, plaintext, len } = record;
            used += len;
            if kind != HANDSHAKE && self.update.is_begun() {
                // RFC 8446, 5.1: no other record may come between the pieces of a handshake message.
                return Err(RecordFault::Unexpected(kind));
            }
            if kind == APPLICATION_DATA && !plaintext.is_empty() {
                self.fruitless = 0;
                closed = sink(plaintext).is_break();
                continue;
            }
            self.fruitless += 1;
            if self.fruitless > MAX_FRUITLESS {
                return Err(RecordFault::Fruitless);
            }
            match kind {
                APPLICATION_DATA => {}
                ALERT => closed = is_goodbye(plaintext)?,
                HANDSHAKE => {
                    if let Some(asked) = self.update.push(plaintext)? {
                        self.rx = new_cipher(self.secrets.update_rx())?;
                        self.owes_update |= asked;
                    }
                }
                _ => return Err(RecordFault::Unexpected(kind)),
            }
        }
        Ok(Opened { used, closed })
    }

    /// Whether the peer asked for new keys and has not got them. The next [`Records::seal`] begins with them,
    /// even if there is nothing to seal.
    pub fn owes_update(&self) -> bool {
        self.owes_update
    }

    /// Length of `plaintext` bytes after sealing, at most.
    pub fn sealed_len(plaintext: usize) -> usize {
        // Among the records of one call, at most one follows a key update: a key is good for millions of
        // records.
        plaintext + (plaintext.div_ceil(MAX_PLAINTEXT) + 1) * OVERHEAD + KEY_UPDATE.len() + 1
    }

    /// Seals `plaintext` in full records into `out`; returns their length.
    ///
    /// # Errors
    /// There is less room than [`Records::sealed_len`] says, or the keys cannot be updated.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let mut end = 0;
        if self.owes_update {
            end = self.update_keys(out)?;
        }
        for record in plaintext.chunks(MAX_PLAINTEXT) {
            if self.tx.sequence() >= self.most {
                end += self.update_keys(&mut out[end..])?;
            }
            end += self.tx.seal(APPLICATION_DATA, record, &mut out[end..])?;
        }
        Ok(end)
    }

    /// Seals the last record for the peer: the alert for `fault`, or a plain goodbye.
    ///
    /// # Errors
    /// There is no room for two bytes and [`OVERHEAD`].
    pub fn seal_alert(&mut self, fault: Option<RecordFault>, out: &mut [u8]) -> Result<usize, Error> {
        let alert = match fault {
            None => [WARNING, AlertDescription::CloseNotify.into()],
            Some(fault) => match fault.alert() {
                Some(alert) => [FATAL, alert.into()],
                None => return Ok(0),
            },
        };
        self.tx.seal(ALERT, &alert, out)
    }

    fn update_keys(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let [a, b, c, d] = KEY_UPDATE;
        let end = self.tx.seal(HANDSHAKE, &[a, b, c, d, 0], out)?;
        self.tx = Cipher::new(self.secrets.update_tx()?)?;
        self.owes_update = false;
        Ok(end)
    }
}

/// Whether an alert is the peer's goodbye. Returns `false` for an alert without consequence.
fn is_goodbye(content: &[u8]) -> Result<bool, RecordFault> {
    match *content {
        // RFC 8446, 5.4: empty alerts are not allowed, whatever their padding.
        [] => Err(RecordFault::Unexpected(ALERT)),
        // Section 6 allows to ignore the level of a valid alert.
        [WARNING | FATAL, alert] => match AlertDescription::from(alert) {
            AlertDescription::CloseNotify => Ok(true),
            AlertDescription::UserCanceled => Ok(false),
            // Section 6.2: every other alert is an error, whatever its level.
            alert => Err(RecordFault::Alert(alert)),
        },
        [_, _] => Err(RecordFault::Illegal(ALERT)),
        // Section 5.1: a record holds exactly one alert.
        _ => Err(RecordFault::Malformed(ALERT)),
    }
}

fn new_cipher(
    secrets: Result<(u64, rustls::ConnectionTrafficSecrets), Error>,
) -> Result<Cipher, RecordFault> {
    secrets.and_then(Cipher::new).map_err(|_| RecordFault::Keys)
}

#[cfg(test)]
mod tests;
