//! The relay daemon as a library.
//!
//! ```text
//!              kernel                                   userspace
//!  NIC -> relay-ebpf: parse -> classify -+- bound -> rewrite headers -> XDP_TX
//!                                        +- other -> XDP_PASS -+
//!                                                              v
//!    listen/ ------> conn/login -----> conn/reader -> route/ ---------> conn/mailbox -> conn -> socket
//!    tcp,tls,http     handshake         deframe       key -> way out     bounded queue   seal, write
//!       |                                   |            |  ^
//!       +- udp/  (slow path: STUN, bind, data) ----------+
//!                        control only:  table -> mirrors:  route/ (in-process map)  and  fastpath/ (BPF map)
//! ```
//! Arrows never go left. The client table is the authority; packets read its mirrors and never take its lock.

#![deny(unsafe_code)]

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
mod columns;
pub mod conn;
pub mod fastpath;
pub mod files;
pub mod keyfile;
pub mod listen;
pub mod lockfile;
pub mod log;
pub mod newfile;
pub mod observe;
pub mod relay;
pub mod route;
pub mod threads;
pub mod tls;
pub mod udp;
pub mod upkeep;
pub mod workers;
