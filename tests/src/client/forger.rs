//! A client below TLS: it has the keys of its connection, and seals records that no TLS library would seal.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result, bail};
use relay_user::transport::tls::cipher::{APPLICATION_DATA, Cipher, OVERHEAD};
use rustls::ExtractedSecrets;

/// Inner content type of an alert.
const ALERT: u8 = 21;

/// A TLS 1.3 connection whose records are made by hand.
#[derive(Debug)]
pub struct Forger {
    tcp: TcpStream,
    tx: Cipher,
    rx: Cipher,
}

/// What a relay sent before it closed the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastWords {
    /// Plaintext of all data records.
    pub data: Vec<u8>,
    /// The description of its alert, which must be the last record.
    pub alert: Option<u8>,
}

impl Forger {
    /// Continues with the secrets of a connection.
    pub(super) fn new(tcp: TcpStream, secrets: ExtractedSecrets) -> Result<Self> {
        Ok(Self { tcp, tx: Cipher::new(secrets.tx)?, rx: Cipher::new(secrets.rx)? })
    }

    /// Seals one record: content, type, and bytes of padding.
    pub fn seal(&mut self, kind: u8, content: &[u8], padding: usize) -> Result<Vec<u8>> {
        let mut inner = content.to_vec();
        inner.push(kind);
        inner.resize(inner.len() + padding, 0);
        let (&last, before) = inner.split_last().context("a type")?;
        let mut record = vec![0; before.len() + OVERHEAD];
        self.tx.seal(last, before, &mut record)?;
        Ok(record)
    }

    /// Sends the bytes unchanged.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.tcp.write_all(bytes)?)
    }

    /// Reads the data of one record.
    pub fn data(&mut self) -> Result<Vec<u8>> {
        let mut record = vec![0; 5];
        self.tcp.read_exact(&mut record)?;
        let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
        record.resize(record.len() + len, 0);
        self.tcp.read_exact(&mut record[5..])?;
        match self.rx.open(&mut record)? {
            Some(record) if record.kind == APPLICATION_DATA => Ok(record.plaintext.to_vec()),
            other => bail!("no data: {other:?}"),
        }
    }

    /// Reads to the end of the stream; a reset is an error.
    pub fn last_words(mut self) -> Result<LastWords> {
        let mut bytes = Vec::new();
        self.tcp.read_to_end(&mut bytes).context("no orderly end")?;
        let (mut said, mut rest) = (LastWords::default(), &mut bytes[..]);
        while let Some(record) = self.rx.open(rest)? {
            match (record.kind, record.plaintext, said.alert) {
                (APPLICATION_DATA, data, None) => said.data.extend_from_slice(data),
                (ALERT, &[_, description], None) => said.alert = Some(description),
                other => bail!("not the relay's to say: {other:?}"),
            }
            let len = record.len;
            rest = &mut rest[len..];
        }
        Ok(said)
    }
}
