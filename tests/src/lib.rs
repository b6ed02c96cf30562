//! Harness of the tests that need more than one crate: real processes, the loaded XDP program, network namespaces,
//! and judges that are not written in Rust. [`bench`] holds the same daemon against its rivals' speed.
#![forbid(unsafe_code)]

pub mod bench;
pub mod bpf;
pub mod interop;
pub mod lab;
pub mod packet;
mod skip;
pub mod wire;

pub use skip::skip;
