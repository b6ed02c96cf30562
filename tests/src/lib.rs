//! Harness of the lab tests.
#![forbid(unsafe_code)]

pub mod fastpath;
mod skip;
pub mod wire;

pub use skip::skip;
