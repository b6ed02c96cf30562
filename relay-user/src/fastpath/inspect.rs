//! `relayd inspect`: the pinned maps by field name, the daemon running or not, without its help.
//!
//! Reads only, and only maps whose type and sizes are those compiled in ([`layout`]).

pub(super) mod layout;
mod print;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use aya::{
    maps::{Array, HashMap, Map, MapData},
    pin::PinError,
};
use relay_common::fastpath::{Config, SessionEntry, SessionStats, map};

use self::print::Session;
use super::{abi::Abi, counters::Reasons, pins::PINNED, sessions::MapError, sessions::bpf::map_error};
use crate::clock;

/// Levels of directories looked through below the one named: `relayd`, `v<schema>`, `<udp port>`.
const DEPTH: usize = 3;

/// Why nothing, or not everything, could be printed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// No map of relayd's below the directory.
    #[error(
        "no maps of relayd under {}: no relayd runs with --xdp here, it has stopped cleanly, or it was given \
         another --bpf-dir", .0.display()
    )]
    Nothing(PathBuf),
    /// The directory or a map in it may not be read.
    #[error("{}: {cause}; inspect needs the rights relayd was started with (root)", path.display())]
    Unreadable {
        /// What could not be read.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// A map of another version of relayd, or not a map of relayd at all.
    #[error("{}: {cause}; it was pinned by another version of relayd", path.display())]
    Layout {
        /// Its pin.
        path: PathBuf,
        /// How it differs.
        cause: String,
    },
    /// The session asked for is in none of the maps.
    #[error("no session with VNI {vni} in the maps under {}", dir.display())]
    NoSession {
        /// The VNI asked for.
        vni: u32,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A map could not be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The output could not be written.
    #[error("could not write: {0}")]
    Output(#[from] io::Error),
}

/// Prints the maps pinned in `dir`, or, where it has none, those of every directory below it: [`super::ROOT`]
/// prints those of every relayd with the default directory.
pub fn dump(dir: &Path, out: &mut dyn Write) -> Result<(), InspectError> {
    for pins in pin_dirs(dir)? {
        let maps = Maps::open(&pins)?;
        let now_ns = clock::monotonic_ns();
        writeln!(out, "{}", pins.display())?;
        if let Some(config) = &maps.config {
            let Abi(value) =
                config.get(&0, 0).map_err(|error| map_error("read the configuration", &error))?;
            print::config(out, &value, now_ns)?;
        }
        if let Some(reasons) = &maps.reasons {
            print::reasons(out, &reasons.read()?)?;
        }
        if let Some((_, limit)) = &maps.sessions {
            print::sessions(out, &maps.sessions()?, *limit, now_ns)?;
        }
    }
    Ok(())
}

/// Prints one session, found under `dir` as [`dump`] finds maps.
pub fn session(dir: &Path, vni: u32, out: &mut dyn Write) -> Result<(), InspectError> {
    let mut found = false;
    for pins in pin_dirs(dir)? {
        if let Some(session) = Maps::open(&pins)?.session(vni)? {
            writeln!(out, "{}", pins.display())?;
            print::session(out, &session, clock::monotonic_ns())?;
            found = true;
        }
    }
    if found { Ok(()) } else { Err(InspectError::NoSession { vni, dir: dir.to_owned() }) }
}

type Sessions = HashMap<MapData, u32, Abi<SessionEntry>>;

/// What is pinned in one directory: every map checked, those that are absent left out.
struct Maps {
    sessions: Option<(Sessions, u32)>,
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
        let stats = open(dir, map::LEG_STATS)?.map(|(found, _)| Array::try_from(found)).transpose();
        let reasons = open(dir, map::REASONS)?.map(|(found, _)| Reasons::new(found)).transpose();
        let config = open(dir, map::CONFIG)?.map(|(found, _)| Array::try_from(found)).transpose();
        Ok(Self {
            sessions,
            stats: stats.map_err(layout(map::LEG_STATS))?,
            reasons: reasons.map_err(layout(map::REASONS))?,
            config: config.map_err(layout(map::CONFIG))?,
        })
    }

    fn sessions(&self) -> Result<Vec<Session>, InspectError> {
        let Some((map, _)) = &self.sessions else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for item in map.iter() {
            let (vni, Abi(entry)) = item.map_err(|error| map_error("list the sessions", &error))?;
            found.push(Session { vni, entry, stats: self.stats(&entry) });
        }
        found.sort_unstable_by_key(|session| session.vni);
        Ok(found)
    }

    fn session(&self, vni: u32) -> Result<Option<Session>, InspectError> {
        let Some((map, _)) = &self.sessions else { return Ok(None) };
        match map.get(&vni, 0) {
            Ok(Abi(entry)) => Ok(Some(Session { vni, entry, stats: self.stats(&entry) })),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(map_error("read the session", &error).into()),
        }
    }

    fn stats(&self, entry: &SessionEntry) -> Option<SessionStats> {
        let Abi(stats) = self.stats.as_ref()?.get(&entry.stats_slot, 0).ok()?;
        Some(stats)
    }
}

/// Opens and checks a pinned map; `None` if it is not there. With it, how many entries it may hold.
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

/// `dir` if it has pins of relayd's, else those directories below it that have.
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
        let dir = std::env::temp_dir().join("relayd-no-such-directory");
        let error = dump(&dir, &mut Vec::new()).expect_err("nothing there");
        assert!(matches!(&error, InspectError::Nothing(found) if *found == dir));
        assert!(error.to_string().contains("--bpf-dir"), "{error}");
    }

    #[test]
    fn pins_are_found_below_the_directory_named() {
        let root = std::env::temp_dir().join(format!("relayd-inspect-test-{}", std::process::id()));
        let (one, two) = (root.join("v1/1"), root.join("v1/2"));
        for dir in [&one, &two, &root.join("v1/empty")] {
            fs::create_dir_all(dir).expect("a fresh directory");
        }
        fs::write(one.join(map::CONFIG), "").expect("a file");
        fs::write(two.join(map::SESSIONS), "").expect("a file");
        assert_eq!(pin_dirs(&root).expect("two"), [one.clone(), two]);
        assert_eq!(pin_dirs(&one).expect("one"), [one]);
        fs::remove_dir_all(&root).expect("the test's own directory");
    }
}
