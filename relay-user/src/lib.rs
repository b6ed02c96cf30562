//! The relay daemon as a library.
#![deny(unsafe_code)]

pub mod fastpath;
