//! Which addresses an allocation advertises.

use std::net::SocketAddr;

use crate::host::addresses;

/// Where the UDP relay can be reached.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// `--relay-server-static-endpoints`, in the order given.
    pub fixed: Vec<SocketAddr>,
    /// The bound port.
    pub port: u16,
}

impl Endpoints {
    /// The static endpoints; without any, the host's unicast addresses as they are now.
    pub fn current(&self) -> Vec<SocketAddr> {
        if self.fixed.is_empty() { addresses::unicast(self.port) } else { self.fixed.clone() }
    }
}
