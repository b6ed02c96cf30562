//! A leg of a session: one of its two clients, and where it is bound.

use std::net::SocketAddr;

/// One of a session's two clients, by the order of their sorted disco keys: 0 or 1.
pub type LegIndex = usize;

/// The addresses between which a bound client's packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LegPath {
    /// The client's address and port.
    pub remote: SocketAddr,
    /// The relay's address and port that the client sends to and receives from.
    pub local: SocketAddr,
}
