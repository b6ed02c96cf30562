//! Reads ICMP's "fragmentation needed" (RFC 792, RFC 1191), which lowers the path MTU of a destination. The
//! kernel takes it in for its own routes, but reports no change.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use relay_common::net::checksum;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

use crate::route::vocabulary::LegPath;

/// "Destination unreachable", and of its codes the one for packets that are too big.
const UNREACHABLE: u8 = 3;
const TOO_BIG: u8 = 4;

const UDP: u8 = 17;

/// Bytes of the longest message that is read: routers quote at most 576 bytes (RFC 1812), some a whole
/// packet.
const MOST: usize = 2048;

/// Messages read before anything else gets a turn.
const BATCH: usize = 64;

/// A filter of the socket: `Destination unreachable` with the code for packets that are too big, and nothing
/// else. Classic BPF (`linux/filter.h`); offsets count from the IPv4 header.
const ONLY_TOO_BIG: [SockFilter; 7] = {
    // x = length of the IPv4 header; load a byte behind x; if it is k, go on, else skip `or`; return k.
    const fn header_length() -> SockFilter {
        SockFilter::new(0xb1, 0, 0, 0)
    }
    const fn load(k: u32) -> SockFilter {
        SockFilter::new(0x50, 0, 0, k)
    }
    const fn is(k: u8, or: u8) -> SockFilter {
        SockFilter::new(0x15, 0, or, k as u32)
    }
    const fn done(bytes: u32) -> SockFilter {
        SockFilter::new(0x06, 0, 0, bytes)
    }
    [header_length(), load(0), is(UNREACHABLE, 3), load(1), is(TOO_BIG, 1), done(u32::MAX), done(0)]
};

/// A raw socket, in an event loop.
#[derive(Debug)]
pub struct Icmp {
    /// tokio has no raw sockets; to receive from one is the same as to receive from a socket of UDP.
    socket: UdpSocket,
    port: u16,
}

impl Icmp {
    /// Opens the socket in the calling thread's network namespace, for packets from UDP `port`. To be called
    /// in an event loop.
    ///
    /// # Errors
    /// The system's error: it takes CAP_NET_RAW.
    pub fn open(port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        // A raw socket gets every ICMP packet of the host. Where the kernel cannot filter, they are read.
        if let Err(error) = socket.attach_filter(&ONLY_TOO_BIG) {
            tracing::debug!(%error, "the kernel does not filter ICMP");
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, port })
    }

    /// Waits for messages; returns between which addresses packets from the port were too big. After a while
    /// it returns even if nothing was: others want a turn.
    ///
    /// # Errors
    /// The system's error; the socket can no longer be used.
    pub async fn next(&self) -> io::Result<Vec<LegPath>> {
        self.socket.readable().await?;
        let mut found = Vec::new();
        for _ in 0..BATCH {
            let mut buffer = [0; MOST];
            match self.socket.try_recv(&mut buffer) {
                Ok(length) => found.extend(read(&buffer[..length], self.port)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// Reads a packet of ICMP, with its IPv4 header, about a UDP packet from `port`. `None`: about anything else.
pub fn read(packet: &[u8], port: u16) -> Option<LegPath> {
    let icmp = payload(packet)?;
    // A raw socket gets what the kernel itself would not believe, too.
    if packet.len() == MOST || checksum::full(icmp) != 0 {
        return None;
    }
    let ([kind, code, ..], inner) = icmp.split_first_chunk::<8>()?;
    if (*kind, *code) != (UNREACHABLE, TOO_BIG) {
        return None;
    }
    let header = inner.first_chunk::<20>()?;
    let ports = payload(inner)?.first_chunk::<4>()?;
    if header[9] != UDP || ports[..2] != port.to_be_bytes() {
        return None;
    }
    let at = |ip: usize, port: usize| {
        let ip = Ipv4Addr::new(header[ip], header[ip + 1], header[ip + 2], header[ip + 3]);
        SocketAddr::from((ip, u16::from_be_bytes([ports[port], ports[port + 1]])))
    };
    Some(LegPath { local: at(12, 0), remote: at(16, 2) })
}

/// What follows an IPv4 header.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let first = packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || length < 20 { None } else { packet.get(length..) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], options: usize) -> Vec<u8> {
        let mut header = vec![0; 20 + options];
        header[0] = 0x45 + (options / 4) as u8;
        header[9] = protocol;
        header[12..16].copy_from_slice(&source);
        header[16..20].copy_from_slice(&destination);
        header
    }

    fn too_big(code: u8, port: u16, options: usize) -> Vec<u8> {
        let mut packet = ipv4(1, [192, 0, 2, 254], [192, 0, 2, 1], options);
        packet.extend([UNREACHABLE, code, 0, 0, 0, 0, 5, 0]);
        packet.extend(ipv4(UDP, [192, 0, 2, 1], [198, 51, 100, 7], options));
        packet.extend(port.to_be_bytes());
        packet.extend([0, 1, 0, 0, 0, 0]);
        let icmp = 20 + options;
        let sum = checksum::full(&packet[icmp..]).to_be_bytes();
        packet[icmp + 2..icmp + 4].copy_from_slice(&sum);
        packet
    }

    #[test]
    fn a_router_that_refused_a_packet_of_ours_names_its_two_ends() {
        let found = LegPath { local: ([192, 0, 2, 1], 7777).into(), remote: ([198, 51, 100, 7], 1).into() };
        for options in [0, 8, 40] {
            assert_eq!(
                read(&too_big(TOO_BIG, 7777, options), 7777),
                Some(found),
                "{options} bytes of options"
            );
        }
        assert_eq!(read(&too_big(TOO_BIG, 53, 0), 7777), None, "another port's packet");
        assert_eq!(read(&too_big(1, 7777, 0), 7777), None, "another message");
        let mut wrong = too_big(TOO_BIG, 7777, 0);
        wrong[30] ^= 1;
        assert_eq!(read(&wrong, 7777), None, "a wrong checksum");
    }

    #[test]
    fn a_message_that_is_cut_is_none() {
        let whole = too_big(TOO_BIG, 7777, 4);
        for length in 0..whole.len() - 4 {
            assert_eq!(read(&whole[..length], 7777), None, "{length} bytes");
        }
        let mut six = whole;
        six[0] = 0x65;
        assert_eq!(read(&six, 7777), None);
    }
}
