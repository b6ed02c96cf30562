//! Opens a listening socket as Go's net package does, so that `-a` means the same as in derper.
//!
//! An unspecified address of either family means "all addresses": one IPv6 socket that also takes IPv4, or an
//! IPv4 socket on a host without IPv6. Any other address gets a socket of its own family.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// Opens and binds a non-blocking socket of type `kind`. `prepare` sets the options needed before the bind.
///
/// # Errors
/// The error of the system call that failed.
pub fn open(addr: SocketAddr, kind: Type, prepare: impl Fn(&Socket) -> io::Result<()>) -> io::Result<Socket> {
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    if !addr.ip().is_unspecified() {
        return open_one(addr, kind, true, prepare);
    }
    match open_one((Ipv6Addr::UNSPECIFIED, addr.port()).into(), kind, false, &prepare) {
        Err(error) if is_without_ipv6(&error) => {
            tracing::info!(port = addr.port(), "no IPv6 on this host: listening on IPv4 only");
            open_one((Ipv4Addr::UNSPECIFIED, addr.port()).into(), kind, true, prepare)
        }
        opened => opened,
    }
}

fn open_one(
    addr: SocketAddr,
    kind: Type,
    one_family: bool,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(one_family)?;
    }
    prepare(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Whether the error means that the host has no IPv6: not built into the kernel, turned off at boot, or
/// turned off for all interfaces.
pub fn is_without_ipv6(error: &io::Error) -> bool {
    let codes = [libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn listen(addr: &str) -> io::Result<TcpListener> {
        let socket = open(addr.parse().expect("address"), Type::STREAM, |_| Ok(()))?;
        socket.set_nonblocking(false)?;
        socket.listen(8)?;
        Ok(socket.into())
    }

    #[test]
    fn every_way_to_write_all_addresses_takes_ipv4() {
        for addr in ["0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0"] {
            let listener = listen(addr).expect("bound");
            let port = listener.local_addr().expect("address").port();
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_or_else(|error| panic!("{addr}: {error}"));
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_that_it_is() {
        let listener = listen("[::ffff:127.0.0.1]:0").expect("bound");
        assert_eq!(listener.local_addr().expect("address").ip(), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn a_port_in_use_is_no_reason_to_go_without_ipv6() {
        let listener = listen("[::]:0").expect("bound");
        let port = listener.local_addr().expect("address").port();
        let error = listen(&format!("[::]:{port}")).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(!is_without_ipv6(&error));
    }

    #[test]
    fn an_error_of_the_preparation_is_passed_on() {
        let refused = |_: &Socket| Err(io::ErrorKind::PermissionDenied.into());
        let error = open("[::]:0".parse().expect("address"), Type::DGRAM, refused).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
