//! Whether the kernel merges the packets of an interface (GRO).
//!
//! In generic mode the program runs after that. A merged packet looks like one long datagram, and the program
//! would send it on as one.
#![expect(unsafe_code, reason = "an ioctl that nix does not have")]

use std::{io, os::fd::AsRawFd as _};

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_GGRO` of `linux/ethtool.h`.
const GET_GRO: u32 = 0x2b;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// A socket to ask by. It belongs to the network namespace of the thread that made it.
#[derive(Debug)]
pub(super) struct Offloads(Socket);

impl Offloads {
    /// Opens the socket.
    ///
    /// # Errors
    /// The system's answer.
    pub(super) fn new() -> io::Result<Self> {
        Socket::new(Domain::IPV4, Type::DGRAM, None).map(Self)
    }

    /// Whether the packets of the interface called `iface` are merged.
    ///
    /// # Errors
    /// There is no such interface, or it does not say.
    pub(super) fn merges(&self, iface: &str) -> io::Result<bool> {
        let mut value = EthtoolValue { cmd: GET_GRO, data: 0 };
        let name = iface.as_bytes();
        let mut ifr_name = [0; libc::IFNAMSIZ];
        if name.len() >= ifr_name.len() {
            return Err(Errno::ENODEV.into());
        }
        for (to, from) in ifr_name.iter_mut().zip(name) {
            *to = from.cast_signed();
        }
        let data = (&raw mut value).cast();
        let mut request =
            libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data } };
        // SAFETY: for this command the kernel reads the name, which ends with a zero, and reads and writes
        // the value that the request points to; both outlive the call.
        let answer = unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        Errno::result(answer)?;
        Ok(value.data != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_says_and_an_interface_that_is_not_there_does_not() {
        let offloads = Offloads::new().expect("a socket needs no rights");
        offloads.merges("lo").expect("the loopback answers");
        for iface in ["relayd-none", "a-name-longer-than-any-interface"] {
            let error = offloads.merges(iface).expect_err("no such interface");
            assert_eq!(error.raw_os_error(), Some(Errno::ENODEV as i32), "{iface}");
        }
    }
}
