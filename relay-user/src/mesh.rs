//! Links to the other relays of the region.

pub mod target;
