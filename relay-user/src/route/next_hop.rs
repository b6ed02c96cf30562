//! The number of a next hop: the index of the element in `NEXTHOPS` that says how packets reach a client.
//!
//! Sessions hold numbers, so that a neighbour that changes costs one write, however many sessions use it.

/// Index into `NEXTHOPS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HopNumber(pub u32);
