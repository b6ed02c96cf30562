//! Harness of the tests that need more than one crate: real processes, and judges that are not written in
//! Rust.
#![forbid(unsafe_code)]

pub mod interop;
mod skip;

pub use skip::skip;
