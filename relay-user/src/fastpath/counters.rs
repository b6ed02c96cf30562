//! The program's counters and its configuration: the maps `REASONS` and `CONFIG`.

use std::sync::{Mutex, PoisonError};

use aya::maps::{Array, Map, MapData, PerCpuArray};
use relay_common::fastpath::{
    Config, ReasonCount,
    reason::{COUNT, XdpReason},
};

use super::{abi::Abi, bpf_sessions::map_error};
use crate::route::session_map::MapError;

/// `REASONS`: how often the program left by each exit.
pub(super) struct Reasons(PerCpuArray<MapData, Abi<ReasonCount>>);

impl Reasons {
    pub(super) fn new(map: Map) -> Result<Self, aya::maps::MapError> {
        PerCpuArray::try_from(map).map(Self)
    }

    /// Every reason with its count, summed over the CPUs. A map of an older daemon may lack the last reasons:
    /// their counts are 0.
    pub(super) fn read(&self) -> Result<Vec<(XdpReason, ReasonCount)>, MapError> {
        let held = self.0.len().min(COUNT);
        XdpReason::ALL
            .iter()
            .map(|reason| {
                let index = *reason as u32;
                if index >= held {
                    return Ok((*reason, ReasonCount::default()));
                }
                let cpus = self.0.get(&index, 0).map_err(|error| map_error("read the reasons", &error))?;
                Ok((*reason, sum(cpus.iter().map(|Abi(count)| *count))))
            })
            .collect()
    }
}

fn sum(counts: impl Iterator<Item = ReasonCount>) -> ReasonCount {
    counts.fold(ReasonCount::default(), |total, count| ReasonCount {
        packets: total.packets.wrapping_add(count.packets),
        bytes: total.bytes.wrapping_add(count.bytes),
    })
}

/// `CONFIG`, with the last value written.
pub(super) struct ProgramConfig(Mutex<(Array<MapData, Abi<Config>>, Config)>);

impl ProgramConfig {
    /// Wraps the map and writes its first value.
    pub(super) fn new(map: Array<MapData, Abi<Config>>, first: Config) -> Result<Self, MapError> {
        let control = Self(Mutex::new((map, first)));
        control.change(|_| {})?;
        Ok(control)
    }

    /// Changes the configuration and writes it in one step.
    pub(super) fn change(&self, change: impl FnOnce(&mut Config)) -> Result<(), MapError> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (map, config) = &mut *guard;
        change(config);
        map.set(0, Abi(*config), 0).map_err(|error| map_error("write the configuration", &error))
    }

    /// The configuration last written.
    pub(super) fn current(&self) -> Config {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_over_the_cpus() {
        let cpus = [ReasonCount { packets: 1, bytes: 60 }, ReasonCount { packets: 2, bytes: 1500 }];
        assert_eq!(sum(cpus.into_iter()), ReasonCount { packets: 3, bytes: 1560 });
    }
}
