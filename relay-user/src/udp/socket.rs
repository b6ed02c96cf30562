//! Sockets of the UDP services. STUN has one socket for both families. The relay has one pair per worker, a
//! socket for each family; all share the port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::batch::{Slab, register};
use crate::host::wildcard;

/// Requested size of the socket buffers, each way (upstream's 7 MiB).
const BUFFER_BYTES: usize = 7 << 20;

/// How many ports are tried if any port will do.
const PORT_TRIES: usize = 16;

/// Bytes of a receive slot where a message may be a train: the most that a train has.
pub const TRAIN_SLOT_BYTES: usize = 65_535;

/// Bytes of a receive slot where a message is one datagram, as upstream's. A longer one is reported as cut.
pub const SLOT_BYTES: usize = 16_383;

/// What can be chosen for the relay's sockets.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Send and receive trains of datagrams (UDP_SEGMENT, UDP_GRO) where the kernel can.
    pub trains: bool,
    /// The mark of every packet that is sent (SO_MARK); 0: none.
    pub mark: u32,
}

/// A non-blocking UDP socket that reports the local address that each message came to.
#[derive(Debug)]
pub struct UdpSocket {
    inner: AsyncFd<Socket>,
    local: SocketAddr,
    receives_trains: bool,
    sends_trains: AtomicBool,
    queue_drops: AtomicU32,
}

/// One worker's sockets. IPv6 is optional.
#[derive(Debug)]
pub struct SocketPair {
    /// The IPv4 socket.
    pub v4: UdpSocket,
    /// The IPv6 socket, if the host has IPv6.
    pub v6: Option<UdpSocket>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { trains: true, mark: 0 }
    }
}

impl SocketOptions {
    /// Checks whether this process may set the mark.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn judge(&self) -> io::Result<()> {
        match self.mark {
            0 => Ok(()),
            _ => self.set_mark(&Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?),
        }
    }

    fn set_mark(&self, socket: &Socket) -> io::Result<()> {
        if self.mark == 0 { Ok(()) } else { socket.set_mark(self.mark) }
    }
}

impl UdpSocket {
    /// Binds `addr` as [`wildcard::open`] opens it: an unspecified address takes datagrams of both families.
    /// The socket knows no trains.
    ///
    /// # Errors
    /// The error of the system call that failed.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        Self::new(wildcard::open(addr, Type::DGRAM, set_options)?, false)
    }

    /// Binds all addresses of one family. `share`: other sockets of this process share the port.
    fn bind_family(addr: SocketAddr, share: bool, options: &SocketOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
            socket.set_recv_tclass_v6(true)?;
        } else {
            socket.set_recv_tos_v4(true)?;
        }
        set_options(&socket)?;
        options.set_mark(&socket)?;
        socket.set_reuse_port(share)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        // The other sockets of this process may share the port only from now on. The first bind was made
        // without sharing, so it failed if another process had the port: that process would take half of our
        // packets, or we half of its.
        socket.set_reuse_port(true)?;
        Self::new(socket, options.trains)
    }

    fn new(socket: Socket, trains: bool) -> io::Result<Self> {
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        // Kernels before 5.0 and 4.18 have neither; then each datagram travels by itself.
        let receives_trains = trains && setsockopt(&socket, sockopt::UdpGroSegment, &true).is_ok();
        let sends_trains = trains && getsockopt(&socket, sockopt::UdpGsoSegment).is_ok();
        Ok(Self {
            inner: register(socket)?,
            local,
            receives_trains,
            sends_trains: AtomicBool::new(sends_trains),
            queue_drops: AtomicU32::new(0),
        })
    }

    /// Moves the socket into the calling thread's event loop, from the one it was made in.
    ///
    /// # Errors
    /// The system's error.
    pub fn rehome(self) -> io::Result<Self> {
        Ok(Self { inner: register(self.inner.into_inner())?, ..self })
    }

    /// The bound address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Waits until there may be messages.
    ///
    /// # Errors
    /// The event loop is ending.
    pub async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, Socket>> {
        self.inner.readable().await
    }

    /// Receives the messages that are there, at most `slots`, and returns their number.
    ///
    /// # Errors
    /// The system's error; the socket can still be used. `WouldBlock`: there are none.
    pub fn recv(&self, slab: &mut Slab, slots: usize) -> io::Result<usize> {
        let slot_bytes = if self.receives_trains { TRAIN_SLOT_BYTES } else { SLOT_BYTES };
        slab.recv(self.as_fd(), slot_bytes, slots)
    }

    /// How many messages the socket's queue has dropped since the last call. `total` is what the kernel
    /// reports with a message (SO_RXQ_OVFL): the sum since the socket was made, modulo 2^32.
    pub fn queue_drops(&self, total: u32) -> u32 {
        let before = self.queue_drops.load(Ordering::Relaxed);
        let more = total.wrapping_sub(before);
        // What seems to be half the range is a number from before the last one.
        if more > u32::MAX / 2 {
            return 0;
        }
        self.queue_drops.store(total, Ordering::Relaxed);
        more
    }

    /// Whether the kernel cuts up trains that are sent on this socket.
    pub fn sends_trains(&self) -> bool {
        self.sends_trains.load(Ordering::Relaxed)
    }

    /// Notes that it does not. Returns whether that is news.
    pub fn stop_trains(&self) -> bool {
        self.sends_trains.swap(false, Ordering::Relaxed)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.get_ref().as_fd()
    }
}

impl SocketPair {
    /// Binds `count` pairs to one port of all addresses. Port 0 picks a port, the same for both families.
    /// Only this process has the port.
    ///
    /// # Errors
    /// IPv4 cannot be bound, or another process has the port in either family.
    pub fn bind_all(port: u16, count: usize, options: &SocketOptions) -> io::Result<Vec<Self>> {
        let mut pairs = vec![Self::bind_first(port, options)?];
        let (port, with_v6) = (pairs[0].v4.local().port(), pairs[0].v6.is_some());
        let v6_addr = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        for _ in 1..count {
            let v4 = UdpSocket::bind_family((Ipv4Addr::UNSPECIFIED, port).into(), true, options)?;
            let v6 = with_v6.then(|| UdpSocket::bind_family(v6_addr, true, options));
            pairs.push(Self { v4, v6: v6.transpose()? });
        }
        Ok(pairs)
    }

    fn bind_first(port: u16, options: &SocketOptions) -> io::Result<Self> {
        // A port picked for IPv4 may be taken in IPv6, so others are tried; a requested port must be free.
        let mut tries = if port == 0 { PORT_TRIES } else { 1 };
        loop {
            let v4 = UdpSocket::bind_family((Ipv4Addr::UNSPECIFIED, port).into(), false, options)?;
            let v6_addr = (Ipv6Addr::UNSPECIFIED, v4.local().port()).into();
            match UdpSocket::bind_family(v6_addr, false, options) {
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

/// Asks for the local address of every datagram, for each family that the socket takes, for the number of
/// messages that found no room in the queue, and for larger buffers.
fn set_options(socket: &Socket) -> io::Result<()> {
    // On a socket of both families, IPv4's option reports the address of IPv4 datagrams.
    setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    if socket.domain()? == Domain::IPV6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    setsockopt(socket, sockopt::RxqOvfl, &1)?;
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
    use std::os::fd::AsRawFd;

    use super::super::batch::MOST_SLOTS;
    use super::super::gather::{Flow, Piece};
    use super::super::sender::{Sender, Settled};
    use super::*;

    fn pairs(port: u16, count: usize) -> io::Result<Vec<SocketPair>> {
        SocketPair::bind_all(port, count, &SocketOptions::default())
    }

    #[tokio::test]
    async fn the_relays_port_is_refused_while_another_relay_has_it() {
        let first = pairs(0, 2).expect("any port");
        let port = first[0].v4.local().port();
        let error = pairs(port, 2).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        pairs(port, 2).expect("free again");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_in_ipv6_alone_is_refused_too() {
        let Ok(other) = std::net::UdpSocket::bind("[::1]:0") else {
            return println!("SKIPPED: a_port_that_is_taken_in_ipv6_alone_is_refused_too: no IPv6 here");
        };
        let port = other.local_addr().expect("address").port();
        assert!(pairs(port, 1).is_err());
    }

    #[tokio::test]
    async fn every_worker_of_one_relay_gets_its_share() {
        let pairs = pairs(0, 2).expect("any port");
        let to = (Ipv4Addr::LOCALHOST, pairs[0].v4.local().port());
        // The kernel chooses by a hash of the addresses. With 64 senders, the chance that one socket gets
        // none is one in 2^63.
        let senders: Vec<_> =
            (0..64).map(|_| std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("sender")).collect();
        for sender in &senders {
            sender.send_to(b"x", to).expect("sent");
        }
        let mut slab = Slab::new(MOST_SLOTS, TRAIN_SLOT_BYTES);
        for pair in &pairs {
            let got = pair.v4.recv(&mut slab, MOST_SLOTS).expect("loopback has delivered");
            assert!((1..64).contains(&got), "{got} of 64");
        }
    }

    #[tokio::test]
    async fn a_socket_of_all_addresses_tells_which_one_was_asked() {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into()).expect("bound");
        let sender = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("sender");
        let asked = Ipv4Addr::new(127, 0, 0, 2);
        sender.send_to(b"x", (asked, socket.local().port())).expect("sent");
        let mut slab = Slab::new(1, SLOT_BYTES);
        let _ready = socket.readable().await.expect("a loop");
        socket.recv(&mut slab, 1).expect("received");
        let arrival = slab.arrivals()[0];
        assert_eq!(arrival.notes.local_ip, Some(asked.into()));
        let piece = Piece {
            flow: Flow { to: arrival.from, from: arrival.notes.local_ip, tos: 0 },
            len: 1,
            segment: 0,
        };
        let mut settled = Vec::new();
        let payload = |_| b"y".as_slice();
        let pieces = std::iter::once((0, piece));
        Sender::default().send(&socket, pieces, payload, 0, |number, one| settled.push((number, one)));
        assert_eq!(settled, [(0, Settled { datagrams: 1, bytes: 1, loss: None })]);
        let (_, from) = sender.recv_from(&mut [0; 8]).expect("answered");
        assert_eq!(from.ip(), asked);
    }

    #[tokio::test]
    async fn sockets_have_the_options_that_were_asked_for() {
        let marked = SocketOptions { mark: 7, ..SocketOptions::default() };
        let mark = if marked.judge().is_ok() { 7 } else { 0 };
        if mark == 0 {
            println!("SKIPPED: a part of sockets_have_the_options_that_were_asked_for: no CAP_NET_ADMIN");
        }
        for trains in [true, false] {
            let options = SocketOptions { trains, mark };
            let pair = SocketPair::bind_all(0, 1, &options).expect("any port").remove(0);
            for socket in [Some(&pair.v4), pair.v6.as_ref()].into_iter().flatten() {
                assert_eq!(getsockopt(socket, sockopt::Mark).expect("mark"), mark);
                assert_eq!((socket.receives_trains, socket.sends_trains()), (trains, trains));
                assert_eq!(getsockopt(socket, sockopt::UdpGroSegment).expect("option"), trains);
            }
        }
    }

    #[tokio::test]
    async fn trains_are_stopped_once_and_outlive_a_move_to_another_loop() {
        let pair = pairs(0, 1).expect("any port").remove(0);
        let number = pair.v4.inner.get_ref().as_raw_fd();
        assert!(pair.v4.stop_trains() && !pair.v4.stop_trains());
        let pair = pair.rehome().expect("a loop");
        assert!(!pair.v4.sends_trains() && pair.v4.inner.get_ref().as_raw_fd() == number);
    }

    #[tokio::test]
    async fn the_kernels_sum_of_drops_may_wrap_and_does_not_go_back() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound");
        let totals = [0, 5, 5, 3, u32::MAX / 2 + 5, u32::MAX, 1];
        let more = totals.map(|total| socket.queue_drops(total));
        assert_eq!(more, [0, 5, 0, 0, u32::MAX / 2, u32::MAX / 2 - 4, 2]);
    }
}
