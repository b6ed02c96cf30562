//! Finds out whether a daemon keeps the inspected maps and, if not, how old they are.
//!
//! The lock of the pin directory shows this: the kernel releases it when the process ends, for any reason.
//! The heartbeat in the map shows when the daemon last lived; alone it could not distinguish a daemon killed
//! a second ago from a running one.

use std::{
    fs::{File, TryLockError},
    io::{self, Read as _},
    path::Path,
};

use time::OffsetDateTime;

/// The owner of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// A running daemon, with its process id if the lock file names it.
    Runs(Option<u32>),
    /// No daemon: it was killed or crashed. A daemon that stops cleanly removes its maps.
    Gone,
    /// The lock cannot be read.
    Unknown,
}

impl Keeper {
    /// Tests the lock and releases it at once. A daemon that starts on this directory during these few
    /// microseconds would find the lock held, and refuse to start.
    pub(super) fn of(lock: &Path) -> Self {
        let mut file = match File::open(lock) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::Gone,
            Err(_) => return Self::Unknown,
        };
        match file.try_lock_shared() {
            Ok(()) => Self::Gone,
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = file.read_to_string(&mut text);
                Self::Runs(read.ok().and_then(|_| text.trim().parse().ok()))
            }
            Err(TryLockError::Error(_)) => Self::Unknown,
        }
    }

    /// The keeper as a sentence. `heartbeat_ns`, `now_ns`: CLOCK_MONOTONIC; `now`: the same moment as
    /// wall-clock time.
    pub(super) fn sentence(self, heartbeat_ns: Option<u64>, now_ns: u64, now: OffsetDateTime) -> String {
        let age = heartbeat_ns.map(|then| now_ns.saturating_sub(then));
        let seconds = age.map(|age| format!("{}.{} s ago", age / 1_000_000_000, age / 100_000_000 % 10));
        let beat = seconds.map_or_else(|| "no heartbeat here".to_owned(), |ago| format!("heartbeat {ago}"));
        match self {
            Self::Runs(Some(pid)) => format!("runs, process {pid}; {beat}"),
            Self::Runs(None) => format!("runs; {beat}"),
            Self::Unknown => format!("cannot see whether one runs: its lock is not readable; {beat}"),
            Self::Gone => {
                let from =
                    age.and_then(|age| now.checked_sub(time::Duration::nanoseconds(age.cast_signed())));
                let from = from.map_or_else(|| "an unknown time".to_owned(), wall);
                format!("none runs: it was killed or has crashed. This is what it left, of {from}; {beat}")
            }
        }
    }
}

fn wall(then: OffsetDateTime) -> String {
    let (date, hour, minute, second) = (then.date(), then.hour(), then.minute(), then.second());
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 100_000_000_000;

    #[test]
    fn a_held_lock_is_a_daemon_and_a_left_one_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        assert_eq!(Keeper::of(&path), Keeper::Gone, "no file");
        std::fs::write(&path, "4711\n").expect("written");
        assert_eq!(Keeper::of(&path), Keeper::Gone, "left by a killed process");
        let held = File::open(&path).expect("a file");
        held.try_lock().expect("nobody has it");
        assert_eq!(Keeper::of(&path), Keeper::Runs(Some(4711)));
        drop(held);
        assert_eq!(Keeper::of(&path), Keeper::Gone);
    }

    #[test]
    fn the_data_of_a_dead_daemon_is_dated_by_its_heartbeat() {
        let now = OffsetDateTime::from_unix_timestamp(1_700_000_042).expect("a time");
        let gone = Keeper::Gone.sentence(Some(NOW_NS - 42_500_000_000), NOW_NS, now);
        assert!(gone.contains("none runs") && gone.contains("2023-11-14 22:13:19 UTC"), "{gone}");
        assert!(gone.contains("heartbeat 42.5 s ago"), "{gone}");
        assert!(Keeper::Gone.sentence(None, NOW_NS, now).contains("unknown time"));
        let runs = Keeper::Runs(Some(7)).sentence(Some(NOW_NS), NOW_NS, now);
        assert_eq!(runs, "runs, process 7; heartbeat 0.0 s ago");
    }
}
