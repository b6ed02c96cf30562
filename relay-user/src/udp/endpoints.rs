//! The addresses that an allocation advertises.

use std::net::SocketAddr;

use crate::host::addresses;

/// The addresses at which the UDP relay can be reached.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// `--relay-server-static-endpoints`, in the order given.
    pub fixed: Vec<SocketAddr>,
    /// The bound port.
    pub port: u16,
}

impl Endpoints {
    /// The static endpoints; if there are none, the host's present unicast addresses.
    pub fn current(&self) -> Vec<SocketAddr> {
        if self.fixed.is_empty() { addresses::unicast(self.port) } else { self.fixed.clone() }
    }
}
