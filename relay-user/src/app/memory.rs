//! How much memory the daemon may use on this machine.

use std::fs;

/// The queues for slow clients may take this fraction of the memory.
const QUEUE_SHARE: u64 = 8;

/// Bytes for the queues at least, however little memory there is.
const LEAST_QUEUE: u64 = 16 << 20;

/// The file in which cgroups of version 2 give a container's memory limit.
const CGROUP_LIMIT: &str = "/sys/fs/cgroup/memory.max";

/// Bytes that may wait for all clients together, unless the operator sets another limit: an eighth of the
/// memory of the machine, or of the container.
pub(super) fn queue_default() -> u64 {
    let machine = nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total());
    let container = fs::read_to_string(CGROUP_LIMIT).ok();
    queue_share(machine, container.as_deref())
}

fn queue_share(machine: u64, container: Option<&str>) -> u64 {
    // Without a limit the file contains `max`.
    let container = container.and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    (machine.min(container) / QUEUE_SHARE).max(LEAST_QUEUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_machine_and_container_counts() {
        assert_eq!(queue_share(8 << 30, None), 1 << 30);
        assert_eq!(queue_share(8 << 30, Some("max\n")), 1 << 30);
        assert_eq!(queue_share(8 << 30, Some("1073741824\n")), 128 << 20);
        assert_eq!(queue_share(0, Some("1")), LEAST_QUEUE);
    }
}
