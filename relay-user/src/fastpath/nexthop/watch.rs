//! "Something about routing changed", as one signal: what changed is not read, because the answer is the same
//! anyway (ask again), and because the kernel drops messages when many come at once, which is itself a change
//! to be told of.

use std::{io, time::Duration};

use nix::errno::Errno;
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::{sync::mpsc, time::sleep};

/// A change that follows another within this time is the same signal: routing daemons write thousands at a
/// time.
const QUIET: Duration = Duration::from_millis(50);

/// Messages thrown away at a time before the runtime gets its turn.
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

/// Opens the socket at once, so that no change after the call is missed, and reads it on the current runtime.
pub(super) fn start() -> io::Result<mpsc::Receiver<()>> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.socket_mut().add_membership(group as u32)?;
    }
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            error = read(&mut socket, &sender) => {
                tracing::error!(%error, "routing changes are no longer followed");
            }
        }
    });
    Ok(receiver)
}

/// Runs until the socket fails.
async fn read(socket: &mut TokioSocket, sender: &mpsc::Sender<()>) -> io::Error {
    // Cut short: nothing in a message is of interest, and the kernel drops the rest of it.
    let mut scratch = [0; 64];
    loop {
        if let Err(error) = socket.recv(&mut &mut scratch[..]).await
            && !harmless(&error)
        {
            return error;
        }
        for _ in 0..BATCH {
            match socket.socket_ref().recv(&mut &mut scratch[..], 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if harmless(&error) => {}
                Err(error) => return error,
            }
        }
        // A signal that has not been taken yet covers this change too.
        let _ = sender.try_send(());
        sleep(QUIET).await;
    }
}

/// Interrupted, or messages were lost, which is a change like any other.
fn harmless(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}
