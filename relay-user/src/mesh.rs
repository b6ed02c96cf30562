//! Links to the other relays of the region: one connection to each, as a client of it with the server's own
//! key.
//!
//! ```text
//!   service ── region: names, addresses, one link per server key ── target: when to dial, probe, give up
//!      │  dial: TCP, TLS, upgrade, the other server's key
//!      └─► task: claims ◄── incoming ◄── the other relay ◄── outgoing ◄── the link's mailbox ◄── packets
//! ```
//! Each pair of relays has two links, one dialled by each: over ours go our clients' packets for the other
//! relay's clients, and back come the news of which clients it has.

pub mod dial;
pub mod incoming;
pub mod region;
pub mod service;
#[cfg(test)]
mod simulation;
pub mod target;
pub mod task;
