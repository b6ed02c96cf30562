//! The shared base of relayd: keys, frames, packets, and the rules that the kernel and the daemon share.
//!
//! Rules of this crate: no clock, no socket, no `unsafe`; no allocation without the `std` feature. Both the
//! XDP program and the daemon are built from it, so a packet means the same on both paths.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "std")]
mod addr;
#[cfg(feature = "std")]
pub mod challenge;
pub mod derp;
pub mod disco;
#[cfg(feature = "std")]
pub mod endpoint;
pub mod fastpath;
pub mod forward;
pub mod geneve;
#[cfg(feature = "std")]
pub mod go_duration;
pub mod key;
pub mod net;
pub mod stun;
