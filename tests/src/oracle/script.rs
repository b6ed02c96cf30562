//! From any bytes to the records of a client that means no good.

use relay_user::transport::tls::cipher::{APPLICATION_DATA, MAX_PLAINTEXT};

/// Steps of a script at most.
const MAX_STEPS: usize = 256;
/// Records of a burst at most.
const MAX_BURST: u8 = 48;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// A key update, without the value of its one byte.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The client sends a record.
    Record(Record),
    /// The server sends so many bytes.
    Say(usize),
}

/// A record.
#[derive(Clone, Debug)]
pub(super) enum Record {
    /// Sealed with the right key: content, type and padding.
    Sealed(Vec<u8>),
    /// The same, with bits of one byte changed afterwards.
    Damaged { inner: Vec<u8>, at: usize, bits: u8 },
    /// Never sealed.
    Raw(Vec<u8>),
}

impl Record {
    /// What is inside, if it opens.
    pub(super) fn inner(&self) -> Option<(u8, &[u8])> {
        let Self::Sealed(inner) = self else { return None };
        let end = inner.iter().rposition(|&byte| byte != 0)?;
        Some((inner[end], &inner[..end]))
    }
}

/// What of the records before decides about the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    /// Bytes of a key update that have come.
    pub(super) update: usize,
    /// Records in a row without data, with the one at hand.
    pub(super) fruitless: u32,
    /// `user_canceled` alerts of the connection, with the one at hand.
    pub(super) canceled: u32,
}

impl Context {
    /// Takes note of the record at hand.
    pub(super) fn begin(&mut self, record: &Record) {
        self.fruitless += 1;
        match record.inner() {
            Some((APPLICATION_DATA, [_, ..])) => self.fruitless = 0,
            Some((ALERT, [_, 90])) => self.canceled += 1,
            _ => {}
        }
    }

    /// Both sides took it and go on; whether it was the end of a key update.
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

/// Bytes that are read as instructions; none left reads as zeros.
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
                // A piece of a key update, from anywhere to anywhere, with any value and something behind.
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
            // Around the longest that is allowed.
            0xf0..0xf8 => (MAX_PLAINTEXT - 2 + usize::from(self.byte() % 8)).saturating_sub(content.len()),
            _ => self.short() % (MAX_PLAINTEXT + 300),
        };
        content.resize(content.len() + padding, 0);
        content
    }
}

/// The steps that `input` makes.
pub(super) fn script(input: &[u8]) -> Vec<Step> {
    let (mut reader, mut steps) = (Reader(input), Vec::new());
    while !reader.0.is_empty() && steps.len() < MAX_STEPS {
        match reader.byte() {
            0..0x90 => steps.push(Step::Record(Record::Sealed(reader.inner()))),
            0x90..0xb0 => {
                // So many usual records that what comes next comes at any sequence number.
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
