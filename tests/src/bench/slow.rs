//! Rows about receivers that read slowly or not at all: how old what they read is, what the server keeps for
//! them, and what a packet to them costs.
//!
//! On loopback the kernel's own buffers take 4 MiB of every connection and hide all that. So servers and
//! clients run in a network namespace whose sockets hold 128 KiB and whose segments are as long as on a wire.

mod ages;
mod cost;
mod memory;
mod push;

use std::fs;

use anyhow::Context as _;

use super::report::Row;
use super::{Settings, rivals};
use crate::lab::Netns;

/// Least, first and greatest bytes of a socket's buffers, for what it sends and what it receives.
const BUFFERS: [(&str, &str); 2] = [("tcp_wmem", "4096 16384 131072"), ("tcp_rmem", "4096 16384 131072")];
/// Bytes of a packet on the loopback interface, as on Ethernet.
const MTU: &str = "1500";
/// What rows of servers say of where they run.
const FIELD: &str = "In a network namespace with socket buffers of at most 128 KiB and an MTU of 1,500 bytes";

/// All rows of `bench slow` that are asked for.
///
/// # Errors
/// A server cannot be built or run, a load fails, or there can be no network namespace.
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
    // Inside there is no network to build it from.
    rivals::derper()?;
    let netns = field()?;
    netns.enter(|| {
        ages::rows(settings, &mut rows)?;
        memory::rows(settings, &mut rows)?;
        cost::rows(settings, &mut rows)
    })??;
    Ok(rows)
}

/// Pairs of samples: each takes long.
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
