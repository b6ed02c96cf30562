//! Harness of the demo and of the tests that need more than one crate: real processes, judges that are not
//! written in Rust, the loaded XDP program, network namespaces to run it in, clients, and a daemon per test.
#![forbid(unsafe_code)]
#![expect(clippy::missing_errors_doc, reason = "what fails in the harness fails the test, with its context")]

pub mod admin;
mod authority;
pub mod bare;
#[cfg(feature = "bench")]
pub mod bench;
pub mod bpf;
pub mod client;
pub mod daemon;
pub mod demo;
pub mod fastpath;
mod flags;
pub mod interop;
pub mod lab;
pub mod neighbours;
pub mod oracle;
pub mod packet;
pub mod pair;
pub mod process;
pub mod program_cost;
pub mod raw;
pub mod rebind;
pub mod region;
mod skip;
pub mod stock;
pub mod topology;
pub mod udp_client;
pub mod wire;

pub use skip::skip;
