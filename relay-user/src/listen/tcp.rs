//! Listening sockets and the options of accepted ones.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::cli::keepalive::Keepalive;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// What Go sets besides the idle time: probes 15 s apart, nine of them.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 9;

/// derper's socket flags.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `-tcp-keepalive-time`: idle time before the first probe.
    pub keepalive_time: Keepalive,
    /// `-tcp-user-timeout`: how long sent data may stay unacknowledged; zero: the system's default.
    pub user_timeout: Duration,
}

/// Listens on `addr`; accepted sockets inherit the options. The unspecified IPv6 address takes IPv4 as well.
///
/// # Errors
/// The system's, of the call that failed.
pub fn listen(addr: SocketAddr, options: &Options) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(addr.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
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
    if !options.user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
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
