//! Signals that routing has changed. The messages are not read further, for two reasons: the reaction is
//! always to ask again, and the kernel drops messages when many come at once, which counts as a change too.

use std::{io, time::Duration};

use nix::errno::Errno;
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::{sync::mpsc, time::sleep};

/// A change that follows another within this time gives the same signal: routing daemons write thousands at a
/// time.
const QUIET: Duration = Duration::from_millis(50);

/// Messages discarded at a time before the runtime runs other tasks.
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
    // The messages are cut short: their content is not used, and the kernel drops the rest.
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
        // A signal that has not been received yet covers this change too.
        let _ = sender.try_send(());
        sleep(QUIET).await;
    }
}

/// The read was interrupted, or messages were lost, which counts as a change.
fn harmless(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}
