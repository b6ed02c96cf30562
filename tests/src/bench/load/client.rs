//! One DERP client: it blocks during login, and afterwards until its load makes the socket non-blocking.

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use relay_common::derp::{
    HEADER_LEN, KEY_LEN, MAX_CLIENT_FRAME, MAX_PACKET, PING_LEN,
    frame::Header,
    message::{FromClient, FromServer},
};
use relay_common::key::{NodePrivate, NodePublic};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::scan::{STAMP_LEN, Scanner, Stamp};
use super::tls::{self, Tls};
use super::{Door, Plan};
use crate::client::login::{self, Frame, LoginStream};

/// A server that sends nothing for this long has failed.
const SILENCE: Duration = Duration::from_secs(15);
/// Maximum bytes of one read.
pub(super) const SCRATCH_BYTES: usize = 256 * 1024;
/// Maximum bytes of one record.
const RECORD_BYTES: usize = 16 * 1024;
/// The payload of a barrier's Ping.
const BARRIER: [u8; PING_LEN] = *b"barrier.";
/// Offset of a SendPacket frame's payload.
const PAYLOAD_AT: usize = HEADER_LEN + KEY_LEN;

/// How clients connect: the server and the TLS configuration.
pub(super) struct Dialer {
    plan: Plan,
    tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    pub(super) fn new(plan: &Plan) -> anyhow::Result<Dialer> {
        let tls = if plan.plain { None } else { Some(tls::config()?) };
        Ok(Dialer { plan: plan.clone(), tls })
    }

    /// Connects a client and logs it in.
    pub(super) fn dial(&self) -> anyhow::Result<Client> {
        let Plan { addr, name, .. } = &self.plan;
        self.dial_at(*addr, name.as_deref())
    }

    /// Connects a client to the plan's other relay, if it has one, and logs it in.
    pub(super) fn dial_there(&self) -> anyhow::Result<Client> {
        match &self.plan.to {
            Some(Door { name, addr }) => self.dial_at(*addr, Some(name)).context("at the other relay"),
            None => self.dial(),
        }
    }

    fn dial_at(&self, addr: SocketAddr, name: Option<&str>) -> anyhow::Result<Client> {
        let tcp = TcpStream::connect_timeout(&addr, SILENCE).context("connecting")?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(SILENCE))?;
        tcp.set_write_timeout(Some(SILENCE))?;
        let tls = match &self.tls {
            Some(config) => {
                let name = match name {
                    Some(name) => ServerName::try_from(name.to_owned())?,
                    None => ServerName::from(addr.ip()),
                };
                Some(Tls::new(Arc::clone(config), name)?)
            }
            None => None,
        };
        let key = NodePrivate::generate(&mut rand_core::OsRng);
        let scanner = Scanner::new(self.plan.size);
        let mut client = Client {
            key: key.public(),
            wire: Wire { tcp, tls, tail: Vec::new(), unsent: Vec::new() },
            scanner,
        };
        client.log_in(&key, addr)?;
        Ok(client)
    }
}

/// A client that is logged in.
pub(super) struct Client {
    pub(super) key: NodePublic,
    pub(super) wire: Wire,
    scanner: Scanner,
}

/// A client that logs in.
struct Login<'c> {
    client: &'c mut Client,
    /// Bytes that were read and not used yet.
    got: Vec<u8>,
    scratch: Vec<u8>,
}

impl LoginStream for Login<'_> {
    fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.client.wire.send(bytes, &mut Vec::new())
    }

    fn head(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(at) = self.got.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let rest = self.got.split_off(at + 4);
                return Ok(String::from_utf8(mem::replace(&mut self.got, rest))?);
            }
            self.client.read_into(&mut self.got, &mut self.scratch).context("HTTP upgrade")?;
        }
    }

    fn frame(&mut self) -> anyhow::Result<Frame> {
        self.client.frame(&mut self.got, &mut self.scratch)
    }
}

/// The connection that carries the frames.
pub(super) struct Wire {
    pub(super) tcp: TcpStream,
    tls: Option<Tls>,
    /// Ciphertext of a record that has not arrived completely.
    tail: Vec<u8>,
    /// Bytes that the kernel could not take yet.
    unsent: Vec<u8>,
}

impl Client {
    /// The HTTP upgrade and DERP's greeting of a client that does not know the server's key yet.
    fn log_in(&mut self, key: &NodePrivate, addr: SocketAddr) -> anyhow::Result<()> {
        let mut scratch = vec![0; 16 * 1024];
        self.wire.handshake(&mut scratch).context("TLS handshake")?;
        let mut stream = Login { client: self, got: Vec::new(), scratch };
        let server = login::greet(&mut stream, addr)?;
        login::log_in(&mut stream, key, &server)?;
        let Login { client, got, .. } = stream;
        client.scanner.take(&got, |_| ())
    }

    /// The next frame, from the bytes in `got` and further reads.
    pub(super) fn frame(&mut self, got: &mut Vec<u8>, scratch: &mut [u8]) -> anyhow::Result<Frame> {
        loop {
            if let Some(head) = got.first_chunk::<HEADER_LEN>() {
                let header = Header::decode(head);
                let len = HEADER_LEN + header.len as usize;
                if len > MAX_CLIENT_FRAME {
                    bail!("a frame of {len} bytes");
                }
                if got.len() >= len {
                    let frame: Vec<u8> = got.drain(..len).collect();
                    return Ok((header, frame[HEADER_LEN..].to_vec()));
                }
            }
            self.read_into(got, scratch)?;
        }
    }

    fn read_into(&mut self, got: &mut Vec<u8>, scratch: &mut [u8]) -> anyhow::Result<()> {
        self.wire.receive(scratch, |bytes| {
            got.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(())
    }

    /// Waits until the server has handled everything sent before: sends a Ping and reads up to its Pong.
    /// `seen` gets the frames before it; `got` holds bytes that were read and are not a whole frame yet.
    pub(super) fn barrier(
        &mut self,
        got: &mut Vec<u8>,
        scratch: &mut [u8],
        mut seen: impl FnMut(&FromServer<'_>),
    ) -> anyhow::Result<()> {
        let mut ping = Vec::new();
        FromClient::Ping(BARRIER).encode(&mut ping);
        self.wire.send(&ping, &mut Vec::new())?;
        loop {
            let (header, payload) = self.frame(got, scratch).context("waiting for a Pong")?;
            match FromServer::parse(header, &payload)? {
                FromServer::Pong(BARRIER) => return Ok(()),
                other => seen(&other),
            }
        }
    }

    /// Reads once; `found` gets the stamps. Returns whether the kernel may hold more data.
    pub(super) fn receive(
        &mut self,
        scratch: &mut [u8],
        mut found: impl FnMut(Stamp),
    ) -> anyhow::Result<bool> {
        let scanner = &mut self.scanner;
        self.wire.receive(scratch, |bytes| scanner.take(bytes, &mut found))
    }
}

impl Wire {
    fn handshake(&mut self, scratch: &mut [u8]) -> anyhow::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let mut out = Vec::new();
        tls.open(&mut [], &mut out, |_| Ok(()))?;
        self.write(&out)?;
        while !self.tls.as_ref().is_none_or(Tls::is_ready) {
            self.receive(scratch, |_| bail!("data before its time"))?;
        }
        Ok(())
    }

    /// Seals `plain`, as one record if it fits, and writes it; `out` is an empty buffer.
    pub(super) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        out.clear();
        self.seal(plain, out)?;
        self.write(out)
    }

    /// Appends `plain`, as one record if it fits.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        match &mut self.tls {
            Some(tls) => plain.chunks(RECORD_BYTES).try_for_each(|part| tls.seal(part, out)),
            None => {
                out.extend_from_slice(plain);
                Ok(())
            }
        }
    }

    /// Writes bytes after those that still wait.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        if self.unsent.is_empty() {
            bytes = &bytes[write_some(&self.tcp, bytes)?..];
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes the waiting bytes; returns whether none wait any more.
    pub(super) fn flush(&mut self) -> anyhow::Result<bool> {
        if !self.unsent.is_empty() {
            let written = write_some(&self.tcp, &self.unsent)?;
            self.unsent.drain(..written);
        }
        Ok(self.unsent.is_empty())
    }

    /// Whether the kernel probably takes more bytes now.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Reads once and opens the records; returns whether the read filled its buffer.
    fn receive(
        &mut self,
        scratch: &mut [u8],
        sink: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let room = scratch.len() - self.tail.len();
        Ok(self.receive_some(room, scratch, sink)? == room)
    }

    /// Reads once, at most `most` bytes, and opens the records; returns how many bytes it read.
    pub(super) fn receive_some(
        &mut self,
        most: usize,
        scratch: &mut [u8],
        mut sink: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let kept = self.tail.len();
        scratch[..kept].copy_from_slice(&self.tail);
        let end = scratch.len().min(kept + most);
        let read = match self.tcp.read(&mut scratch[kept..end]) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.may_wait()? => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let data = &mut scratch[..kept + read];
        let Some(tls) = &mut self.tls else {
            sink(data)?;
            return Ok(read);
        };
        let mut out = Vec::new();
        let used = tls.open(data, &mut out, sink)?;
        self.tail.clear();
        self.tail.extend_from_slice(&data[used..]);
        if !out.is_empty() {
            self.write(&out)?;
        }
        Ok(read)
    }

    /// Whether a read may find nothing. While the socket has a read timeout, that means that the server was
    /// silent.
    fn may_wait(&self) -> io::Result<bool> {
        Ok(self.tcp.read_timeout()?.is_none())
    }
}

fn write_some(mut tcp: &TcpStream, bytes: &[u8]) -> anyhow::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match tcp.write(&bytes[written..]) {
            Ok(0) => bail!("the server takes nothing"),
            Ok(len) => written += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).context("writing"),
        }
    }
    Ok(written)
}

/// A SendPacket frame whose stamp is not set yet.
pub(super) fn packet_frame(to: &NodePublic, size: usize) -> anyhow::Result<Vec<u8>> {
    if !(STAMP_LEN..=MAX_PACKET).contains(&size) {
        bail!("packets of {size} bytes: from {STAMP_LEN} to {MAX_PACKET}");
    }
    let mut frame = Vec::new();
    FromClient::SendPacket { dest: to, payload: &vec![0x5a; size] }.encode(&mut frame);
    Ok(frame)
}

/// Sets a frame's stamp.
pub(super) fn stamp(frame: &mut [u8], stamp: Stamp) {
    frame[PAYLOAD_AT..PAYLOAD_AT + STAMP_LEN].copy_from_slice(&stamp.encode());
}
