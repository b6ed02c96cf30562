//! May this process load and attach an XDP program? Asked before trying, because the kernel's own answer to a process
//! without rights comes late and from whichever operation happens to be first.
//!
//! `CAP_BPF` loads programs and maps, `CAP_NET_ADMIN` attaches to interfaces (capabilities(7), Linux 5.8 and newer);
//! `CAP_SYS_ADMIN` includes `CAP_BPF`.

use super::error::StartError;

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
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

fn missing(effective: u64) -> Option<&'static str> {
    let bpf = effective & (CAP_BPF | CAP_SYS_ADMIN) != 0;
    let net = effective & CAP_NET_ADMIN != 0;
    match (bpf, net) {
        (true, true) => None,
        (false, true) => Some("CAP_BPF"),
        (true, false) => Some("CAP_NET_ADMIN"),
        (false, false) => Some("CAP_BPF and CAP_NET_ADMIN"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_user_lacks_both_and_root_neither() {
        assert_eq!(
            effective("Name:\trelayd\nCapEff:\t0000000000000000\n").and_then(missing),
            Some("CAP_BPF and CAP_NET_ADMIN")
        );
        assert_eq!(effective("CapEff:\t000001ffffffffff\n").and_then(missing), None);
        assert_eq!(missing(CAP_NET_ADMIN | CAP_BPF), None);
        assert_eq!(missing(CAP_NET_ADMIN), Some("CAP_BPF"));
        assert_eq!(missing(CAP_SYS_ADMIN), Some("CAP_NET_ADMIN"));
        assert_eq!(effective("nothing of the kind"), None);
    }
}
