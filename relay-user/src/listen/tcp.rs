//! Listening sockets and the options of accepted ones.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{TcpKeepalive, Type};
use tokio::net::TcpStream;

use crate::cli::keepalive::Keepalive;
use crate::host::wildcard;
use crate::transport::NOT_SENT_BYTES;
use crate::workers::here;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Go sets these besides the idle time: probes 15 s apart, nine of them.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 9;

/// derper's socket flags.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// `-tcp-keepalive-time`: idle time before the first probe.
    pub keepalive_time: Keepalive,
    /// `-tcp-user-timeout`: how long sent data may stay unacknowledged; zero: the system's default.
    pub user_timeout: Duration,
}

/// Listens on `addr`, as [`wildcard::open`] opens it. Accepted sockets inherit the options. The socket is
/// non-blocking.
///
/// # Errors
/// The error of the system call that failed.
pub fn listen(addr: SocketAddr, options: &SocketOptions) -> io::Result<TcpListener> {
    let socket = wildcard::open(addr, Type::STREAM, |socket| {
        socket.set_reuse_address(true)?;
        match options.keepalive_time {
            Keepalive::Off => socket.set_keepalive(false)?,
            Keepalive::System => socket.set_keepalive(true)?,
            Keepalive::After(idle) => {
                let keepalive = TcpKeepalive::new()
                    .with_time(idle)
                    .with_interval(KEEPALIVE_INTERVAL)
                    .with_retries(KEEPALIVE_RETRIES);
                socket.set_tcp_keepalive(&keepalive)?;
            }
        }
        socket.set_tcp_notsent_lowat(NOT_SENT_BYTES)?;
        if !options.user_timeout.is_zero() {
            socket.set_tcp_user_timeout(Some(options.user_timeout))?;
        }
        Ok(())
    })?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets the options that an accepted socket does not inherit, and moves it from the event loop of
/// `accepted_on` into that of the calling worker.
///
/// # Errors
/// The system's error.
pub fn take_over(tcp: TcpStream, accepted_on: Option<usize>) -> io::Result<TcpStream> {
    tcp.set_nodelay(true)?;
    if accepted_on == here() { Ok(tcp) } else { TcpStream::from_std(tcp.into_std()?) }
}
