//! The socket on which the kernel reports changes of its routing.

use std::{fmt, io};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

use super::changes::{self, Change};

/// Bytes of reports that may wait: a routing daemon writes thousands of routes at a time.
const BUFFER: usize = 8 << 20;

/// Reports read before anything else gets a turn.
const BATCH: usize = 256;

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// What was read.
#[derive(Debug)]
pub enum Reported {
    /// These changes.
    Changes(Vec<Change>),
    /// The kernel has dropped reports.
    Lost,
}

/// The socket, in an event loop.
pub struct Reports {
    socket: TokioSocket,
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports").finish_non_exhaustive()
    }
}

impl Reports {
    /// Opens the socket in the calling thread's network namespace; no change after the call is missed. To be
    /// called in an event loop.
    ///
    /// # Errors
    /// The system's error.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            socket.socket_mut().add_membership(group as u32)?;
        }
        // More than the system's limit needs a right that the fast path has; without it, reports that are
        // lost only mean to ask again.
        if setsockopt(socket.socket_ref(), sockopt::RcvBufForce, &BUFFER).is_err() {
            let _ = setsockopt(socket.socket_ref(), sockopt::RcvBuf, &BUFFER);
        }
        Ok(Self { socket })
    }

    /// Waits for reports and reads a batch of them.
    ///
    /// # Errors
    /// The system's error; the socket can no longer be used.
    pub async fn next(&mut self) -> io::Result<Reported> {
        let mut found = Vec::new();
        for nth in 0..BATCH {
            let read = match nth {
                0 => self.socket.recv_from_full().await,
                _ => self.socket.socket_ref().recv_from_full(),
            };
            match read {
                Ok((bytes, _)) => changes::read(&bytes, &mut found),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    return Ok(Reported::Lost);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Reported::Changes(found))
    }
}
