//! Sockets of the UDP services. STUN has one socket for both families. The relay has one pair per worker, a
//! socket for each family; all share the port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

use super::batch::{Outgoing, ReceivedBatch, Sent, send};
use crate::host::wildcard;

/// Requested size of the socket buffers, each way (upstream's 7 MiB).
const BUFFER_BYTES: usize = 7 << 20;

/// How many ports are tried if any port will do.
const PORT_TRIES: usize = 16;

/// A non-blocking UDP socket that reports the local address that each datagram came to.
#[derive(Debug)]
pub struct UdpSocket {
    inner: tokio::net::UdpSocket,
    local: SocketAddr,
}

/// One worker's sockets. IPv6 is optional.
#[derive(Debug)]
pub struct SocketPair {
    /// The IPv4 socket.
    pub v4: UdpSocket,
    /// The IPv6 socket, if the host has IPv6.
    pub v6: Option<UdpSocket>,
}

impl UdpSocket {
    /// Binds `addr` as [`wildcard::open`] opens it: an unspecified address takes datagrams of both families.
    ///
    /// # Errors
    /// The error of the system call that failed.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        Self::new(wildcard::open(addr, Type::DGRAM, set_options)?)
    }

    /// Binds all addresses of one family. `share`: other sockets of this process share the port.
    fn bind_family(addr: SocketAddr, share: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        set_options(&socket)?;
        socket.set_reuse_port(share)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        // The other sockets of this process may share the port only from now on. The first bind was made
        // without sharing, so it failed if another process had the port: that process would take half of our
        // packets, or we half of its.
        socket.set_reuse_port(true)?;
        Self::new(socket)
    }

    fn new(socket: Socket) -> io::Result<Self> {
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { inner: tokio::net::UdpSocket::from_std(socket.into())?, local })
    }

    /// Moves the socket into the calling thread's event loop, from the one it was made in.
    ///
    /// # Errors
    /// The system's error.
    pub fn rehome(self) -> io::Result<Self> {
        let inner = tokio::net::UdpSocket::from_std(self.inner.into_std()?)?;
        Ok(Self { inner, ..self })
    }

    /// The bound address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Waits for datagrams and receives a batch of them.
    ///
    /// # Errors
    /// The system's error; the socket can still be used.
    pub async fn recv(&self, received: &mut ReceivedBatch) -> io::Result<usize> {
        self.inner.async_io(Interest::READABLE, || received.recv(self.inner.as_fd())).await
    }

    /// Sends a batch without waiting.
    pub fn send(&self, batch: &[Outgoing<'_>]) -> Sent {
        if batch.is_empty() { Sent::default() } else { send(self.inner.as_fd(), batch) }
    }
}

impl SocketPair {
    /// Binds `count` pairs to one port of all addresses. Port 0 picks a port, the same for both families.
    /// Only this process has the port.
    ///
    /// # Errors
    /// IPv4 cannot be bound, or another process has the port in either family.
    pub fn bind_all(port: u16, count: usize) -> io::Result<Vec<Self>> {
        let mut pairs = vec![Self::bind_first(port)?];
        let (port, with_v6) = (pairs[0].v4.local().port(), pairs[0].v6.is_some());
        for _ in 1..count {
            let v4 = UdpSocket::bind_family((Ipv4Addr::UNSPECIFIED, port).into(), true)?;
            let v6 = with_v6.then(|| UdpSocket::bind_family((Ipv6Addr::UNSPECIFIED, port).into(), true));
            pairs.push(Self { v4, v6: v6.transpose()? });
        }
        Ok(pairs)
    }

    fn bind_first(port: u16) -> io::Result<Self> {
        // A port picked for IPv4 may be taken in IPv6, so others are tried; a requested port must be free.
        let mut tries = if port == 0 { PORT_TRIES } else { 1 };
        loop {
            let v4 = UdpSocket::bind_family((Ipv4Addr::UNSPECIFIED, port).into(), false)?;
            match UdpSocket::bind_family((Ipv6Addr::UNSPECIFIED, v4.local().port()).into(), false) {
                Ok(v6) => return Ok(Self { v4, v6: Some(v6) }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    tries -= 1;
                    if tries == 0 {
                        return Err(error);
                    }
                }
                Err(error) => {
                    tracing::info!(%error, port = v4.local().port(), "no IPv6 for the UDP relay");
                    return Ok(Self { v4, v6: None });
                }
            }
        }
    }

    /// Calls [`UdpSocket::rehome`] for both sockets.
    ///
    /// # Errors
    /// The system's error.
    pub fn rehome(self) -> io::Result<Self> {
        Ok(Self { v4: self.v4.rehome()?, v6: self.v6.map(UdpSocket::rehome).transpose()? })
    }

    /// The socket for an address's family.
    pub fn of(&self, addr: SocketAddr) -> Option<&UdpSocket> {
        if addr.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() }
    }
}

/// Asks for the local address of every datagram, for each family that the socket takes, and for larger
/// buffers.
fn set_options(socket: &Socket) -> io::Result<()> {
    // On a socket of both families, IPv4's option reports the address of IPv4 datagrams.
    setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    if socket.domain()? == Domain::IPV6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    set_buffers(socket);
    Ok(())
}

/// Sets the buffer sizes, beyond the system's limit if permitted, otherwise up to it. Small buffers are not
/// an error.
fn set_buffers(socket: &Socket) {
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    }
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_relays_port_is_refused_while_another_relay_has_it() {
        let first = SocketPair::bind_all(0, 2).expect("any port");
        let port = first[0].v4.local().port();
        let error = SocketPair::bind_all(port, 2).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        SocketPair::bind_all(port, 2).expect("free again");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_in_ipv6_alone_is_refused_too() {
        let Ok(other) = std::net::UdpSocket::bind("[::1]:0") else {
            return println!("SKIPPED: a_port_that_is_taken_in_ipv6_alone_is_refused_too: no IPv6 here");
        };
        let port = other.local_addr().expect("address").port();
        assert!(SocketPair::bind_all(port, 1).is_err());
    }

    #[tokio::test]
    async fn every_worker_of_one_relay_gets_its_share() {
        let pairs = SocketPair::bind_all(0, 2).expect("any port");
        let to = (Ipv4Addr::LOCALHOST, pairs[0].v4.local().port());
        // The kernel chooses by a hash of the addresses. With 64 senders, the chance that one socket gets
        // none is one in 2^63.
        let senders: Vec<_> =
            (0..64).map(|_| std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("sender")).collect();
        for sender in &senders {
            sender.send_to(b"x", to).expect("sent");
        }
        let mut received = ReceivedBatch::default();
        for pair in &pairs {
            let got = received.recv(pair.v4.inner.as_fd()).expect("loopback has delivered");
            assert!((1..64).contains(&got), "{got} of 64");
        }
    }

    #[tokio::test]
    async fn a_socket_of_all_addresses_tells_which_one_was_asked() {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into()).expect("bound");
        let sender = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("sender");
        let asked = Ipv4Addr::new(127, 0, 0, 2);
        sender.send_to(b"x", (asked, socket.local().port())).expect("sent");
        let mut received = ReceivedBatch::default();
        socket.recv(&mut received).await.expect("received");
        let datagram = received.iter().next().expect("one");
        assert_eq!(datagram.local_ip, Some(asked.into()));
        let (to, from) = (datagram.from, datagram.local_ip);
        assert_eq!(socket.send(&[Outgoing { payload: b"y", to, from }]), Sent { sent: 1, failed: 0 });
        let (_, from) = sender.recv_from(&mut [0; 8]).expect("answered");
        assert_eq!(from.ip(), asked);
    }
}
