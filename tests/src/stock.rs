//! Stock programs as judges: upstream's `derpprobe`, `tailscaled` and `tailscale`, run as users run them,
//! against a relay that has its own host and listens on all of its addresses.
//!
//! `tests/interop` tests the protocol, one rule at a time. These programs show what operators see, with their
//! own methods: over both families, with wildcard sockets, with pinned certificates. `JUDGE_SERVER=upstream`
//! puts derper in relayd's place, to see which complaints are about relayd only.

mod certificate;
mod place;
mod probe;
mod programs;
mod relay;
mod tailnet;

pub use certificate::Certificate;
pub use place::{Host, Place};
pub use probe::{Probed, probe_once, queuing_delay};
pub use programs::{DERPER, DERPPROBE, Program, TAILSCALED};
pub use relay::{REGION, Relay};
pub use tailnet::{Node, Tailnet};
