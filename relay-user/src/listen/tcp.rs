//! Listening sockets and the options of accepted ones.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use super::wildcard;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// What Go sets besides the idle time: probes 15 s apart, nine of them.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 9;

/// derper's socket flags.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `--tcp-keepalive-time`: idle time before the first probe.
    pub keepalive_time: Duration,
    /// `--tcp-user-timeout`: how long sent data may stay unacknowledged; zero: the system's default.
    pub user_timeout: Duration,
}

/// Listens on `addr`, as [`wildcard::open`] opens it; accepted sockets inherit the options.
///
/// # Errors
/// The system's, of the call that failed.
pub fn listen(addr: SocketAddr, options: &Options) -> io::Result<TcpListener> {
    let keepalive = TcpKeepalive::new()
        .with_time(options.keepalive_time)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    let socket = wildcard::open(addr, Type::STREAM, |socket| {
        socket.set_reuse_address(true)?;
        socket.set_tcp_keepalive(&keepalive)?;
        if !options.user_timeout.is_zero() {
            socket.set_tcp_user_timeout(Some(options.user_timeout))?;
        }
        Ok(())
    })?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Sets what an accepted socket does not inherit.
///
/// # Errors
/// The system's.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    SockRef::from(tcp).set_tcp_nodelay(true)
}

/// An IPv4 client of a dual-stack socket, as the IPv4 address it is.
pub fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
