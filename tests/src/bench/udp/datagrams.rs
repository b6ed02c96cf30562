//! What the load's sockets send and receive: one train of segments in one call (UDP_SEGMENT, UDP_GRO), or
//! many datagrams in one call.

use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg, recvmsg, sendmmsg, sendmsg,
};

/// Segments of a train at most: the kernel's limit.
pub(super) const MOST_SEGMENTS: usize = 64;
/// Bytes of a train at most: an IPv4 datagram's.
const MOST_BYTES: usize = 65_507;
/// Datagrams of one call.
const BATCH: usize = 64;
/// Bytes for a datagram of its own.
const SLOT: usize = 2048;

/// The longest train of datagrams of this size, as clients send it.
pub(super) fn longest_train(datagram: usize) -> usize {
    (MOST_BYTES / datagram).min(MOST_SEGMENTS)
}

/// Sends `train`, which is whole datagrams of `size` bytes. Returns false if the socket has no room, or the
/// host no route; then the whole train counts as lost.
pub(super) fn send_train(socket: &UdpSocket, train: &[u8], size: u16) -> nix::Result<bool> {
    let segments = ControlMessage::UdpGsoSegments(&size);
    let sent =
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(train)], &[segments], MsgFlags::MSG_DONTWAIT, None);
    went(sent.map(drop))
}

/// Sends the datagrams of `size` bytes in `all` one by one; returns how many the socket took.
pub(super) fn send_singles(socket: &UdpSocket, all: &[u8], size: usize) -> nix::Result<usize> {
    let mut count = 0;
    for part in all.chunks(size * BATCH) {
        let slices: Vec<[IoSlice<'_>; 1]> = part.chunks(size).map(|one| [IoSlice::new(one)]).collect();
        let mut headers = MultiHeaders::<()>::preallocate(slices.len(), None);
        let to = vec![None; slices.len()];
        let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, to, [], MsgFlags::MSG_DONTWAIT);
        let sent = sent.map(Iterator::count);
        let Ok(sent) = sent else {
            went(sent.map(drop))?;
            break;
        };
        count += sent;
    }
    Ok(count)
}

/// An error that loses packets is a loss; any other is an error.
fn went(sent: nix::Result<()>) -> nix::Result<bool> {
    match sent {
        Ok(()) => Ok(true),
        Err(
            Errno::EAGAIN | Errno::ENOBUFS | Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ECONNREFUSED,
        ) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Memory for what is received.
pub(super) struct Inbox {
    slab: Vec<u8>,
    control: Vec<u8>,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        Inbox { slab: vec![0; BATCH * SLOT], control: nix::cmsg_space!(i32) }
    }

    /// Receives what one call gives; `each` gets the datagrams. Returns the number of trains, or of datagrams
    /// that came alone; 0: nothing was there.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        trains: bool,
        each: impl FnMut(&[u8]),
    ) -> nix::Result<usize> {
        let received = if trains { self.train(socket, each) } else { self.singles(socket, each) };
        match received {
            Err(Errno::EAGAIN | Errno::ECONNREFUSED) => Ok(0),
            received => received,
        }
    }

    fn train(&mut self, socket: &UdpSocket, each: impl FnMut(&[u8])) -> nix::Result<usize> {
        let mut slices = [IoSliceMut::new(&mut self.slab)];
        let control = Some(&mut self.control[..]);
        let got = recvmsg::<()>(socket.as_raw_fd(), &mut slices, control, MsgFlags::MSG_DONTWAIT)?;
        let size = got.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
            _ => None,
        });
        let len = got.bytes;
        self.slab[..len].chunks(size.unwrap_or(len).max(1)).for_each(each);
        Ok(1)
    }

    fn singles(&mut self, socket: &UdpSocket, mut each: impl FnMut(&[u8])) -> nix::Result<usize> {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.slab.chunks_mut(SLOT).map(|slot| [IoSliceMut::new(slot)]).collect();
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        let flags = MsgFlags::MSG_DONTWAIT;
        let mut count = 0;
        for got in recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)? {
            count += 1;
            got.iovs().for_each(&mut each);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    #[test]
    fn a_train_has_at_most_64_segments_and_fits_into_a_datagram() {
        assert_eq!([100, 1308, 1320].map(longest_train), [64, 50, 49]);
    }

    #[test]
    fn trains_and_singles_arrive_as_datagrams() -> anyhow::Result<()> {
        let [a, b] = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
        a.connect(b.local_addr()?)?;
        setsockopt(&b, sockopt::UdpGroSegment, &true)?;
        let bytes: Vec<u8> = (0..250).collect();
        let mut inbox = Inbox::new();
        let mut got = Vec::new();
        assert!(send_train(&a, &bytes, 100)?);
        assert_eq!(inbox.receive(&b, true, |one| got.push(one.to_vec()))?, 1, "one train");
        assert_eq!(send_singles(&a, &bytes, 100)?, 3);
        while inbox.receive(&b, true, |one| got.push(one.to_vec()))? > 0 {}
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50, 100, 100, 50]);
        assert_eq!(got.concat(), [&bytes[..], &bytes].concat());
        assert_eq!(inbox.receive(&b, false, |_| ())?, 0);
        Ok(())
    }
}
