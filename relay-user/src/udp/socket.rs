//! Sockets of the UDP services: one pair of families per worker, sharing the port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

use super::batch::{Outgoing, Received, Sent, send};

/// Wanted socket buffers, each way (upstream's 7 MiB).
const BUFFER_BYTES: usize = 7 << 20;

/// A non-blocking UDP socket that tells which address a datagram came to.
#[derive(Debug)]
pub struct UdpSocket {
    inner: tokio::net::UdpSocket,
    local: SocketAddr,
}

/// One worker's sockets. IPv6 is optional.
#[derive(Debug)]
pub struct Pair {
    /// The IPv4 socket.
    pub v4: UdpSocket,
    /// The IPv6 socket, where the host has IPv6.
    pub v6: Option<UdpSocket>,
}

impl UdpSocket {
    /// Binds `addr`, whose port others of this process may share.
    ///
    /// # Errors
    /// The system's, of the call that failed.
    pub fn bind(addr: SocketAddr, share: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        socket.set_reuse_port(share)?;
        set_buffers(&socket);
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { inner: tokio::net::UdpSocket::from_std(socket.into())?, local })
    }

    /// The bound address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Waits for datagrams and receives a batch of them.
    ///
    /// # Errors
    /// The system's; the socket can go on being used.
    pub async fn recv(&self, received: &mut Received) -> io::Result<usize> {
        self.inner.async_io(Interest::READABLE, || received.recv(self.inner.as_fd())).await
    }

    /// Sends a batch without waiting.
    pub fn send(&self, batch: &[Outgoing<'_>]) -> Sent {
        if batch.is_empty() { Sent::default() } else { send(self.inner.as_fd(), batch) }
    }
}

impl Pair {
    /// Binds `count` pairs to one port of all addresses; port 0 picks one, the same for both families.
    ///
    /// # Errors
    /// IPv4 cannot be bound.
    pub fn bind_all(port: u16, count: usize) -> io::Result<Vec<Self>> {
        let mut port = port;
        let mut pairs = Vec::new();
        for _ in 0..count.max(1) {
            let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port).into(), true)?;
            port = v4.local().port();
            let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port).into(), true);
            let v6 = v6.inspect_err(|error| tracing::info!(%error, port, "no IPv6 for the UDP relay")).ok();
            pairs.push(Self { v4, v6 });
        }
        Ok(pairs)
    }

    /// The socket of an address' family.
    pub fn of(&self, addr: SocketAddr) -> Option<&UdpSocket> {
        if addr.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() }
    }
}

/// Past the system's limit where we may, up to it where not; small buffers are no reason to fail.
fn set_buffers(socket: &Socket) {
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    }
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    }
}
