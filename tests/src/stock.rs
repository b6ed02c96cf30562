//! Stock programs as judges: upstream's `derpprobe`, `tailscaled` and `tailscale`, as anyone runs them, against
//! a relay that has a host of its own and listens on every address of it.
//!
//! `tests/interop` asks about the protocol, one rule at a time. These programs ask what operators see, and they
//! ask in their own way: over both families, by wildcard sockets, with pinned certificates. `JUDGE_SERVER=upstream`
//! puts derper in relayd's place, so that what a program says of ours can be told from what it says of any.

mod certificate;
mod place;
mod probe;
mod process;
mod programs;
mod relay;
mod tailnet;

pub use certificate::Certificate;
pub use place::{Host, Place};
pub use probe::{Probed, probe_once, queuing_delay};
pub use programs::{DERPER, DERPPROBE, Program, TAILSCALED};
pub use relay::{REGION, Relay};
pub use tailnet::{Node, Tailnet};
