//! Plain TCP: derper's `-dev` transport, and the lower bound that TLS is measured against.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::outbox::Outbox;
use super::{ReadResult, Stream, rehome};
use super::{parting, scratch};

/// A TCP connection without TLS.
#[derive(Debug)]
pub struct PlainStream {
    tcp: TcpStream,
    outbox: Outbox,
}

impl PlainStream {
    /// Takes over a connected socket.
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, outbox: Outbox::default() }
    }
}

impl Stream for PlainStream {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Poll<io::Result<ReadResult>> {
        scratch::for_reading(|scratch| {
            let mut read = ReadBuf::new(&mut scratch[..scratch::SCRATCH_BYTES]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(ReadResult::Closed));
            }
            // There are no more bytes here, so the sink's answer is left to the caller.
            let _ = sink(read.filled());
            Poll::Ready(Ok(ReadResult::Bytes))
        })
    }

    fn send(
        &mut self,
        cx: &mut Context<'_>,
        plaintext: &mut dyn Iterator<Item = &[u8]>,
        more: bool,
    ) -> io::Result<()> {
        self.outbox.send_runs(cx, &mut self.tcp, plaintext, more)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_flush(cx, &mut self.tcp)
    }

    fn unsent(&self) -> usize {
        self.outbox.unsent()
    }

    fn unsent_plaintext(&self) -> usize {
        self.outbox.unsent()
    }

    fn close(&mut self, _cx: &mut Context<'_>) {}

    fn poll_part(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        parting::poll_part(cx, &mut self.tcp, &mut self.outbox, left)
    }

    fn rehome(&mut self) -> io::Result<()> {
        self.tcp = rehome(&self.tcp)?;
        Ok(())
    }

    fn protocol(&self) -> &'static str {
        "tcp"
    }
}
