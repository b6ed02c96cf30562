//! The vocabulary of relayd: keys, frames, packets, and the rules that kernel and daemon share.
//!
//! Laws of this crate: no clock, no socket, no `unsafe`; no allocation without the `std` feature. The XDP
//! program and the daemon are both built from it, so that a packet means the same on both paths.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

pub mod fastpath;
