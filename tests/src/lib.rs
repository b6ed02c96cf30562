//! Harness of the tests that need more than one crate: the loaded XDP program, and network namespaces to run
//! it in.
#![forbid(unsafe_code)]

pub mod bpf;
pub mod lab;
pub mod packet;
mod skip;

pub use skip::skip;
