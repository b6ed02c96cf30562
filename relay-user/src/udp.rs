//! The UDP services in userspace: the relay's slow path, which is always correct, and STUN.
//!
//! ```text
//! socket -> batch (recvmmsg) -> runs -> data, relay: decide -> gather -> deliver -> batch (sendmmsg)
//! ```
//! The payload stays where it was received.

pub mod batch;
pub mod cmsg;
mod data;
pub mod deliver;
pub mod endpoints;
mod exchange;
pub mod gather;
mod name;
mod no_trains;
pub mod relay;
pub mod runs;
mod sender;
pub mod service;
pub mod setback;
pub mod socket;
pub mod stun;
