//! relayd's program and its maps.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::{Ebpf, maps::HashMap, programs::Xdp};
use relay_common::fastpath::{
    Config, NextHopEntry, PROGRAM, ReasonCount, SessionEntry, SessionStats, map, reason::XdpReason,
};
use relay_common::forward::sample;

use super::{array_value, load_object, load_program, loaded_program, own_values, set_array_value};

/// The program, loaded and not attached.
#[derive(Debug)]
pub struct Relayd(Ebpf);

impl Relayd {
    /// Loads the program with new maps.
    pub fn load(object: &Path) -> Result<Self> {
        let mut ebpf = load_object(object)?;
        load_program(&mut ebpf, PROGRAM)?;
        Ok(Self(ebpf))
    }

    /// The program.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        loaded_program(&mut self.0, PROGRAM)
    }

    /// Sets the run-time configuration.
    pub fn configure(&mut self, config: &Config) -> Result<()> {
        set_array_value::<_, { size_of::<Config>() }>(&mut self.0, map::CONFIG, 0, config)
    }

    /// Writes a next hop.
    pub fn set_next_hop(&mut self, number: u32, hop: &NextHopEntry) -> Result<()> {
        set_array_value::<_, { size_of::<NextHopEntry>() }>(&mut self.0, map::NEXTHOPS, number, hop)
    }

    /// Writes the sample's next hops.
    pub fn set_sample_hops(&mut self, hops: &[NextHopEntry; 2]) -> Result<()> {
        sample::NEXT_HOPS.iter().zip(hops).try_for_each(|(number, hop)| self.set_next_hop(*number, hop))
    }

    /// Installs or replaces a session.
    pub fn install(&mut self, vni: u32, session: &SessionEntry) -> Result<()> {
        let sessions = self.0.map_mut(map::SESSIONS).context("no map of sessions")?;
        const SIZE: usize = size_of::<SessionEntry>();
        let value: [u8; SIZE] = bytemuck::bytes_of(session).try_into()?;
        HashMap::<_, u32, [u8; SIZE]>::try_from(sessions)?.insert(vni, value, 0)?;
        Ok(())
    }

    /// The counters of a stats slot.
    pub fn stats(&self, slot: u32) -> Result<SessionStats> {
        array_value::<_, { size_of::<SessionStats>() }>(&self.0, map::LEG_STATS, slot)
    }

    /// Frames and bytes of every reason, on all CPUs, by index.
    pub fn reasons(&self) -> Result<Vec<ReasonCount>> {
        let one = |&reason: &XdpReason| {
            const SIZE: usize = size_of::<ReasonCount>();
            let values = own_values::<ReasonCount, SIZE>(&self.0, map::REASONS, reason as u32)?;
            Ok(values.iter().fold(ReasonCount::default(), |sum, value| ReasonCount {
                packets: sum.packets + value.packets,
                bytes: sum.bytes + value.bytes,
            }))
        };
        XdpReason::ALL.iter().map(one).collect()
    }
}
