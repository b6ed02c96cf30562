//! The relay daemon as a library.
//!
//! ```text
//!              kernel                                   userspace
//!  NIC -> relay-ebpf: parse -> classify -+- bound -> rewrite headers -> XDP_TX
//!                                        +- other -> XDP_PASS -+
//!                                                              v
//!    listen/ ------> conn/login -----> conn/reader -> route/ ---------> mailbox/ -> conn -> transport/
//!    tcp, http         handshake        deframe       key -> way out     bounded     seal, write
//!       |                                   |            |  ^
//!       +- udp/  (slow path: STUN, bind, data) ----------+
//!                        control only:  table -> mirrors:  route/ (in-process map)  and  fastpath/ (BPF map)
//! ```
//! The client table is the authority; packets read its mirrors and do not wait for its lock. The modules
//! below are ordered by layer: each module uses only modules of lower layers, which `cargo xtask lint`
//! checks.
//! `docs/architecture.md` has the laws, and says where to make which change.

#![deny(unsafe_code)]

/// Builds a daemon from its command line, runs it, and stops it.
pub mod app;

/// Answers operators' questions about a running daemon, over a Unix socket.
pub mod admin;
/// Repeated work besides the packets.
pub mod upkeep;

/// From an accepted socket to a login: TCP, HTTP, pages.
pub mod listen;

/// A client's connection, from login to goodbye.
pub mod conn;
/// Links to the other relays of the region.
pub mod mesh;
/// The UDP relay and STUN over sockets.
pub mod udp;

/// The state that all connections and sockets share.
pub mod relay;

/// The XDP program: loading, attaching, maps, and the look-up of next hops.
pub mod fastpath;
/// Byte streams under connections: plain TCP, TLS, and the bytes that the socket has not taken yet.
pub mod transport;

/// Who may use the relay.
pub mod access;
/// Finds where a packet goes: the client table and its mirrors.
pub mod route;

/// The frames that wait to be written to one client.
pub mod mailbox;

/// The threads on which packets are relayed.
pub mod workers;

/// The command line.
pub mod cli;
/// The server key's file.
pub mod keyfile;
/// The log on standard error.
pub mod log;
/// Counters.
pub mod observe;

/// Time since some point in the past, as numbers.
pub mod clock;
mod columns;
/// The limit of open files.
pub mod files;
/// This host's addresses, and sockets on all of them.
pub mod host;
/// Files that only one process at a time can hold.
pub mod lockfile;
/// Files that are written whole or not at all.
pub mod newfile;
/// Checks whether the system can start another thread.
pub mod threads;
