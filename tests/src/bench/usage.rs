//! Resource use of a process: CPU time to the nanosecond, time in the run queue, and memory.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use nix::time::ClockId;
use nix::unistd::Pid;
use procfs::process::Process;

/// User and system time of a process so far, including threads that have ended.
///
/// # Errors
/// There is no such process.
pub(super) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed())).context("the process is gone")?;
    Ok(Duration::from(clock.now()?))
}

/// CPU time of this process so far.
///
/// # Errors
/// The kernel has no such clock.
pub(super) fn own_cpu() -> anyhow::Result<Duration> {
    Ok(Duration::from(ClockId::CLOCK_PROCESS_CPUTIME_ID.now()?))
}

/// Time in which threads of a process were ready to run but had no core.
///
/// # Errors
/// There is no such process.
pub(super) fn queued(pid: u32) -> anyhow::Result<Duration> {
    let tasks = process(pid)?.tasks().context("the process is gone")?;
    // A thread may end during this loop.
    let waited = tasks.filter_map(|task| task.ok()?.schedstat().ok()).map(|times| times.run_delay);
    Ok(Duration::from_nanos(waited.sum()))
}

/// Resident memory of a process in bytes, summed over its mappings, because the kernel's quick counter may be
/// off by some pages per thread.
///
/// # Errors
/// There is no such process, or this process may not read it.
pub(super) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let maps = process(pid)?.smaps_rollup().context("reading a process's memory")?.memory_map_rollup;
    maps.iter().find_map(|map| map.extension.map.get("Rss").copied()).context("smaps_rollup has no Rss")
}

/// Lets [`peak_bytes`] start anew.
///
/// # Errors
/// There is no such process, or this process may not do that.
pub(super) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    // 5: the highest resident memory becomes the current one.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("forgetting a peak of memory")
}

/// The highest resident memory of a process in bytes since [`forget_peak`].
///
/// # Errors
/// There is no such process.
pub(super) fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let kib = process(pid)?.status().context("reading a process's status")?.vmhwm;
    Ok(kib.context("no peak of memory")? * 1024)
}

fn process(pid: u32) -> anyhow::Result<Process> {
    Process::new(pid.cast_signed()).context("the process is gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_be_measured_from_within_and_without() -> anyhow::Result<()> {
        let before = own_cpu()?;
        while own_cpu()? - before < Duration::from_millis(2) {}
        let seen = cpu(std::process::id())?;
        assert!(seen > before && seen <= own_cpu()?);
        assert!(resident_bytes(std::process::id())? > 100_000);
        forget_peak(std::process::id())?;
        assert!(peak_bytes(std::process::id())? > 100_000);
        Ok(())
    }
}
