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
//! The client table is the authority; packets read its mirrors and never take its lock. The modules below are
//! in the order of their floors: each uses only what is on a lower one, which `cargo xtask lint` checks.
//! `docs/architecture.md` has the laws, and says where to change what.

#![deny(unsafe_code)]

/// Putting a daemon together from its command line, and taking it down.
pub mod app;

/// What operators ask a running daemon, by a Unix socket.
pub mod admin;
/// What is done from time to time, beside the packets.
pub mod upkeep;

/// From an accepted socket to a login: TCP, HTTP, pages.
pub mod listen;

/// A client's connection, from login to goodbye.
pub mod conn;
/// The UDP relay and STUN over sockets.
pub mod udp;

/// What all connections and sockets share.
pub mod relay;

/// The XDP program: loading, attaching, maps, and who is asked for next hops.
pub mod fastpath;
/// Byte streams under connections: plain TCP, TLS, and what the socket has not taken yet.
pub mod transport;

/// Where a packet goes: the client table and its mirrors.
pub mod route;

/// What waits to be written to one client.
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
/// Files that one process at a time may hold.
pub mod lockfile;
/// Files that are there whole or not at all.
pub mod newfile;
/// Whether another thread is to be had.
pub mod threads;
