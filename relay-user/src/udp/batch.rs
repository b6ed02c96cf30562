//! Many datagrams per system call: `recvmmsg` into one slab, `sendmmsg` out of it. This is the only file here
//! with `unsafe`.

#![expect(unsafe_code, reason = "two system calls that take arrays of pointers")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::cmsg::{CONTROL_BYTES, ControlBuffer};
use super::name::{NAME_BYTES, Name};

/// Datagrams per system call.
pub const BATCH: usize = 64;

/// Bytes of a receive slot, as upstream's without GRO. A longer datagram is cut and reported as cut.
pub const SLOT_BYTES: usize = 16_383;

/// Memory for one batch of received datagrams.
#[derive(Debug)]
pub struct ReceivedBatch {
    slab: Box<[u8]>,
    names: Box<[Name]>,
    controls: Box<[ControlBuffer]>,
    lens: Vec<Len>,
}

#[derive(Clone, Copy, Debug)]
struct Len {
    payload: usize,
    control: usize,
    truncated: bool,
}

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedDatagram<'a> {
    /// The UDP payload, as much of it as the slot holds.
    pub payload: &'a [u8],
    /// The sender's address.
    pub from: SocketAddr,
    /// The address of this host that the datagram was sent to, if the socket reports it.
    pub local_ip: Option<IpAddr>,
    /// Whether the datagram was longer than its slot.
    pub truncated: bool,
}

/// One datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The UDP payload.
    pub payload: &'a [u8],
    /// The receiver's address.
    pub to: SocketAddr,
    /// The address of this host that the datagram leaves from.
    pub from: Option<IpAddr>,
}

/// The result of sending a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams that the kernel took.
    pub sent: usize,
    /// Datagrams that it refused: no room in the socket, no route, no permission.
    pub failed: usize,
}

impl Default for ReceivedBatch {
    fn default() -> Self {
        Self {
            slab: vec![0; BATCH * SLOT_BYTES].into(),
            names: vec![Name::EMPTY; BATCH].into(),
            controls: vec![ControlBuffer::default(); BATCH].into(),
            lens: Vec::with_capacity(BATCH),
        }
    }
}

impl ReceivedBatch {
    /// Receives the datagrams that are there, at most [`BATCH`], without waiting; returns their number.
    ///
    /// # Errors
    /// The system's error; `WouldBlock` if there are no datagrams.
    pub fn recv(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.lens.clear();
        let mut vectors = [EMPTY_VECTOR; BATCH];
        let mut headers = [EMPTY_HEADER; BATCH];
        let slots = self.slab.chunks_exact_mut(SLOT_BYTES).zip(&mut self.names).zip(&mut self.controls);
        for (((slot, name), control), (vector, header)) in slots.zip(vectors.iter_mut().zip(&mut headers)) {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT_BYTES };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = NAME_BYTES as libc::socklen_t;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES;
        }
        // SAFETY: every pointer in `headers` is to memory that outlives the call, with its length beside it:
        // a slot, a name and a control buffer of `self`, which is borrowed mutably, and a vector on this
        // stack.
        let count = unsafe {
            let flags = libc::MSG_DONTWAIT;
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), BATCH as u32, flags, ptr::null_mut())
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.lens.extend(headers[..count].iter().map(|header| Len {
            payload: (header.msg_len as usize).min(SLOT_BYTES),
            control: header.msg_hdr.msg_controllen.min(CONTROL_BYTES),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }));
        Ok(count)
    }

    /// The datagrams of the last [`ReceivedBatch::recv`].
    pub fn iter(&self) -> impl Iterator<Item = ReceivedDatagram<'_>> {
        self.lens.iter().enumerate().filter_map(|(index, len)| {
            let slot = &self.slab[index * SLOT_BYTES..][..len.payload];
            Some(ReceivedDatagram {
                payload: slot,
                from: self.names[index].decode()?,
                local_ip: self.controls[index].local_ip(len.control),
                truncated: len.truncated,
            })
        })
    }
}

/// Sends all of `batch`, each payload from its place in memory. If the kernel refuses a datagram, the others
/// are still sent.
pub fn send(socket: BorrowedFd<'_>, batch: &[Outgoing<'_>]) -> Sent {
    batch.chunks(BATCH).map(|chunk| send_chunk(socket, chunk)).fold(Sent::default(), |sum, sent| Sent {
        sent: sum.sent + sent.sent,
        failed: sum.failed + sent.failed,
    })
}

fn send_chunk(socket: BorrowedFd<'_>, chunk: &[Outgoing<'_>]) -> Sent {
    let mut names = [Name::EMPTY; BATCH];
    let mut controls = [ControlBuffer::default(); BATCH];
    let mut vectors = [EMPTY_VECTOR; BATCH];
    let mut headers = [EMPTY_HEADER; BATCH];
    let slots = names.iter_mut().zip(&mut controls).zip(vectors.iter_mut().zip(&mut headers));
    for (out, ((name, control), (vector, header))) in chunk.iter().zip(slots) {
        // sendmmsg only reads the payload, although its vector is declared mutable.
        *vector =
            libc::iovec { iov_base: out.payload.as_ptr().cast_mut().cast(), iov_len: out.payload.len() };
        let used = out.from.map_or(0, |ip| control.set_source(ip));
        let namelen = name.encode(out.to);
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = namelen;
        header.msg_hdr.msg_control = if used == 0 { ptr::null_mut() } else { control.0.as_mut_ptr().cast() };
        header.msg_hdr.msg_controllen = used;
    }
    let mut total = Sent::default();
    let mut rest = &mut headers[..chunk.len().min(BATCH)];
    while !rest.is_empty() {
        // SAFETY: every pointer in `rest` is to memory that outlives the call, with its length beside it:
        // names, controls and vectors on this stack, and payloads that `chunk` borrows.
        let count = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, libc::MSG_DONTWAIT)
        };
        // An error belongs to the first datagram. A result of none sent without an error would mean no
        // progress, so it counts as an error too.
        let (sent, failed) = match usize::try_from(count) {
            Ok(sent) if sent > 0 => (sent, 0),
            _ => (0, 1),
        };
        total.sent += sent;
        total.failed += failed;
        rest = &mut rest[sent + failed..];
    }
    total
}

const EMPTY_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

const EMPTY_HEADER: libc::mmsghdr = libc::mmsghdr {
    // SAFETY: a message header is plain pointers and integers, for which zero is a value: "nothing".
    msg_hdr: unsafe { std::mem::zeroed() },
    msg_len: 0,
};

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_batch_arrives_as_it_was_sent_and_a_refused_datagram_costs_no_other() {
        let a = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let b = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let to = b.local_addr().expect("address");
        let payloads: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; usize::from(n)]).collect();
        let mut batch: Vec<_> = payloads.iter().map(|payload| Outgoing { payload, to, from: None }).collect();
        // An IPv6 destination on an IPv4 socket.
        let stray = Outgoing { payload: b"x", to: "[::1]:9".parse().expect("address"), from: None };
        batch.insert(10, stray);
        assert_eq!(send(a.as_fd(), &batch), Sent { sent: 100, failed: 1 });

        let mut received = ReceivedBatch::default();
        let mut got = Vec::new();
        while got.len() < payloads.len() {
            received.recv(b.as_fd()).expect("loopback has delivered");
            got.extend(received.iter().map(|datagram| {
                assert_eq!(Some(datagram.from), a.local_addr().ok());
                datagram.payload.to_vec()
            }));
        }
        assert_eq!(got, payloads);
    }

    #[test]
    fn a_datagram_longer_than_its_slot_is_reported_as_cut() {
        let a = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let to = a.local_addr().expect("address");
        let long = vec![7; SLOT_BYTES + 1];
        assert_eq!(
            send(a.as_fd(), &[Outgoing { payload: &long, to, from: None }]),
            Sent { sent: 1, failed: 0 }
        );
        let mut received = ReceivedBatch::default();
        assert_eq!(received.recv(a.as_fd()).expect("delivered"), 1);
        assert!(received.iter().all(|datagram| datagram.truncated && datagram.payload.len() == SLOT_BYTES));
    }
}
