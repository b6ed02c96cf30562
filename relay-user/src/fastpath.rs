//! The XDP fast path: the only part of the daemon that knows aya.

pub mod object;
