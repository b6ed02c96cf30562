//! The stream of a test client: TCP or TLS, HTTP head, frames. It blocks, and every wait has a deadline.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use relay_common::{
    derp::{deframer::Deframer, limits},
    key::NodePublic,
};
use rustls::{ClientConnection, StreamOwned, version};

use super::{
    DEADLINE, Dial, Transport,
    forger::Forger,
    login::{Frame, LoginStream},
    tls,
};

/// Longest HTTP head of a relay's answer.
const MAX_HEAD: usize = 4096;

/// A connection to a relay.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    meta_key: Option<NodePublic>,
    deframer: Deframer,
    frames: VecDeque<Frame>,
    /// Bytes that arrived behind an HTTP head.
    rest: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// The result of a read.
enum Got {
    Bytes(usize),
    Closed,
    Nothing,
}

impl LoginStream for Wire {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)
    }

    fn head(&mut self) -> Result<String> {
        self.http_head()
    }

    fn frame(&mut self) -> Result<Frame> {
        Wire::frame(self)
    }
}

impl Wire {
    /// Connects from the network namespace of the calling thread; with TLS, completes the handshake.
    pub fn connect(dial: &Dial) -> Result<Self> {
        let tcp = TcpStream::connect_timeout(&dial.addr, DEADLINE)
            .with_context(|| format!("cannot connect to {}", dial.addr))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(DEADLINE))?;
        tcp.set_write_timeout(Some(DEADLINE))?;
        let (pinned, version) = match &dial.transport {
            Transport::Plain => return Ok(Self::new(Stream::Plain(tcp), None)),
            Transport::Tls12(pinned) => (pinned, &version::TLS12),
            Transport::Tls13(pinned) => (pinned, &version::TLS13),
        };
        let name = pinned.name(dial.addr.ip());
        let mut tls = StreamOwned::new(ClientConnection::new(pinned.config(version)?, name)?, tcp);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).context("TLS handshake")?;
        }
        let is_13 = tls.conn.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let meta_key = tls.conn.peer_certificates().and_then(tls::meta_key).filter(|_| is_13);
        Ok(Self::new(Stream::Tls(Box::new(tls)), meta_key))
    }

    fn new(stream: Stream, meta_key: Option<NodePublic>) -> Self {
        Self { stream, meta_key, deframer: Deframer::new(), frames: VecDeque::new(), rest: Vec::new() }
    }

    /// The relay's key from its meta certificate; only with TLS 1.3.
    pub fn meta_key(&self) -> Option<NodePublic> {
        self.meta_key
    }

    /// Writes all of `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let stream: &mut dyn Write = match &mut self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls,
        };
        stream.write_all(bytes)?;
        Ok(stream.flush()?)
    }

    /// Writes all of `bytes` with new keys, and asks the relay to update its keys. Only with TLS 1.3.
    pub fn write_with_new_keys(&mut self, bytes: &[u8]) -> Result<()> {
        let Stream::Tls(tls) = &mut self.stream else { bail!("no TLS, no keys") };
        tls.conn.refresh_traffic_keys()?;
        self.write(bytes)
    }

    /// Writes `bytes`, at most one record, and changes one bit of the record.
    pub fn write_damaged(&mut self, bytes: &[u8]) -> Result<()> {
        let Stream::Tls(tls) = &mut self.stream else { bail!("no TLS, no record") };
        tls.conn.writer().write_all(bytes)?;
        let mut record = Vec::new();
        tls.conn.write_tls(&mut record)?;
        *record.last_mut().context("a record")? ^= 1;
        Ok(tls.sock.write_all(&record)?)
    }

    /// Continues below TLS with the keys of this connection and without the checks of rustls. Only with TLS
    /// 1.3.
    pub fn into_forger(self) -> Result<Forger> {
        let Stream::Tls(tls) = self.stream else { bail!("no TLS, no records") };
        Forger::new(tls.sock, tls.conn.dangerous_extract_secrets()?)
    }

    /// Reads an HTTP head; the bytes behind it remain for the frames or [`Self::http_body`].
    pub fn http_head(&mut self) -> Result<String> {
        let mut read = std::mem::take(&mut self.rest);
        loop {
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                self.rest = read.split_off(end + 4);
                return Ok(String::from_utf8(read)?);
            }
            ensure!(read.len() < MAX_HEAD, "an HTTP head of more than {MAX_HEAD} bytes");
            let mut buffer = [0; MAX_HEAD];
            match self.read_within(&mut buffer, DEADLINE)? {
                Got::Bytes(len) => read.extend_from_slice(&buffer[..len]),
                Got::Closed => bail!("closed within an HTTP head"),
                Got::Nothing => bail!("no HTTP head before the deadline"),
            }
        }
    }

    /// Reads `len` bytes behind an HTTP head.
    pub fn http_body(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut body = std::mem::take(&mut self.rest);
        while body.len() < len {
            let mut buffer = [0; MAX_HEAD];
            match self.read_within(&mut buffer, DEADLINE)? {
                Got::Bytes(len) => body.extend_from_slice(&buffer[..len]),
                Got::Closed | Got::Nothing => bail!("an HTTP body of {} instead of {len} bytes", body.len()),
            }
        }
        self.rest = body.split_off(len);
        Ok(body)
    }

    /// Waits for the next frame.
    pub fn frame(&mut self) -> Result<Frame> {
        self.frame_within(DEADLINE)?.context("no frame before the deadline")
    }

    /// The next frame, or `None` if no whole frame arrives within `time`. The end of the stream is an error.
    pub fn frame_within(&mut self, time: Duration) -> Result<Option<Frame>> {
        let end = Instant::now() + time;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let rest = std::mem::take(&mut self.rest);
            self.push(&rest)?;
            if let Some(frame) = self.frames.pop_front() {
                return Ok(Some(frame));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            match self.read_within(&mut buffer, left)? {
                Got::Bytes(len) => self.push(&buffer[..len])?,
                Got::Closed => bail!("closed by the relay"),
                Got::Nothing => {}
            }
        }
    }

    /// Reads every frame until the relay closes the connection, which must happen before the deadline.
    pub fn frames_until_closed(&mut self) -> Result<Vec<Frame>> {
        let end = Instant::now() + DEADLINE;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "the relay did not close the connection");
            match self.read_within(&mut buffer, left)? {
                Got::Bytes(len) => self.push(&buffer[..len])?,
                Got::Closed => return Ok(self.frames.drain(..).collect()),
                Got::Nothing => {}
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let Self { deframer, frames, .. } = self;
        deframer.push(bytes, limits::client, |header, payload| {
            frames.push_back((header, payload.to_vec()));
            Ok::<_, Infallible>(())
        })?;
        Ok(())
    }

    fn read_within(&mut self, buffer: &mut [u8], time: Duration) -> Result<Got> {
        let result = match &mut self.stream {
            Stream::Plain(tcp) => {
                tcp.set_read_timeout(Some(time))?;
                tcp.read(buffer)
            }
            Stream::Tls(tls) => {
                tls.sock.set_read_timeout(Some(time))?;
                tls.read(buffer)
            }
        };
        Ok(match result {
            Ok(0) => Got::Closed,
            Ok(len) => Got::Bytes(len),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Got::Nothing,
                // If the relay closes with unread data, it resets the connection; without close_notify, TLS
                // reports EOF.
                ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => Got::Closed,
                _ => return Err(error.into()),
            },
        })
    }
}
