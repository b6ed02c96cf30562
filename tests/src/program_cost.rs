//! What the daemon's XDP program costs, beside the least that any program for these packets must do: parse,
//! read the clock, look up (`lab_look`).
//!
//! The packet is a fixed point: the rewrite gives the same packet again, but for its TTL and IP checksum. So
//! each run of a series does the same work, as long as the TTL lasts.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::HashMap,
    programs::{ProgramInfo, TestRun as _, TestRunOptions, Xdp},
};
use relay_common::{
    fastpath::{Config, SessionEntry, reason::XdpReason},
    forward::sample,
    net::datagram::Datagram,
};
use relay_ebpf::lab::{LOOK, PASS, map};

use crate::bpf::{Objects, Relayd, load_object, load_program, loaded_program, now_ns, set_array_value};

/// Runs per system call: fewer than the TTL lasts.
const RUNS: u32 = 200;
/// The interface of a test run in the kernel.
const INTERFACE: u32 = 1;
const XDP_TX: u32 = 3;
const XDP_PASS: u32 = 2;

/// How large a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Instructions that the verifier walked through, over all branches.
    pub verified: u32,
    /// Instructions of the program as the kernel has it.
    pub instructions: u32,
    /// Bytes of machine code.
    pub machine_code: u32,
}

impl Size {
    fn of(info: &ProgramInfo) -> Result<Self> {
        Ok(Self {
            verified: info.verified_instruction_count().context("the kernel does not say")?,
            instructions: info.size_translated().context("the kernel does not say")? / 8,
            machine_code: info.size_jitted(),
        })
    }
}

/// Nanoseconds per run, by program.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The daemon's program, which forwards the packet.
    pub relayd: f64,
    /// The program that only parses, reads the clock and looks up.
    pub look: f64,
    /// A program that does nothing: what the measuring itself costs.
    pub empty: f64,
}

/// The programs, with the session of the packet in their maps.
#[derive(Debug)]
pub struct Programs {
    relayd: Relayd,
    lab: Ebpf,
    frame: Vec<u8>,
}

impl Programs {
    /// Loads the programs; the packet has `payload` bytes of UDP payload, the Geneve header included.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn load(objects: &Objects, payload: usize) -> Result<Self> {
        let session = fixed_point();
        let mut relayd = Relayd::load(&objects.relayd)?;
        relayd.install(sample::VNI, &session)?;
        relayd.set_sample_hops(&[sample::next_hop(sample::RELAY_MAC, INTERFACE); 2])?;
        let mut lab = load_object(&objects.lab)?;
        load_program(&mut lab, LOOK)?;
        load_program(&mut lab, PASS)?;
        let sessions = lab.map_mut(map::SESSIONS).context("no map of sessions")?;
        let value: [u8; size_of::<SessionEntry>()] = bytemuck::bytes_of(&session).try_into()?;
        HashMap::<_, u32, [u8; size_of::<SessionEntry>()]>::try_from(sessions)?.insert(
            sample::VNI,
            value,
            0,
        )?;
        let body = vec![0xa5; payload.checked_sub(8).context("no room for the Geneve header")?];
        Ok(Self { relayd, lab, frame: frame(&body) })
    }

    /// The sizes of the daemon's program and of the one to compare with.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn sizes(&mut self) -> Result<[Size; 2]> {
        let relayd = Size::of(&self.relayd.program()?.info()?)?;
        Ok([relayd, Size::of(&loaded_program(&mut self.lab, LOOK)?.info()?)?])
    }

    /// One sample: the mean of the second quarter of `calls` series of each program, taken in turn.
    ///
    /// # Errors
    /// The kernel refuses, or a run did not do the work that is measured.
    pub fn sample(&mut self, calls: u32) -> Result<Sample> {
        let config = sample::config(now_ns());
        self.relayd.configure(&config)?;
        set_array_value::<_, { size_of::<Config>() }>(&mut self.lab, map::RELAY, 0, &config)?;
        let forwarded =
            |relayd: &Relayd| -> Result<u64> { Ok(relayd.reasons()?[XdpReason::Forwarded as usize].packets) };
        let before = forwarded(&self.relayd)?;
        let mut series_of = [Vec::new(), Vec::new(), Vec::new()];
        let [relayd, look, empty] = &mut series_of;
        for _ in 0..calls {
            relayd.push(series(self.relayd.program()?, &self.frame, XDP_TX)?);
            look.push(series(loaded_program(&mut self.lab, LOOK)?, &self.frame, XDP_TX)?);
            empty.push(series(loaded_program(&mut self.lab, PASS)?, &self.frame, XDP_PASS)?);
        }
        let runs = forwarded(&self.relayd)? - before;
        ensure!(runs == u64::from(RUNS * calls), "{runs} of {} packets were forwarded", RUNS * calls);
        // The kernel gives whole nanoseconds, and a series that was interrupted says nothing.
        let [relayd, look, empty] = series_of.map(|mut series| {
            series.sort_unstable();
            let middle = &series[series.len() / 4..series.len().div_ceil(2)];
            middle.iter().sum::<u64>() as f64 / middle.len() as f64
        });
        Ok(Sample { relayd, look, empty })
    }
}

/// Nanoseconds per run in one series.
fn series(program: &Xdp, frame: &[u8], expected: u32) -> Result<u64> {
    let options = TestRunOptions { data_in: Some(frame), repeat: RUNS, ..TestRunOptions::new() };
    let result = program.test_run(options)?;
    ensure!(result.return_value == expected, "the program returned {}", result.return_value);
    Ok(u64::try_from(result.duration.as_nanos())?)
}

/// The session whose second client is the relay itself, as the first client's address: a forwarded packet is
/// the packet that came.
fn fixed_point() -> SessionEntry {
    let mut session = sample::session();
    session.legs[1] = sample::leg(sample::RELAY, sample::CLIENTS[0], sample::NEXT_HOPS[1]);
    session
}

fn frame(body: &[u8]) -> Vec<u8> {
    Datagram {
        source_mac: sample::RELAY_MAC,
        destination_mac: sample::RELAY_MAC,
        source: sample::CLIENTS[0],
        destination: sample::RELAY,
        tos: 0,
        id: 0,
        ttl: 255,
        payload: &sample::geneve(sample::VNI, body),
    }
    .to_frame()
}
