//! Rows about receivers that read slowly or not at all: how old the frames are that they read, what the
//! server keeps for them, and what a packet to them costs.
//!
//! On loopback, the kernel buffers 4 MiB per connection, which hides all that. So servers and clients run in
//! a network namespace with socket buffers of 128 KiB and with Ethernet's packet size.

mod ages;
mod cost;
mod memory;
mod push;

use std::fs;

use anyhow::Context as _;

use super::report::Row;
use super::{Settings, rivals};
use crate::lab::Netns;

/// Minimum, default and maximum bytes of a socket's buffers, for sending and for receiving.
const BUFFERS: [(&str, &str); 2] = [("tcp_wmem", "4096 16384 131072"), ("tcp_rmem", "4096 16384 131072")];
/// Bytes of a packet on the loopback interface, the same as on Ethernet.
const MTU: &str = "1500";
/// The rows' note about where the servers run.
const FIELD: &str = "In a network namespace with socket buffers of at most 128 KiB and an MTU of 1,500 bytes";

/// All selected rows of `bench slow`.
///
/// # Errors
/// A server cannot be built or run, a load fails, or the network namespace cannot be made.
pub fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    push::rows(settings, &mut rows);
    let names = ages::FIGURES.iter().map(|figure| figure.0).chain(memory::CASES.map(|case| case.name));
    if !names.chain([cost::NAME]).any(|name| settings.wants(name)) {
        return Ok(rows);
    }
    if !nix::unistd::geteuid().is_root() {
        crate::skip("bench slow, rows of servers", "network namespaces need root");
        return Ok(rows);
    }
    // derper cannot be built inside the namespace, which has no network.
    rivals::derper()?;
    let netns = field()?;
    netns.enter(|| {
        ages::rows(settings, &mut rows)?;
        memory::rows(settings, &mut rows)?;
        cost::rows(settings, &mut rows)
    })??;
    Ok(rows)
}

/// Pairs of samples; fewer than usual, because each takes long.
fn pairs(settings: &Settings) -> usize {
    if settings.quick { 1 } else { 3 }
}

/// A network namespace in which a connection's buffers are as small as on a machine with many.
fn field() -> anyhow::Result<Netns> {
    let netns = Netns::new("slow")?;
    netns.enter(|| {
        BUFFERS.iter().try_for_each(|(name, bytes)| {
            let path = format!("/proc/sys/net/ipv4/{name}");
            fs::write(&path, bytes).with_context(|| format!("setting {path}"))
        })
    })??;
    netns.ip(&["link", "set", "lo", "mtu", MTU])?;
    Ok(netns)
}
