//! Open files: raises the limit as far as the system allows, and reserves some files that clients do not get.
//!
//! Each connection is an open file. If clients could take all files, nobody could even ask the daemon what is
//! wrong. So the last files are reserved for the admin socket and for the daemon's own needs.

use std::io;
use std::os::fd::RawFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Number of reserved files, if the limit is large enough.
const RESERVE: u64 = 64;

/// The soft and the hard limit of open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The limit in force.
    pub soft: u64,
    /// The value up to which the process may raise it.
    pub hard: u64,
}

impl Limit {
    /// The limit if the system does not report one: no limit, and an accept fails when files are short.
    pub const UNKNOWN: Self = Self { soft: u64::MAX, hard: u64::MAX };

    /// The limit in force now; `prlimit` can change it from outside.
    ///
    /// # Errors
    /// The system's error; none is expected.
    pub fn get() -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(Self { soft, hard })
    }

    /// Raises the soft limit to the hard one and logs it; returns the limit then in force. If the system
    /// refuses, the daemon serves as many clients as the old limit allows.
    ///
    /// # Errors
    /// The limits cannot be read.
    pub fn raise() -> io::Result<Self> {
        let Self { soft, hard } = Self::get()?;
        if soft < hard
            && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        {
            tracing::warn!(soft, hard, %error, "cannot raise the limit of open files; serving fewer clients");
        }
        let raised = Self::get()?;
        tracing::info!(before = soft, now = raised.soft, clients = raised.for_clients(), "open files");
        Ok(raised)
    }

    /// Number of files that clients may take.
    pub fn for_clients(self) -> u64 {
        self.soft - RESERVE.min(self.soft / 4)
    }

    /// Whether a new descriptor is one of the reserved files. The system gives out the lowest free number, so
    /// the number shows how many files are taken.
    pub fn is_reserved(self, descriptor: RawFd) -> bool {
        u64::try_from(descriptor).is_ok_and(|number| number >= self.for_clients())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_however_few_there_are() {
        for (soft, clients) in [(0, 0), (3, 3), (8, 6), (256, 192), (1024, 960), (1 << 20, (1 << 20) - 64)] {
            let limit = Limit { soft, hard: soft };
            assert_eq!(limit.for_clients(), clients, "of {soft}");
            let number = RawFd::try_from(clients).expect("small");
            assert!(limit.is_reserved(number) && !limit.is_reserved(number - 1), "of {soft}");
        }
    }

    #[test]
    fn an_unlimited_number_of_files_is_no_overflow() {
        assert!(!Limit::UNKNOWN.is_reserved(RawFd::MAX));
    }
}
