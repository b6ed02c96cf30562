//! Makes the records of a malicious client from any bytes.

use relay_user::transport::tls::cipher::{APPLICATION_DATA, MAX_PLAINTEXT};

/// Maximum steps of a script.
const MAX_STEPS: usize = 256;
/// Maximum records of a burst.
const MAX_BURST: u8 = 48;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// A key update without its last byte, the value.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The client sends a record.
    Record(Record),
    /// The server sends this many bytes.
    Say(usize),
}

/// A record.
#[derive(Clone, Debug)]
pub(super) enum Record {
    /// Sealed with the right key: content, type and padding.
    Sealed(Vec<u8>),
    /// Sealed, then bits of one byte changed.
    Damaged { inner: Vec<u8>, at: usize, bits: u8 },
    /// Never sealed.
    Raw(Vec<u8>),
}

impl Record {
    /// Type and content, if the record opens.
    pub(super) fn inner(&self) -> Option<(u8, &[u8])> {
        let Self::Sealed(inner) = self else { return None };
        let end = inner.iter().rposition(|&byte| byte != 0)?;
        Some((inner[end], &inner[..end]))
    }
}

/// The part of the earlier records that decides about the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    /// Bytes of a key update that have arrived.
    pub(super) update: usize,
    /// Consecutive records without data, including the current one.
    pub(super) fruitless: u32,
    /// `user_canceled` alerts of the connection, including the current one.
    pub(super) canceled: u32,
}

impl Context {
    /// Counts the current record.
    pub(super) fn begin(&mut self, record: &Record) {
        self.fruitless += 1;
        match record.inner() {
            Some((APPLICATION_DATA, [_, ..])) => self.fruitless = 0,
            Some((ALERT, [_, 90])) => self.canceled += 1,
            _ => {}
        }
    }

    /// Both sides accepted the record; returns whether it completed a key update.
    pub(super) fn end(&mut self, record: &Record) -> bool {
        if let Some((HANDSHAKE, content)) = record.inner() {
            self.update += content.len();
        }
        let whole = self.update > KEY_UPDATE.len();
        if whole {
            self.update = 0;
        }
        whole
    }
}

/// Bytes that are read as instructions; after the end, it reads zeros.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn short(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]))
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    /// Content, type and padding of one record.
    fn inner(&mut self) -> Vec<u8> {
        let (kind, mut content) = match self.byte() {
            mode @ 0..0x30 => (APPLICATION_DATA, self.bytes(mode.into())),
            0x30..0x40 => (APPLICATION_DATA, vec![0x5a; self.short() % (MAX_PLAINTEXT + 300)]),
            mode @ 0x40..0x80 => {
                // A part of a key update with any start, end and value, perhaps with bytes behind it.
                let value = self.byte();
                let whole = [24, 0, 0, 1, if value < 0xc0 { value % 2 } else { value }, self.byte()];
                let (from, to) = (usize::from(mode >> 3 & 7) % 6, usize::from(mode & 7) % 7);
                (HANDSHAKE, whole.get(from..to).unwrap_or(&whole[..5]).to_vec())
            }
            0x80..0x90 => (HANDSHAKE, vec![24, 0, 0, 1, self.byte() % 2]),
            mode @ 0x90..0xa0 => (HANDSHAKE, self.bytes((mode & 15).into())),
            0xa0..0xb0 => (ALERT, vec![1, 90]),
            0xb0..0xb8 => (ALERT, vec![self.byte() % 4, [0, 10, 40, 90, 255][usize::from(self.byte() % 5)]]),
            mode @ 0xb8..0xc0 => (ALERT, self.bytes((mode & 7).into())),
            mode @ 0xc0..0xd0 => (20, self.bytes((mode & 3).into())),
            mode => (self.byte(), self.bytes((mode & 15).into())),
        };
        content.push(kind);
        let padding = match self.byte() {
            0..0xa0 => 0,
            few @ 0xa0..0xf0 => usize::from(few - 0xa0),
            // Lengths around the maximum.
            0xf0..0xf8 => (MAX_PLAINTEXT - 2 + usize::from(self.byte() % 8)).saturating_sub(content.len()),
            _ => self.short() % (MAX_PLAINTEXT + 300),
        };
        content.resize(content.len() + padding, 0);
        content
    }
}

/// The steps made from `input`.
pub(super) fn script(input: &[u8]) -> Vec<Step> {
    let (mut reader, mut steps) = (Reader(input), Vec::new());
    while !reader.0.is_empty() && steps.len() < MAX_STEPS {
        match reader.byte() {
            0..0x90 => steps.push(Step::Record(Record::Sealed(reader.inner()))),
            0x90..0xb0 => {
                // A burst of ordinary records, so that the next record may have any sequence number.
                let (records, step, padding) = (reader.byte() % MAX_BURST, reader.byte(), reader.byte());
                steps.extend((1..=records).map(|number| {
                    let len = 1 + usize::from(number) * usize::from(step) % 300;
                    let mut inner = vec![number; len];
                    inner.push(APPLICATION_DATA);
                    inner.resize(inner.len() + usize::from(number) * usize::from(padding) % 64, 0);
                    Step::Record(Record::Sealed(inner))
                }));
            }
            0xb0..0xc0 => steps.push(Step::Say(reader.short() % 40_000)),
            0xc0..0xe0 => {
                let (at, bits) = (reader.short(), reader.byte().max(1));
                steps.push(Step::Record(Record::Damaged { inner: reader.inner(), at, bits }));
            }
            mode @ 0xe0..0xf8 => {
                let (kind, len) = (20 + mode % 5, reader.byte() % 64);
                let mut raw = vec![kind, 3, 3, 0, len];
                raw.extend(reader.bytes(len.into()));
                steps.push(Step::Record(Record::Raw(raw)));
            }
            _ => {
                let len = reader.byte() % 64;
                steps.push(Step::Record(Record::Raw(reader.bytes(len.into()))));
            }
        }
    }
    steps
}
