//! Many messages per system call: `recvmmsg` into one slab, `sendmmsg` out of it. This is the only file here
//! with `unsafe`; it decides nothing.

#![expect(unsafe_code, reason = "two system calls that take arrays of pointers, and a socket's registration")]

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::cmsg::{CONTROL_BYTES, ControlBuffer, Notes, Wishes};
use super::name::{NAME_BYTES, Name};

/// Messages per receive call at most.
pub const MOST_SLOTS: usize = 64;

/// Memory for the messages of one receive call.
#[derive(Debug)]
pub struct Slab {
    bytes: Box<[u8]>,
    names: Box<[Name]>,
    controls: Box<[ControlBuffer]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    arrivals: Vec<Arrival>,
}

/// A received message: one datagram, or a train of them.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Where the message lies in the slab.
    pub at: usize,
    /// Bytes, as many of them as the slot holds.
    pub len: usize,
    /// The sender's address.
    pub from: SocketAddr,
    /// What the kernel says of it.
    pub notes: Notes,
    /// Whether the message was longer than its slot, or its notes longer than their buffer.
    pub truncated: bool,
}

// SAFETY: the pointers in `vectors` and `headers` are written and used within one call of `recv`; between
// calls they are only numbers.
unsafe impl Send for Slab {}

impl Slab {
    /// Makes a slab with room for `slots` slots of `slot_bytes`. The system gives memory to those that have
    /// been used.
    pub fn new(slots: usize, slot_bytes: usize) -> Self {
        Self {
            bytes: vec![0; slots * slot_bytes].into(),
            names: vec![Name::EMPTY; MOST_SLOTS].into(),
            controls: vec![ControlBuffer::default(); MOST_SLOTS].into(),
            vectors: vec![EMPTY_VECTOR; MOST_SLOTS].into(),
            headers: vec![EMPTY_HEADER; MOST_SLOTS].into(),
            arrivals: Vec::with_capacity(MOST_SLOTS),
        }
    }

    /// Receives the messages that are there, without waiting: at most `slots`, at most [`MOST_SLOTS`], and at
    /// most what fits into the slab in slots of `slot_bytes`. Returns their number.
    ///
    /// # Errors
    /// The system's error; `WouldBlock` if there is no message.
    pub fn recv(&mut self, socket: BorrowedFd<'_>, slot_bytes: usize, slots: usize) -> io::Result<usize> {
        self.arrivals.clear();
        let places = self.bytes.chunks_exact_mut(slot_bytes).zip(&mut self.names).zip(&mut self.controls);
        let mut offered = 0;
        for (((slot, name), control), (vector, header)) in
            places.zip(self.vectors.iter_mut().zip(&mut self.headers)).take(slots)
        {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot_bytes };
            *header = EMPTY_HEADER;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = NAME_BYTES as libc::socklen_t;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES;
            offered += 1;
        }
        // SAFETY: the first `offered` headers have just been filled. Every pointer in them is to memory of
        // `self`, which is borrowed mutably, with its length beside it: a slot of the slab, a name, a control
        // buffer and a vector, each used by one header only.
        let count = unsafe {
            let (headers, flags) = (self.headers.as_mut_ptr(), libc::MSG_DONTWAIT);
            libc::recvmmsg(socket.as_raw_fd(), headers, offered as u32, flags, ptr::null_mut())
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (index, header) in self.headers[..count].iter().enumerate() {
            let control = &self.controls[index].0[..header.msg_hdr.msg_controllen.min(CONTROL_BYTES)];
            // A name that is not IP's cannot come from a UDP socket.
            let Some(from) = self.names[index].decode() else { continue };
            self.arrivals.push(Arrival {
                at: index * slot_bytes,
                len: (header.msg_len as usize).min(slot_bytes),
                from,
                notes: Notes::read(control),
                truncated: header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
            });
        }
        Ok(count)
    }

    /// The messages of the last [`Slab::recv`].
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// `len` bytes of the slab from `at` on.
    pub fn bytes(&self, at: usize, len: usize) -> &[u8] {
        &self.bytes[at..at + len]
    }
}

/// Memory for the headers of messages that are sent, which is used again and again.
#[derive(Debug, Default)]
pub struct Headers {
    names: Vec<Name>,
    controls: Vec<ControlBuffer>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in `vectors` and `headers` are written and used while a `Loading` or `Loaded` borrows
// this; otherwise they are only numbers.
unsafe impl Send for Headers {}

/// Messages that are being put together.
#[derive(Debug)]
pub struct Loading<'a> {
    memory: &'a mut Headers,
    payload: PhantomData<&'a [u8]>,
}

/// Messages that are ready to be sent, each byte from its place in memory.
#[derive(Debug)]
pub struct Loaded<'a> {
    memory: &'a mut Headers,
    payload: PhantomData<&'a [u8]>,
}

impl Headers {
    /// Begins with no messages.
    pub fn load<'a>(&'a mut self) -> Loading<'a> {
        self.vectors.clear();
        self.headers.clear();
        Loading { memory: self, payload: PhantomData }
    }
}

impl<'a> Loading<'a> {
    /// Adds a message that consists of `parts`, in this order.
    pub fn push(&mut self, to: SocketAddr, wishes: &Wishes, parts: impl Iterator<Item = &'a [u8]>) {
        let memory = &mut *self.memory;
        let index = memory.headers.len();
        if memory.names.len() <= index {
            memory.names.push(Name::EMPTY);
            memory.controls.push(ControlBuffer::default());
        }
        let first = memory.vectors.len();
        // sendmmsg only reads the payload, although its vector is declared mutable.
        memory.vectors.extend(
            parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() }),
        );
        let mut header = EMPTY_HEADER;
        header.msg_hdr.msg_iovlen = memory.vectors.len() - first;
        header.msg_hdr.msg_namelen = memory.names[index].encode(to);
        header.msg_hdr.msg_controllen = memory.controls[index].write(to, wishes);
        memory.headers.push(header);
    }

    /// Ends the loading: from now on nothing moves in memory.
    pub fn done(self) -> Loaded<'a> {
        let memory = self.memory;
        let mut vectors = memory.vectors.as_mut_slice();
        let places = memory.names.iter_mut().zip(&mut memory.controls);
        for (header, (name, control)) in memory.headers.iter_mut().zip(places) {
            let (mine, rest) = vectors.split_at_mut(header.msg_hdr.msg_iovlen);
            vectors = rest;
            header.msg_hdr.msg_iov = mine.as_mut_ptr();
            header.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
            if header.msg_hdr.msg_controllen > 0 {
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            }
        }
        Loaded { memory, payload: PhantomData }
    }
}

impl Loaded<'_> {
    /// Sends these messages without waiting, and returns how many of them the kernel took.
    ///
    /// # Errors
    /// The kernel's error with the first of them.
    pub fn send(&mut self, socket: BorrowedFd<'_>, messages: Range<usize>) -> io::Result<usize> {
        let headers = &mut self.memory.headers[messages];
        // SAFETY: every pointer in `headers` was written by `done` and is to memory that outlives the call,
        // with its length beside it: names, controls and vectors of `self.memory`, which has been borrowed
        // mutably since then, and payloads that are borrowed for as long as `self` lives.
        let count = unsafe {
            let (first, count) = (headers.as_mut_ptr(), headers.len() as u32);
            libc::sendmmsg(socket.as_raw_fd(), first, count, libc::MSG_DONTWAIT)
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

/// Registers the socket with the calling thread's event loop for reading alone. Whoever also waits for room
/// is woken by the kernel after each packet that leaves.
///
/// # Errors
/// The system's error.
pub fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a socket owns its descriptor, and the descriptor stays the same and open for as long as the
    // socket lives, which the result owns.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(io::Error::from)
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

    fn loaded<'a>(headers: &'a mut Headers, to: SocketAddr, messages: &[Vec<&'a str>]) -> Loaded<'a> {
        let mut loading = headers.load();
        for parts in messages {
            loading.push(to, &Wishes::default(), parts.iter().map(|part| part.as_bytes()));
        }
        loading.done()
    }

    #[test]
    fn messages_arrive_as_they_were_sent_with_their_parts_behind_each_other() {
        let a = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let b = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let mut headers = Headers::default();
        let to = b.local_addr().expect("address");
        // Twice, because the memory of the first time is used again.
        for messages in [vec![vec!["a", "bc", ""], vec![], vec!["def"]], vec![vec!["gh"]]] {
            let mut loaded = loaded(&mut headers, to, &messages);
            assert_eq!(loaded.send(a.as_fd(), 0..messages.len()).expect("sent"), messages.len());
            let mut slab = Slab::new(MOST_SLOTS, 100);
            assert_eq!(slab.recv(b.as_fd(), 100, MOST_SLOTS).expect("there"), messages.len());
            let arrivals = slab.arrivals();
            assert!(arrivals.iter().all(|one| Some(one.from) == a.local_addr().ok() && !one.truncated));
            let got: Vec<_> = arrivals.iter().map(|one| slab.bytes(one.at, one.len)).collect();
            let sent: Vec<_> = messages.iter().map(|parts| parts.concat().into_bytes()).collect();
            assert_eq!(got, sent);
        }
    }

    #[test]
    fn a_refused_message_is_the_first_of_those_not_sent() {
        let a = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let to = a.local_addr().expect("address");
        let mut headers = Headers::default();
        let mut loading = headers.load();
        for to in [to, "[::1]:9".parse().expect("address"), to] {
            loading.push(to, &Wishes::default(), std::iter::once(b"x".as_slice()));
        }
        let mut loaded = loading.done();
        assert_eq!(loaded.send(a.as_fd(), 0..3).expect("one"), 1);
        let error = loaded.send(a.as_fd(), 1..3).expect_err("IPv6 on an IPv4 socket");
        assert_eq!(error.raw_os_error(), Some(libc::EAFNOSUPPORT));
        assert_eq!(loaded.send(a.as_fd(), 2..3).expect("one"), 1);
    }

    #[test]
    fn no_more_is_received_than_there_are_slots_and_what_is_longer_is_reported_as_cut() {
        let a = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let to = a.local_addr().expect("address");
        for _ in 0..4 {
            a.send_to(&[7; 101], to).expect("sent");
        }
        let mut slab = Slab::new(3, 100);
        assert_eq!(slab.recv(a.as_fd(), 100, 1).expect("there"), 1, "asked for");
        assert_eq!(slab.recv(a.as_fd(), 100, 9).expect("there"), 3, "in the slab");
        assert!(slab.arrivals().iter().all(|one| one.truncated && one.len == 100));
        let error = slab.recv(a.as_fd(), 100, 9).expect_err("no more");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(slab.arrivals().is_empty());
    }
}
