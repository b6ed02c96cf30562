//! The clock that kernel and daemon share. The XDP program reads CLOCK_MONOTONIC (`bpf_ktime_get_ns`), so the
//! daemon reads every time for a BPF map here.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC, in nanoseconds since boot (suspend not counted).
///
/// Zero if the kernel refused, which Linux never does for this clock.
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, nanos)
}

/// CLOCK_MONOTONIC, in milliseconds, for checks that are made a few times a second.
pub fn monotonic_ms() -> u64 {
    monotonic_ns() / 1_000_000
}

/// CPU time of the calling thread, in nanoseconds; zero if the kernel refused.
pub fn thread_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0, nanos)
}

fn nanos(time: TimeSpec) -> u64 {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_runs_backwards() {
        let first = monotonic_ns();
        assert!(first > 0);
        assert!(monotonic_ns() >= first);
    }
}
