//! Checks whether this process may load and attach an XDP program. This is checked before trying, because the
//! kernel's own error comes late and from whichever operation happens to be first.
//!
//! `CAP_BPF` loads programs and maps, `CAP_PERFMON` lets a program compare pointers as compiled Rust does
//! (the verifier otherwise stops at "pointer comparison prohibited"), `CAP_NET_ADMIN` attaches to interfaces.
//! `CAP_SYS_ADMIN` includes the first two (capabilities(7), Linux 5.8 and newer).

use caps::{CapSet, Capability};

use super::error::StartError;

/// Returns an error that names the missing rights. If the capabilities cannot be read, the kernel's own error
/// must do.
pub(super) fn check(iface: &str) -> Result<(), StartError> {
    let effective = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(true);
    match missing(effective) {
        Some(missing) => Err(StartError::Permission {
            iface: iface.to_owned(),
            cause: format!("this process lacks {missing}"),
        }),
        None => Ok(()),
    }
}

fn missing(has: impl Fn(Capability) -> bool) -> Option<String> {
    let needed = [
        (Capability::CAP_BPF, has(Capability::CAP_SYS_ADMIN)),
        (Capability::CAP_PERFMON, has(Capability::CAP_SYS_ADMIN)),
        (Capability::CAP_NET_ADMIN, false),
    ];
    let lacking = needed.into_iter().filter(|(capability, other)| !other && !has(*capability));
    let lacking: Vec<String> = lacking.map(|(capability, _)| capability.to_string()).collect();
    if lacking.is_empty() { None } else { Some(lacking.join(" and ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_capability_is_missed_by_name() {
        use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN};
        let with = |held: &[Capability]| missing(|capability| held.contains(&capability));
        assert_eq!(with(&[CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON]), None);
        assert_eq!(with(&[CAP_NET_ADMIN, CAP_SYS_ADMIN]), None);
        assert_eq!(with(&[CAP_NET_ADMIN, CAP_BPF]).as_deref(), Some("CAP_PERFMON"));
        assert_eq!(with(&[CAP_NET_ADMIN, CAP_PERFMON]).as_deref(), Some("CAP_BPF"));
        assert_eq!(with(&[CAP_SYS_ADMIN]).as_deref(), Some("CAP_NET_ADMIN"));
        assert_eq!(with(&[]).as_deref(), Some("CAP_BPF and CAP_PERFMON and CAP_NET_ADMIN"));
    }
}
