//! Decides which connections are admitted. Connections that have not logged in are limited, in total and per
//! source, so that connections that never log in cannot keep out those that will.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::Limit;
use crate::observe::counters::{Counter, Counters};
use crate::observe::seldom::Seldom;

/// Most connections that may wait for their login, even if the file limit allows more: each may hold the
/// buffers of a TLS handshake.
const MOST_PENDING: u64 = 16_384;

/// The limits of connections that have not logged in; 0: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// `--max-pending-logins`.
    pub pending: usize,
    /// `--max-pending-per-ip`; an IPv6 /64 counts as one address.
    pub per_source: usize,
}

/// Why a connection is closed as soon as it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(usize)]
pub enum DoorRefusal {
    /// Only reserved files are left.
    #[error("no open files are left for clients; raise the limit (LimitNOFILE= of the service, ulimit -n)")]
    Files,
    /// `--max-pending-logins` is reached.
    #[error("too many connections have not logged in yet (--max-pending-logins)")]
    Pending,
    /// `--max-pending-per-ip` is reached.
    #[error("too many connections from one address have not logged in yet (--max-pending-per-ip)")]
    PerSource,
}

/// The door of all listeners.
#[derive(Debug)]
pub struct Door {
    caps: Caps,
    waiting: Mutex<Waiting>,
    told: [Seldom; 3],
}

#[derive(Debug, Default)]
struct Waiting {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// The place of a connection that has not logged in. It is dropped at the login, or when the connection ends.
#[derive(Debug)]
pub struct PendingPlace {
    door: Arc<Door>,
    source: IpAddr,
}

impl Caps {
    /// The default of `--max-pending-logins`: a quarter of the files, and at most what memory allows.
    pub fn default_pending(limit: Limit) -> usize {
        usize::try_from((limit.soft / 4).clamp(1, MOST_PENDING)).unwrap_or(usize::MAX)
    }
}

impl DoorRefusal {
    /// The counter of this refusal.
    pub const fn counter(self) -> Counter {
        match self {
            Self::Files => Counter::RefusedFiles,
            Self::Pending => Counter::RefusedPending,
            Self::PerSource => Counter::RefusedPerSource,
        }
    }
}

impl Door {
    /// A door without waiting connections.
    pub fn new(caps: Caps) -> Self {
        Self { caps, waiting: Mutex::default(), told: Default::default() }
    }

    /// Gives a new connection its place. `descriptor` is its file; `limit` is the limit of open files.
    ///
    /// # Errors
    /// The reason why the connection must be closed.
    pub fn admit(
        self: &Arc<Self>,
        descriptor: RawFd,
        limit: Limit,
        remote: IpAddr,
    ) -> Result<PendingPlace, DoorRefusal> {
        if limit.is_reserved(descriptor) {
            return Err(DoorRefusal::Files);
        }
        let source = source(remote);
        let mut waiting = self.lock();
        if self.caps.pending != 0 && waiting.all >= self.caps.pending {
            return Err(DoorRefusal::Pending);
        }
        let here = waiting.by_source.get(&source).copied().unwrap_or(0);
        if self.caps.per_source != 0 && here >= self.caps.per_source {
            return Err(DoorRefusal::PerSource);
        }
        waiting.by_source.insert(source, here + 1);
        waiting.all += 1;
        Ok(PendingPlace { door: Arc::clone(self), source })
    }

    /// Counts a refusal, and logs it from time to time.
    pub fn tell(&self, refusal: DoorRefusal, remote: IpAddr, counters: &Counters, now_ms: u64) {
        counters.add(refusal.counter(), 1);
        if let Some(left_out) = self.told[refusal as usize].note(now_ms) {
            tracing::warn!(%remote, left_out, "connection refused: {refusal}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The numbers are changed together, so a panic cannot leave them half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PendingPlace {
    fn drop(&mut self) {
        let mut waiting = self.door.lock();
        waiting.all -= 1;
        if let Some(here) = waiting.by_source.get_mut(&self.source) {
            *here -= 1;
            if *here == 0 {
                waiting.by_source.remove(&self.source);
            }
        }
    }
}

/// The source of a connection: an IPv4 address, or the /64 that belongs to one IPv6 host.
fn source(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Limit = Limit { soft: 1024, hard: 1024 };

    fn door(pending: usize, per_source: usize) -> Arc<Door> {
        Arc::new(Door::new(Caps { pending, per_source }))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn a_source_gets_its_share_and_no_more_until_one_leaves() {
        let door = door(10, 2);
        let admit = |from: &str| door.admit(5, PLENTY, ip(from));
        let (first, second) =
            (admit("192.0.2.1").expect("first"), admit("::ffff:192.0.2.1").expect("second"));
        assert_eq!(admit("192.0.2.1").expect_err("full"), DoorRefusal::PerSource);
        let other = admit("192.0.2.2").expect("another source");
        drop(first);
        let third = admit("192.0.2.1").expect("a place is free");
        drop((second, third, other));
        let waiting = door.lock();
        assert_eq!((waiting.all, waiting.by_source.len()), (0, 0), "nothing is remembered");
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let door = door(10, 1);
        let _place = door.admit(5, PLENTY, ip("2001:db8::1")).expect("first");
        assert_eq!(
            door.admit(5, PLENTY, ip("2001:db8::ffff:1")).expect_err("same /64"),
            DoorRefusal::PerSource
        );
        assert!(door.admit(5, PLENTY, ip("2001:db8:0:1::1")).is_ok(), "next /64");
    }

    #[test]
    fn all_together_are_limited_too() {
        let door = door(2, 0);
        let _places = [1, 2].map(|n: u8| door.admit(5, PLENTY, [192, 0, 2, n].into()).expect("room"));
        assert_eq!(door.admit(5, PLENTY, ip("192.0.2.3")).expect_err("full"), DoorRefusal::Pending);
    }

    #[test]
    fn zero_is_no_limit_except_that_of_the_files() {
        let door = door(0, 0);
        let places: Vec<_> = (0..1000).filter_map(|_| door.admit(5, PLENTY, ip("192.0.2.1")).ok()).collect();
        assert_eq!(places.len(), 1000);
        assert_eq!(door.admit(960, PLENTY, ip("192.0.2.1")).expect_err("reserved"), DoorRefusal::Files);
    }

    #[test]
    fn the_default_is_a_share_of_the_files() {
        for (soft, pending) in [(0, 1), (256, 64), (1024, 256), (1 << 20, 16_384), (u64::MAX, 16_384)] {
            assert_eq!(Caps::default_pending(Limit { soft, hard: soft }), pending, "of {soft}");
        }
    }

    #[test]
    fn refusals_are_counted_by_their_reason() {
        let (door, counters) = (door(1, 1), Counters::default());
        for refusal in [DoorRefusal::Files, DoorRefusal::Pending, DoorRefusal::PerSource] {
            door.tell(refusal, ip("192.0.2.1"), &counters, 0);
            door.tell(refusal, ip("192.0.2.1"), &counters, 1);
            assert_eq!(counters.get(refusal.counter()), 2);
        }
    }
}
