//! May this process load and attach an XDP program? Asked before trying, because the kernel's own answer to a
//! process without rights comes late and from whichever operation happens to be first.
//!
//! `CAP_BPF` loads programs and maps, `CAP_PERFMON` lets a program compare pointers as compiled Rust does
//! (the verifier otherwise stops at "pointer comparison prohibited"), `CAP_NET_ADMIN` attaches to interfaces.
//! `CAP_SYS_ADMIN` includes the first two (capabilities(7), Linux 5.8 and newer).

use super::error::StartError;

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// Refuses with what is missing. Where the capabilities cannot be read, the kernel's answer will have to do.
pub(super) fn check(iface: &str) -> Result<(), StartError> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match effective(&status).and_then(missing) {
        Some(missing) => Err(StartError::Permission {
            iface: iface.to_owned(),
            cause: format!("this process lacks {missing}"),
        }),
        None => Ok(()),
    }
}

fn effective(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn missing(effective: u64) -> Option<String> {
    let needed = [
        ("CAP_BPF", CAP_BPF | CAP_SYS_ADMIN),
        ("CAP_PERFMON", CAP_PERFMON | CAP_SYS_ADMIN),
        ("CAP_NET_ADMIN", CAP_NET_ADMIN),
    ];
    let lacking: Vec<&str> =
        needed.iter().filter(|(_, any)| effective & any == 0).map(|(name, _)| *name).collect();
    if lacking.is_empty() { None } else { Some(lacking.join(" and ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_user_lacks_all_and_root_nothing() {
        let status = "Name:\trelayd\nCapEff:\t0000000000000000\n";
        let all = "CAP_BPF and CAP_PERFMON and CAP_NET_ADMIN";
        assert_eq!(effective(status).and_then(missing).as_deref(), Some(all));
        assert_eq!(effective("CapEff:\t000001ffffffffff\n").and_then(missing), None);
        assert_eq!(effective("nothing of the kind"), None);
    }

    #[test]
    fn each_capability_is_missed_by_name() {
        assert_eq!(missing(CAP_NET_ADMIN | CAP_BPF | CAP_PERFMON), None);
        assert_eq!(missing(CAP_NET_ADMIN | CAP_SYS_ADMIN), None);
        assert_eq!(missing(CAP_NET_ADMIN | CAP_BPF).as_deref(), Some("CAP_PERFMON"));
        assert_eq!(missing(CAP_NET_ADMIN | CAP_PERFMON).as_deref(), Some("CAP_BPF"));
        assert_eq!(missing(CAP_SYS_ADMIN).as_deref(), Some("CAP_NET_ADMIN"));
    }
}
