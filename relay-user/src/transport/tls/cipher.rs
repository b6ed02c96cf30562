//! TLS 1.3's record protection in one direction (RFC 8446, sections 5.2 to 5.5): a key and a sequence number.
//!
//! Records are opened in place and sealed straight into the write buffer, both without allocation.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::{ConnectionTrafficSecrets, Error};
use zeroize::Zeroizing;

/// Bytes of a record's header.
pub const HEADER: usize = 5;

/// Plaintext bytes of a full record.
pub const MAX_PLAINTEXT: usize = 16 * 1024;

/// Bytes that may be sealed in one record: a full plaintext and its content type, or less and padding.
const MAX_INNER: usize = MAX_PLAINTEXT + 1;

/// Bytes that sealing adds to a record: header, inner content type, tag.
pub const OVERHEAD: usize = HEADER + 1 + TAG;

/// All three ciphers have tags of this length.
const TAG: usize = 16;

/// Longest body of a record that RFC 8446 allows, with content type, padding and tag.
const MAX_BODY: usize = MAX_PLAINTEXT + 256;

/// The outer content type of every record, and the inner one of plaintext.
pub const APPLICATION_DATA: u8 = 23;

/// The fault of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The record is not protected.
    #[error("a record of type {0} that is not encrypted")]
    Type(u8),
    /// The record, or its sealed content with padding, is longer than allowed.
    #[error("a record of {0} bytes")]
    TooLong(usize),
    /// The record was not sealed with this key and sequence number.
    #[error("a record that does not open")]
    Seal,
    /// The record holds only padding.
    #[error("a record without a content type")]
    NoType,
}

/// A record that has been opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its inner content type.
    pub kind: u8,
    /// The sealed content, without padding.
    pub plaintext: &'a [u8],
    /// Bytes of the whole record as received.
    pub len: usize,
}

/// One direction of a connection.
pub struct Cipher {
    key: LessSafeKey,
    /// Wiped on drop; the cipher's crate does the same with the key.
    iv: Zeroizing<[u8; NONCE_LEN]>,
    sequence: u64,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cipher").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Cipher {
    /// Continues with `secrets` at the sequence number given with them.
    ///
    /// # Errors
    /// A cipher that this code does not know.
    pub fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("a cipher without a record layer".into())),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Error::EncryptError)?;
        let iv = iv.as_ref().try_into().map_err(|_| Error::EncryptError)?;
        Ok(Self { key: LessSafeKey::new(key), iv: Zeroizing::new(iv), sequence })
    }

    /// Records sealed or opened so far.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Opens the record at the start of `data`, in place. Returns `None` if it has not arrived whole.
    ///
    /// # Errors
    /// The record is [`Broken`]; the connection cannot go on.
    pub fn open<'a>(&mut self, data: &'a mut [u8]) -> Result<Option<Record<'a>>, Broken> {
        let Some((header, rest)) = data.split_first_chunk_mut::<HEADER>() else { return Ok(None) };
        // The version in the header has no meaning (RFC 8446, 5.1).
        let &mut [kind, _, _, high, low] = header;
        let len = usize::from(u16::from_be_bytes([high, low]));
        if kind != APPLICATION_DATA {
            return Err(Broken::Type(kind));
        }
        if len > MAX_BODY {
            return Err(Broken::TooLong(len));
        }
        let Some(body) = rest.get_mut(..len) else { return Ok(None) };
        let text = len.checked_sub(TAG).ok_or(Broken::Seal)?;
        let (text, tag) = body.split_at_mut(text);
        let (nonce, aad) = (self.nonce(), Aad::from(*header));
        let text = self.key.open_in_place_separate_tag(nonce, aad, tag, text).map_err(|_| Broken::Seal)?;
        self.sequence += 1;
        // Padding counts too (RFC 8446, 5.4): even if the content is short, the whole must not be too long.
        if text.len() > MAX_INNER {
            return Err(Broken::TooLong(text.len()));
        }
        // Zeros after the content type are padding.
        let end = text.iter().rposition(|&byte| byte != 0).ok_or(Broken::NoType)?;
        Ok(Some(Record { kind: text[end], plaintext: &text[..end], len: HEADER + len }))
    }

    /// Seals at most [`MAX_PLAINTEXT`] bytes as one record at the start of `out`, which must have room for
    /// [`OVERHEAD`] more bytes. Returns the record's length.
    ///
    /// # Errors
    /// There is too little room, or too much plaintext.
    pub fn seal(&mut self, kind: u8, plaintext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let record = OVERHEAD + plaintext.len();
        let out = out.get_mut(..record).ok_or(Error::EncryptError)?;
        let (header, body) = out.split_first_chunk_mut::<HEADER>().ok_or(Error::EncryptError)?;
        let [high, low] = u16::try_from(body.len()).map_err(|_| Error::EncryptError)?.to_be_bytes();
        *header = [APPLICATION_DATA, 3, 3, high, low];
        let (text, end) = body.split_at_mut(plaintext.len());
        let (nonce, aad) = (self.nonce(), Aad::from(*header));
        self.key
            .seal_out_of_place_scatter(nonce, aad, plaintext, text, &[kind], end)
            .map_err(|_| Error::EncryptError)?;
        self.sequence += 1;
        Ok(record)
    }

    /// The nonce of RFC 8446, 5.3. Sequence numbers have 64 bits, so none is used twice.
    fn nonce(&self) -> Nonce {
        let mut nonce = *self.iv;
        let (_, low) = nonce.split_at_mut(NONCE_LEN - 8);
        low.iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
mod tests;
