//! `relayd inspect`: prints the pinned maps by field name, without the daemon's help, whether it runs or not.
//!
//! This only reads, and only maps whose type and sizes are those compiled in (`layout`).

mod alive;
pub(super) mod layout;
mod print;

use std::{
    fmt, fs,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use aya::{
    maps::{Array, HashMap, Map, MapData},
    pin::PinError,
};
use relay_common::fastpath::{Config, NextHopEntry, SessionEntry, SessionStats, map};

use time::OffsetDateTime;

use self::{alive::Keeper, print::Session};
use super::{
    abi::Abi, bpf_sessions::map_error, counters::Reasons, lock::lock_path, mapped::MappedArray,
    next_hop_map::NextHopMap, pins::PINNED,
};
use crate::clock;
use crate::route::session_map::MapError;

/// Levels of directories searched below the given one: `relayd`, `v<schema>`, `<udp port>`.
const DEPTH: usize = 3;

/// Why printing failed, wholly or in part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// There is no map of relayd's below the directory.
    #[error(
        "no maps of relayd under {}: no relayd runs with --xdp here, it has stopped cleanly, or it was given \
         another --bpf-dir", .0.display()
    )]
    Nothing(PathBuf),
    /// The directory or a map in it cannot be read.
    #[error("{}: {cause}; inspect needs the rights relayd was started with (root)", path.display())]
    Unreadable {
        /// The path that could not be read.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The map belongs to another version of relayd, or not to relayd.
    #[error("{}: {cause}; it was pinned by another version of relayd", path.display())]
    Layout {
        /// The map's pin.
        path: PathBuf,
        /// How the map differs.
        cause: String,
    },
    /// None of the maps has the requested session.
    #[error("no session with {only} in the maps under {}; without a filter all are shown", dir.display())]
    NoSession {
        /// The requested sessions.
        only: Only,
        /// The directory that was searched.
        dir: PathBuf,
    },
    /// A map could not be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The output could not be written.
    #[error("could not write: {0}")]
    Output(#[from] io::Error),
}

/// What to show.
#[derive(Clone, Copy, Debug, Default)]
pub struct InspectOptions {
    /// Which sessions to show. With a filter only these are shown, without the other maps.
    pub only: Only,
    /// Largest number of sessions per directory; 0: all.
    pub limit: usize,
    /// Whether every field gets its own line.
    pub verbose: bool,
}

/// Which sessions to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Only {
    /// All sessions.
    #[default]
    All,
    /// The session with this virtual network identifier.
    Vni(u32),
    /// The sessions with this address, and port if given, on either side of a leg.
    Addr(IpAddr, Option<u16>),
}

impl fmt::Display for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("any VNI"),
            Self::Vni(vni) => write!(f, "VNI {vni}"),
            Self::Addr(ip, None) => write!(f, "the address {ip}"),
            Self::Addr(ip, Some(port)) => write!(f, "the address {}", SocketAddr::new(*ip, *port)),
        }
    }
}

/// Prints the maps pinned in `dir`. If `dir` has none, prints those of every directory below it:
/// [`super::ROOT`] prints the maps of every relayd with the default directory.
///
/// # Errors
/// There are no maps to print, or they cannot be read or the output cannot be written.
pub fn dump(dir: &Path, options: &InspectOptions, out: &mut dyn Write) -> Result<(), InspectError> {
    let mut found = false;
    for pins in pin_dirs(dir)? {
        let maps = Maps::open(&pins)?;
        let now_ns = clock::monotonic_ns();
        let (sessions, matched) = maps.sessions(options)?;
        if options.only != Only::All && matched == 0 {
            continue;
        }
        found = true;
        let config = match &maps.config {
            Some(config) => {
                let Abi(value) =
                    config.get(&0, 0).map_err(|error| map_error("read the configuration", &error))?;
                Some(value)
            }
            None => None,
        };
        let keeper = lock_path(&pins).map_or(Keeper::Unknown, |lock| Keeper::of(&lock));
        let beat = config.as_ref().map(|config| config.heartbeat_ns);
        writeln!(out, "{}", pins.display())?;
        writeln!(out, "  daemon {}", keeper.sentence(beat, now_ns, OffsetDateTime::now_utc()))?;
        if options.only == Only::All {
            if let Some(value) = &config {
                print::config(out, value, keeper, now_ns)?;
            }
            if let Some(reasons) = &maps.reasons {
                print::reasons(out, &reasons.read()?)?;
            }
        }
        if let Some(hops) = &maps.next_hops
            && options.only == Only::All
        {
            let written = maps.written_hops();
            writeln!(out, "  NEXTHOPS          {} of {}", written.len(), hops.limit())?;
            let shown = if options.limit == 0 { written.len() } else { options.limit.min(written.len()) };
            print::next_hops(out, &written[..shown])?;
            print::left_out(out, shown, written.len())?;
        }
        if let Some((_, most)) = &maps.sessions {
            writeln!(out, "  SESSIONS          {matched} of {most}")?;
            match options.verbose {
                true => sessions.iter().try_for_each(|session| print::session(out, session, now_ns))?,
                false => print::sessions(out, &sessions, now_ns)?,
            }
            print::left_out(out, sessions.len(), matched)?;
        }
    }
    if found { Ok(()) } else { Err(InspectError::NoSession { only: options.only, dir: dir.to_owned() }) }
}

type Sessions = HashMap<MapData, u32, Abi<SessionEntry>>;

/// The maps pinned in one directory. Every map is checked; absent maps are left out.
struct Maps {
    sessions: Option<(Sessions, u32)>,
    next_hops: Option<NextHopMap>,
    stats: Option<Array<MapData, Abi<SessionStats>>>,
    reasons: Option<Reasons>,
    config: Option<Array<MapData, Abi<Config>>>,
}

impl Maps {
    fn open(dir: &Path) -> Result<Self, InspectError> {
        let layout = |name: &'static str| {
            move |error: aya::maps::MapError| InspectError::Layout {
                path: dir.join(name),
                cause: error.to_string(),
            }
        };
        let sessions = match open(dir, map::SESSIONS)? {
            Some((found, limit)) => Some((HashMap::try_from(found).map_err(layout(map::SESSIONS))?, limit)),
            None => None,
        };
        let next_hops = match open(dir, map::NEXTHOPS)? {
            Some((Map::Array(data), _)) => {
                let mapped = MappedArray::new(&data)
                    .map_err(|cause| InspectError::Unreadable { path: dir.join(map::NEXTHOPS), cause })?;
                Some(NextHopMap::new(mapped))
            }
            _ => None,
        };
        let stats = open(dir, map::LEG_STATS)?.map(|(found, _)| Array::try_from(found)).transpose();
        let reasons = open(dir, map::REASONS)?.map(|(found, _)| Reasons::new(found)).transpose();
        let config = open(dir, map::CONFIG)?.map(|(found, _)| Array::try_from(found)).transpose();
        Ok(Self {
            sessions,
            next_hops,
            stats: stats.map_err(layout(map::LEG_STATS))?,
            reasons: reasons.map_err(layout(map::REASONS))?,
            config: config.map_err(layout(map::CONFIG))?,
        })
    }

    /// The sessions to show, and how many sessions match. Counters are read only for the sessions to show.
    fn sessions(&self, options: &InspectOptions) -> Result<(Vec<Session>, usize), InspectError> {
        let Some((map, _)) = &self.sessions else { return Ok((Vec::new(), 0)) };
        let mut found = Vec::new();
        for item in map.iter() {
            let (vni, Abi(entry)) = item.map_err(|error| map_error("list the sessions", &error))?;
            if wanted(options.only, vni, &entry) {
                found.push((vni, entry));
            }
        }
        found.sort_unstable_by_key(|(vni, _)| *vni);
        let matched = found.len();
        let shown = if options.limit == 0 { matched } else { options.limit };
        let shown = found.into_iter().take(shown);
        let session = |(vni, entry): (u32, SessionEntry)| Session {
            vni,
            entry,
            hops: entry.legs.map(|leg| self.next_hops.as_ref()?.read(leg.next_hop)),
            stats: self.stats(&entry),
        };
        Ok((shown.map(session).collect(), matched))
    }

    /// The next hops that were ever written, by number.
    fn written_hops(&self) -> Vec<(u32, NextHopEntry)> {
        let Some(hops) = &self.next_hops else { return Vec::new() };
        let all = (0..hops.limit()).filter_map(|number| Some((number, hops.read(number)?)));
        all.filter(|(_, hop)| hop.version != 0).collect()
    }

    fn stats(&self, entry: &SessionEntry) -> Option<SessionStats> {
        let Abi(stats) = self.stats.as_ref()?.get(&entry.stats_slot, 0).ok()?;
        Some(stats)
    }
}

fn wanted(only: Only, vni: u32, entry: &SessionEntry) -> bool {
    match only {
        Only::All => true,
        Only::Vni(wanted) => vni == wanted,
        Only::Addr(ip, port) => entry.legs.iter().any(|leg| {
            let sockets = [(leg.remote_ip, leg.remote_port), (leg.local_ip, leg.local_port)];
            sockets
                .into_iter()
                .map(print::socket)
                .any(|at| at.ip() == ip && port.is_none_or(|port| at.port() == port))
        }),
    }
}

/// Opens and checks a pinned map; also returns how many entries it may hold. `None` if the map does not
/// exist.
fn open(dir: &Path, name: &str) -> Result<Option<(Map, u32)>, InspectError> {
    let path = dir.join(name);
    let layout = |cause: String| InspectError::Layout { path: path.clone(), cause };
    let data = match MapData::from_pin(&path) {
        Ok(data) => data,
        Err(error) => match io_cause(&error) {
            Some(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Some(cause) => return Err(InspectError::Unreadable { path, cause }),
            None => return Err(layout(error.to_string())),
        },
    };
    layout::check_data(name, &data).map_err(|error| layout(error.to_string()))?;
    let limit = data.info().map_err(|error| layout(error.to_string()))?.max_entries();
    let map = Map::from_map_data(data).map_err(|error| layout(error.to_string()))?;
    Ok(Some((map, limit)))
}

fn io_cause(error: &aya::maps::MapError) -> Option<io::Error> {
    use aya::maps::MapError as Aya;
    let error = match error {
        Aya::SyscallError(error) => &error.io_error,
        Aya::PinError { error: PinError::SyscallError(error), .. } => &error.io_error,
        _ => return None,
    };
    error.raw_os_error().map(io::Error::from_raw_os_error)
}

/// `dir` if it has relayd's pins, else the directories below it that have some.
fn pin_dirs(dir: &Path) -> Result<Vec<PathBuf>, InspectError> {
    let mut found = Vec::new();
    collect(dir, DEPTH, &mut found)?;
    found.sort();
    if found.is_empty() { Err(InspectError::Nothing(dir.to_owned())) } else { Ok(found) }
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), InspectError> {
    let unreadable = |cause| InspectError::Unreadable { path: dir.to_owned(), cause };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut below = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        if PINNED.iter().any(|name| entry.file_name() == *name) {
            found.push(dir.to_owned());
            return Ok(());
        }
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below.push(entry.path());
        }
    }
    below.iter().try_for_each(|below| collect(below, depth - 1, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_pinned_is_said_with_the_directory() {
        let dir = tempfile::tempdir().expect("a directory").path().join("not-there");
        let error = dump(&dir, &InspectOptions::default(), &mut Vec::new()).expect_err("nothing there");
        assert!(matches!(&error, InspectError::Nothing(found) if *found == dir));
        assert!(error.to_string().contains("--bpf-dir"), "{error}");
    }

    #[test]
    fn pins_are_found_below_the_directory_named() {
        let place = tempfile::tempdir().expect("a directory");
        let root = place.path();
        let (one, two) = (root.join("v2/1"), root.join("v2/2"));
        for dir in [&one, &two, &root.join("v2/empty")] {
            fs::create_dir_all(dir).expect("a fresh directory");
        }
        fs::write(one.join(map::CONFIG), "").expect("a file");
        fs::write(two.join(map::SESSIONS), "").expect("a file");
        assert_eq!(pin_dirs(root).expect("two"), [one.clone(), two]);
        assert_eq!(pin_dirs(&one).expect("one"), [one]);
    }
}
