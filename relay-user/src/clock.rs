//! The daemon's clock: CLOCK_MONOTONIC, which is also what the XDP program reads.

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn monotonic_ns() -> u64 {
    // Cannot fail: the clock exists on every Linux, and the address is the library's own.
    let Ok(now) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) else { return 0 };
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Milliseconds of CLOCK_MONOTONIC.
pub fn monotonic_ms() -> u64 {
    monotonic_ns() / 1_000_000
}
