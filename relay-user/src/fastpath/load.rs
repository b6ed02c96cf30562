//! From the object to the running program: load, check, pin, attach.
//!
//! The program is attached only through a `bpf_link`, in the requested mode. If the kernel refuses a link,
//! aya falls back to netlink. Such an attachment would outlive a killed daemon, so it is undone and refused
//! here.

use std::{io, path::Path};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{Array, Map, MapData, MapError as AyaMapError},
    pin::PinError,
    programs::{ProgramError, Xdp, XdpMode, links::FdLink, loaded_programs},
};
use nix::errno::Errno;
use relay_common::fastpath::{Config, PROGRAM, map};

use super::{
    Mode, XdpOptions,
    abi::Abi,
    bpf_sessions::BpfSessions,
    counters::{ProgramConfig, Reasons},
    error::StartError,
    inspect::layout,
    logs::LogDrain,
    mapped::MappedArray,
    next_hop_map::NextHopMap,
    pins::PINNED,
    place,
};
use crate::host::netlink::Netlink;

/// Lines of the verifier's log to show: its objection is at the end.
const VERIFIER_LINES: usize = 6;

/// The index of an interface in this network namespace, or an error that lists the existing interfaces.
pub(super) fn ifindex(iface: &str) -> Result<u32, StartError> {
    nix::net::if_::if_nametoindex(iface).map_err(|_| {
        let existing = nix::net::if_::if_nameindex().map_or_else(
            |_| Vec::new(),
            |all| all.iter().map(|one| one.name().to_string_lossy().into_owned()).collect(),
        );
        StartError::NoInterface { iface: iface.to_owned(), existing }
    })
}

/// A loaded program that still owns its maps.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) logs: Option<LogDrain>,
}

/// Creates the maps with the requested sizes, checks that they fit this daemon, and loads the program.
pub(super) fn load(object: &[u8], options: &XdpOptions) -> Result<Loaded, StartError> {
    let iface = &options.iface;
    let btf = Btf::from_sys_fs().ok();
    let mut ebpf = EbpfLoader::new()
        .btf(btf.as_ref())
        .map_max_entries(map::SESSIONS, options.max_sessions)
        .map_max_entries(map::LEG_STATS, options.max_sessions)
        .load(object)
        .map_err(|error| from_load(iface, &error))?;
    for name in PINNED {
        let found = ebpf.map(name).ok_or_else(|| unfit(format!("it has no map {name}")))?;
        layout::check(name, found).map_err(|error| unfit(error.to_string()))?;
    }
    let logs = LogDrain::start(&mut ebpf);
    let program = xdp(&mut ebpf)?;
    program.load().map_err(|error| from_verifier(iface, &error))?;
    Ok(Loaded { ebpf, logs })
}

/// The program's maps, each as the type of its use.
pub(super) struct Maps {
    pub(super) sessions: BpfSessions,
    pub(super) next_hops: NextHopMap,
    pub(super) reasons: Reasons,
    pub(super) control: ProgramConfig,
}

impl Loaded {
    /// Pins the maps under their names.
    pub(super) fn pin(&self, dir: &Path) -> Result<(), StartError> {
        for (name, map) in self.ebpf.maps().filter(|(name, _)| PINNED.contains(name)) {
            map.pin(dir.join(name)).map_err(|error| {
                let cause = match error {
                    PinError::SyscallError(error) => error.io_error,
                    other => std::io::Error::other(other.to_string()),
                };
                StartError::Directory { dir: dir.to_owned(), doing: format!("pin {name}"), cause }
            })?;
        }
        Ok(())
    }

    /// Takes the maps out, each as the type of its use, and writes the first configuration.
    pub(super) fn maps(&mut self, config: Config) -> Result<Maps, StartError> {
        let mismatch = |error: AyaMapError| unfit(error.to_string());
        let unmapped = |name: &'static str| move |error: io::Error| unfit(format!("map {name}: {error}"));
        let (stats, hops) = (self.take_array(map::LEG_STATS)?, self.take_array(map::NEXTHOPS)?);
        let sessions =
            BpfSessions::new(self.take(map::SESSIONS)?, &stats).map_err(unmapped(map::LEG_STATS))?;
        let next_hops = NextHopMap::new(MappedArray::new(&hops).map_err(unmapped(map::NEXTHOPS))?);
        let reasons = Reasons::new(self.take(map::REASONS)?).map_err(mismatch)?;
        let array = Array::<_, Abi<Config>>::try_from(self.take(map::CONFIG)?).map_err(mismatch)?;
        let control = ProgramConfig::new(array, config).map_err(|error| unfit(error.to_string()))?;
        Ok(Maps { sessions, next_hops, reasons, control })
    }

    fn take_array(&mut self, name: &str) -> Result<MapData, StartError> {
        match self.take(name)? {
            Map::Array(data) => Ok(data),
            _ => Err(unfit(format!("map {name} is no ARRAY"))),
        }
    }

    fn take(&mut self, name: &str) -> Result<Map, StartError> {
        self.ebpf.take_map(name).ok_or_else(|| unfit(format!("it has no map {name}")))
    }
}

/// Attaches the loaded program; returns the link and the program's id. Closing the link detaches the program.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    iface: &str,
    ifindex: u32,
    mode: Mode,
) -> Result<(FdLink, u32), StartError> {
    let program = xdp(ebpf)?;
    let aya_mode = match mode {
        Mode::Native => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let refused =
        |errno| StartError::from_attach(iface, mode, errno, || occupant(ifindex), || mtu_of(ifindex));
    let unknown = |cause: String| StartError::Attach { iface: iface.to_owned(), mode, cause };
    let link = match program.attach_to_if_index(ifindex, aya_mode) {
        Ok(id) => program.take_link(id).map_err(|error| unknown(error.to_string()))?,
        Err(error) => return Err(errno(&error).map_or_else(|| unknown(error.to_string()), refused)),
    };
    let link = FdLink::try_from(link).map_err(|_| StartError::NoLink { iface: iface.to_owned() })?;
    let info = program.info().map_err(|error| unknown(error.to_string()))?;
    Ok((link, info.id()))
}

fn mtu_of(ifindex: u32) -> Option<u32> {
    let link = Netlink::open().and_then(|mut netlink| netlink.link(ifindex)).ok()?;
    place::mtu(&link)
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, StartError> {
    let program = ebpf.program_mut(PROGRAM).ok_or_else(|| unfit(format!("it has no program {PROGRAM}")))?;
    program.try_into().map_err(|error: ProgramError| unfit(error.to_string()))
}

fn unfit(cause: String) -> StartError {
    StartError::Object { cause }
}

/// The program that is already attached, as far as netlink and the kernel's list of programs name it.
fn occupant(ifindex: u32) -> String {
    let attached = Netlink::open()
        .and_then(|mut netlink| netlink.link(ifindex))
        .ok()
        .and_then(|link| place::attached_xdp(&link));
    let Some((id, mode)) = attached else { return "another XDP program".to_owned() };
    let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
    match info.as_ref().and_then(|info| info.name_as_str()) {
        Some(name) if !name.is_empty() => format!("the XDP program {name:?} (id {id}, {mode} mode)"),
        _ => format!("the XDP program with id {id} ({mode} mode)"),
    }
}

/// The first system error in a chain of causes.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(raw) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Some(Errno::from_raw(raw));
        }
        cause = error.source();
    }
    None
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn from_load(iface: &str, error: &EbpfError) -> StartError {
    let iface = iface.to_owned();
    match errno(error) {
        Some(Errno::EPERM | Errno::EACCES) => StartError::Permission { iface, cause: chain(error) },
        Some(Errno::ENOSYS) => StartError::NoBpf { iface },
        Some(_) => StartError::Rejected { iface, cause: chain(error) },
        None => unfit(chain(error)),
    }
}

fn from_verifier(iface: &str, error: &ProgramError) -> StartError {
    let iface = iface.to_owned();
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return StartError::Rejected { iface, cause: chain(error) };
    };
    let log = verifier_log.to_string();
    match io_error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) if log.trim().is_empty() => {
            StartError::Permission { iface, cause: format!("the kernel answered {io_error}") }
        }
        _ => StartError::Rejected { iface, cause: format!("{io_error}; {}", tail(&log)) },
    }
}

/// The end of the verifier's log, on one line.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(VERIFIER_LINES)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_verifier_log_is_kept() {
        let log: String = (0..20).map(|line| format!("line {line}\n\n")).collect();
        assert_eq!(tail(&log), "line 14 | line 15 | line 16 | line 17 | line 18 | line 19");
        assert_eq!(tail(""), "");
    }

    #[test]
    fn an_interface_that_is_not_there_is_refused_with_those_that_are() {
        match ifindex("relayd-none") {
            Err(StartError::NoInterface { existing, .. }) => assert!(existing.contains(&"lo".to_owned())),
            other => panic!("got {other:?}"),
        }
    }

    #[test]
    fn an_object_that_is_no_object_is_the_builds_fault() {
        let options = XdpOptions {
            iface: "lo".into(),
            mode: Mode::Native,
            bpf_dir: None,
            max_sessions: 1,
            udp_port: 1,
            any_ingress: false,
        };
        let error = load(b"no object at all", &options).err().expect("refused");
        assert!(matches!(error, StartError::Object { .. }), "{error}");
    }
}
