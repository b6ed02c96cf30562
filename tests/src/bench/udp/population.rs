//! Very many bound sessions, and what making them costs the relay.

use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::bind::{Keys, Session, drain};
use super::relay::Relay;
use crate::bench::usage;

/// Sessions that are allocated and then bound at a time: they must be bound within the bind lifetime, and an
/// admin connection is kept for 30 s at most.
pub(in crate::bench) const CHUNK: usize = 2048;

/// The sessions.
pub(in crate::bench) struct Population {
    /// In the order of their allocation.
    pub(in crate::bench) sessions: Vec<Session>,
    /// The relay's CPU time for all allocations.
    pub(in crate::bench) allocating: Duration,
    /// The relay's CPU time for binding all sessions, both legs.
    pub(in crate::bench) binding: Duration,
    /// The time that it all took.
    pub(in crate::bench) took: Duration,
}

impl Population {
    /// Allocates and binds `count` sessions of `keys`' pairs from number `from` on.
    pub(in crate::bench) fn load(
        relay: &Relay,
        keys: &Keys,
        sockets: [&[UdpSocket]; 2],
        from: usize,
        count: usize,
    ) -> anyhow::Result<Population> {
        let start = Instant::now();
        let mut all = Population {
            sessions: Vec::with_capacity(count),
            allocating: Duration::ZERO,
            binding: Duration::ZERO,
            took: Duration::ZERO,
        };
        while all.sessions.len() < count {
            let first = from + all.sessions.len();
            let chunk = CHUNK.min(count - all.sessions.len());
            let before = usage::cpu(relay.pid())?;
            let sessions = keys.allocate(&relay.admin, first..first + chunk);
            let sessions = sessions.with_context(|| relay.log_tail())?;
            let allocated = usage::cpu(relay.pid())?;
            let bound = keys.bind(sockets, &sessions);
            bound.with_context(|| format!("of {count} sessions, {} are bound", all.sessions.len()))?;
            all.allocating += allocated - before;
            all.binding += usage::cpu(relay.pid())? - allocated;
            all.sessions.extend(sessions);
        }
        sockets.iter().for_each(|sockets| drain(sockets));
        all.took = start.elapsed();
        Ok(all)
    }
}

/// Keys on each side so that there are `count` pairs.
pub(in crate::bench) fn keys_for(count: usize) -> usize {
    (1..).find(|keys| keys * keys >= count).unwrap_or(1)
}

/// Bytes that the kernel holds for the BPF maps of a process, each map once.
pub(in crate::bench) fn map_bytes(pid: u32) -> anyhow::Result<u64> {
    let mut maps = std::collections::BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("the process is gone")? {
        // A file may have been closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        if let (Some(id), Some(bytes)) = (field("map_id"), field("memlock")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_keys_make_a_million_pairs() {
        assert_eq!([1, 2, 1000, 65_536, 1_000_000].map(keys_for), [1, 2, 32, 256, 1000]);
    }

    #[test]
    fn a_process_without_maps_has_no_bytes_of_maps() -> anyhow::Result<()> {
        assert_eq!(map_bytes(std::process::id())?, 0);
        assert!(map_bytes(u32::MAX).is_err());
        Ok(())
    }
}
