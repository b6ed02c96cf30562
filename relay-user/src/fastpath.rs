//! The fast path: the loader of the XDP program, and all data that the daemon exchanges with it.
//!
//! aya is used only below this module. The rest of the daemon sees a
//! [`crate::route::session_map::SessionMap`] to write, counters to read, and [`crate::fastpath::nexthop`] for
//! the next hops that a session's entry needs. This module decides nothing about sessions.
//!
//! ```text
//! start: object -> kernel -> rights -> interface -> lock -> pins cleared -> load -> pin -> attach (bpf_link)
//! run:   the interface watched, and whether anything is forwarded
//! stop:  link closed (detached) -> log drained -> pins removed -> lock let go
//! ```
//!
//! The link of a killed daemon ends with its process, so the program never runs without its controller; only
//! the maps stay.

mod abi;
mod attachment;
mod batch;
pub mod bpf_sessions;
mod counters;
mod error;
mod gro;
pub mod inspect;
mod kernel;
mod load;
mod lock;
mod logs;
mod mapped;
pub mod next_hop_map;
pub mod nexthop;
pub mod object;
mod pins;
mod place;
mod rights;
mod stall;
mod tx_drops;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use relay_common::fastpath::{Config, ReasonCount, reason::XdpReason};

use self::{
    attachment::{Attachment, Place},
    bpf_sessions::BpfSessions,
    counters::{ProgramConfig, Reasons},
    load::Maps,
    logs::LogDrain,
    next_hop_map::NextHopMap,
    pins::Pins,
    stall::Stall,
    tx_drops::{Counts, TxDrops},
};
pub use self::{
    attachment::{LinkState, LinkStatus},
    error::StartError,
    object::OBJECT,
    pins::{ROOT, default_dir},
};
use crate::clock;
use crate::route::session_map::MapError;

/// Where in the path of a frame the program runs. The operator names the mode; relayd never falls back by
/// itself: a silent fall to generic mode would hide both cost and checksum faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes a packet from the frame.
    #[default]
    Native,
    /// In the kernel's receive path. This works with every driver, but costs the work of making a packet
    /// first.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// The options that the operator gave.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// `--xdp`: the interface.
    pub iface: String,
    /// `--xdp-mode`.
    pub mode: Mode,
    /// `--bpf-dir`; [`default_dir`] if absent.
    pub bpf_dir: Option<PathBuf>,
    /// `--relay-max-sessions`: the size of the maps.
    pub max_sessions: u32,
    /// The UDP port the relay is bound to, host order.
    pub udp_port: u16,
    /// `--xdp-any-ingress`: a client's packets may come in by another interface than the one that leads to
    /// it.
    pub any_ingress: bool,
}

/// The attached program and its maps. Dropping it detaches the program and then removes the pins.
pub struct FastPath {
    // Fields are dropped in this order.
    attachment: Mutex<Attachment>,
    _logs: Option<LogDrain>,
    sessions: Option<BpfSessions>,
    next_hops: Option<NextHopMap>,
    reasons: Reasons,
    control: ProgramConfig,
    stall: Mutex<Stall>,
    tx_drops: Mutex<TxDrops>,
    iface: String,
    mode: Mode,
    program_id: u32,
    pins: Option<Pins>,
}

impl fmt::Debug for FastPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FastPath")
            .field("iface", &self.iface)
            .field("mode", &self.mode)
            .field("program_id", &self.program_id)
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

impl FastPath {
    /// Loads the program, pins its maps and attaches it. From then on it forwards the sessions in the session
    /// map, which is empty at first, for as long as [`Self::heartbeat`] is called.
    ///
    /// Everything happens in the calling thread's network namespace.
    ///
    /// # Errors
    /// A requirement is missing or something prevents the start; the message names the flag and the remedy.
    pub fn start(options: &XdpOptions) -> Result<Self, StartError> {
        let iface = options.iface.clone();
        let object = Self::judge(&iface, options.mode)?;
        let dir = options.bpf_dir.clone().unwrap_or_else(|| default_dir(options.udp_port));
        let pins = Pins::open(&dir)?;
        let mut loaded = load::load(object, options)?;
        if let Some(pins) = &pins {
            loaded.pin(pins.dir())?;
        }
        let config = Config {
            heartbeat_ns: clock::monotonic_ns(),
            enabled: 1,
            udp_port: options.udp_port.to_be_bytes(),
            any_ingress: options.any_ingress.into(),
            reserved: 0,
        };
        let Maps { sessions, next_hops, reasons, control } = loaded.maps(config)?;
        let load::Loaded { ebpf, logs } = loaded;
        let place = Place::new(&iface, options.mode)?;
        let attachment = Attachment::attach(ebpf, place, &iface, options.mode, config.heartbeat_ns)?;
        Ok(Self {
            program_id: attachment.program_id(),
            attachment: Mutex::new(attachment),
            _logs: logs,
            sessions: Some(sessions),
            next_hops: Some(next_hops),
            reasons,
            control,
            stall: Mutex::default(),
            tx_drops: Mutex::default(),
            iface,
            mode: options.mode,
            pins,
        })
    }

    /// Checks that there is a program, that the kernel is new enough, and that this process may attach it to
    /// an interface where it will forward. Returns the object. Changes nothing.
    ///
    /// # Errors
    /// A requirement is missing.
    pub fn judge(iface: &str, mode: Mode) -> Result<&'static [u8], StartError> {
        let object = OBJECT.ok_or_else(|| StartError::NotBuiltIn { iface: iface.to_owned() })?;
        kernel::check(iface)?;
        rights::check(iface)?;
        Place::new(iface, mode)?.judge(iface, mode)?;
        Ok(object)
    }

    /// Looks whether the program is still attached, and attaches it again if it was lost and can be. Then
    /// looks whether it forwards: `carried` is how many packets of sessions userspace has forwarded so far,
    /// and `installed` counts the sessions that the program should forward. What has changed is one line in
    /// the log each. Returns how often the program was newly found lost: 0 or 1.
    ///
    /// Call this about once a second, in the network namespace in which the program was started.
    pub fn watch(&self, now_ns: u64, carried: u64, installed: impl FnOnce() -> usize) -> u64 {
        let mut attachment = self.attachment();
        let losses = attachment.watch(now_ns);
        let (dropped, ifindex) = (attachment.tx_dropped(), attachment.status().ifindex);
        drop(attachment);
        let reasons = self.reasons().ok().filter(|_| self.is_enabled());
        if let Some(reasons) = &reasons
            && let Some(hint) = self.stall().look(now_ns, reasons, carried, installed)
        {
            tracing::warn!("{}", hint.sentence(&self.iface));
        }
        let forwarded = reasons.iter().flatten().find(|(reason, _)| *reason == XdpReason::Forwarded);
        let counts = forwarded.zip(dropped).map(|((_, count), dropped)| Counts {
            now_ns,
            ifindex,
            forwarded: count.packets,
            dropped,
        });
        if self.tx_drops().look(counts) {
            tracing::warn!("{}", tx_drops::sentence(&self.iface));
        }
        losses
    }

    /// Whether and where the program is attached, as of the last [`Self::watch`].
    pub fn link_status(&self) -> LinkStatus {
        self.attachment().status().clone()
    }

    /// What to look at if the program forwards nothing although userspace carries sessions, or if what it
    /// forwards does not leave.
    pub fn hint(&self) -> Option<String> {
        let stalled = self.stall().hint().map(|hint| hint.sentence(&self.iface));
        stalled.or_else(|| self.tx_drops().most_are_dropped().then(|| tx_drops::sentence(&self.iface)))
    }

    fn attachment(&self) -> MutexGuard<'_, Attachment> {
        self.attachment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stall(&self) -> MutexGuard<'_, Stall> {
        self.stall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tx_drops(&self) -> MutexGuard<'_, TxDrops> {
        self.tx_drops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Detaches the program and removes the pins, as dropping it does.
    pub fn stop(self) {
        drop(self);
    }

    /// The session map. It can be taken once, because it has one writer.
    ///
    /// # Panics
    ///
    /// When called a second time.
    pub fn session_map(&mut self) -> BpfSessions {
        self.sessions.take().expect("the session map has one writer, and it was given away already")
    }

    /// The map of next hops. It can be taken once, because it has one writer.
    ///
    /// # Panics
    ///
    /// When called a second time.
    pub fn next_hop_map(&mut self) -> NextHopMap {
        self.next_hops.take().expect("the map of next hops has one writer, and it was given away already")
    }

    /// How often the program left by each exit since it was started, summed over the CPUs, in the order of
    /// the list.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn reasons(&self) -> Result<Vec<(XdpReason, ReasonCount)>, MapError> {
        self.reasons.read()
    }

    /// Writes the heartbeat, which shows the program that the daemon lives: CLOCK_MONOTONIC in nanoseconds
    /// ([`clock::monotonic_ns`]). Call this several times within
    /// [`relay_common::fastpath::HEARTBEAT_LIMIT_NS`].
    ///
    /// # Errors
    /// The kernel refused. Without a heartbeat the program stops forwarding after that time.
    pub fn heartbeat(&self, now_ns: u64) -> Result<(), MapError> {
        self.control.change(|config| config.heartbeat_ns = now_ns)
    }

    /// The kill switch: `false` makes the program pass everything to userspace.
    ///
    /// # Errors
    /// The kernel refused; the setting is unchanged.
    pub fn set_enabled(&self, enabled: bool, now_ns: u64) -> Result<(), MapError> {
        self.control.change(|config| {
            config.enabled = u32::from(enabled);
            config.heartbeat_ns = now_ns;
        })
    }

    /// Whether the program forwards; `false` after the kill switch was used.
    pub fn is_enabled(&self) -> bool {
        self.control.current().enabled != 0
    }

    /// The mode in which the program is attached.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The interface that the program is attached to.
    pub fn iface(&self) -> &str {
        &self.iface
    }

    /// The index of that interface, or of the one of that name before it was lost.
    pub fn ifindex(&self) -> u32 {
        self.attachment().status().ifindex
    }

    /// The kernel's id of the program, as in `bpftool prog`.
    pub fn program_id(&self) -> u32 {
        self.program_id
    }

    /// The directory of the pinned maps; `None` without a BPF file system.
    pub fn maps_dir(&self) -> Option<&Path> {
        self.pins.as_ref().map(Pins::dir)
    }
}
