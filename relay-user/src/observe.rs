//! The daemon's counters. All parts write them; only [`crate::admin`] reads them.

pub mod counters;
pub mod held;
pub mod seldom;
