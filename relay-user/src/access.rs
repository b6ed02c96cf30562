//! Who may use the relay.

pub mod deny;
pub mod networks;
