//! The UDP services in userspace: the relay's slow path, which is always correct, and STUN.
//!
//! ```text
//! socket -> batch (recvmmsg) -> relay: decide -> batch (sendmmsg), payload where it was received
//! ```

pub mod batch;
pub mod cmsg;
pub mod discovery;
pub mod endpoints;
mod name;
pub mod reflexive;
pub mod relay;
pub mod service;
pub mod setback;
pub mod socket;
pub mod stun;
