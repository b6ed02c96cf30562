//! Harness of the lab tests and of the demo: test clients, a daemon of one's own, its admin socket.
#![forbid(unsafe_code)]

pub mod admin;
pub mod client;
pub mod daemon;
pub mod udp_client;
