//! What the daemon can say about itself. Written by all, read by [`crate::admin`] only.

pub mod counters;
pub mod seldom;
