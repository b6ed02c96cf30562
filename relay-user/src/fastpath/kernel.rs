//! The oldest kernel that runs the program, so that an older one is refused by its version and not by the
//! verifier's words about a helper; and the processors on which it is right.

use super::error::StartError;

/// Linux 5.18 is the first with programs for frames in several pieces (`xdp.frags`) and the helpers
/// `bpf_xdp_get_buff_len` and `bpf_xdp_load_bytes`. All else that is used is older: `bpf_loop` (5.17),
/// `bpf_link` for XDP (5.9), `BPF_MAP_LOOKUP_BATCH` (5.6), arrays that can be mapped (5.5).
pub(super) const OLDEST: Version = Version { major: 5, minor: 18 };

/// Major and minor version of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Refuses a kernel that is too old, and a processor that may load words in another order than the program
/// does: BPF has ordered loads only since Linux 6.15, and LLVM's back end cannot yet be made to use them. A
/// version that cannot be read is left to the kernel's own answers.
pub(super) fn check(iface: &str) -> Result<(), StartError> {
    is_ordered(iface, std::env::consts::ARCH)?;
    let Ok(names) = nix::sys::utsname::uname() else { return Ok(()) };
    judge(iface, &names.release().to_string_lossy())
}

fn is_ordered(iface: &str, machine: &'static str) -> Result<(), StartError> {
    if machine == "x86_64" { Ok(()) } else { Err(StartError::Processor { iface: iface.to_owned(), machine }) }
}

fn judge(iface: &str, release: &str) -> Result<(), StartError> {
    match parse(release) {
        Some(found) if found < OLDEST => Err(StartError::OldKernel {
            iface: iface.to_owned(),
            found: release.to_owned(),
            needed: OLDEST.to_string(),
        }),
        _ => Ok(()),
    }
}

/// The version at the start of a release, such as `6.1.0-13-amd64`.
fn parse(release: &str) -> Option<Version> {
    let mut numbers = release.split(['.', '-', '+', '_', ' ']).map(|part| part.parse().ok());
    Some(Version { major: numbers.next()??, minor: numbers.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_read() {
        for (release, major, minor) in [
            ("6.18.44-fc-v657", 6, 18),
            ("5.18.0", 5, 18),
            ("5.15.0-1051-aws", 5, 15),
            ("6.1-rc3", 6, 1),
            ("6.12+", 6, 12),
            ("10.0.1", 10, 0),
        ] {
            assert_eq!(parse(release), Some(Version { major, minor }), "{release}");
        }
        for release in ["", "6", "six.one", "-6.1"] {
            assert_eq!(parse(release), None, "{release}");
        }
    }

    #[test]
    fn another_processor_is_refused_by_name() {
        assert!(is_ordered("eth0", "x86_64").is_ok());
        let sentence = is_ordered("eth0", "aarch64").expect_err("unordered").to_string();
        assert!(sentence.contains("--xdp eth0") && sentence.contains("aarch64"), "{sentence}");
    }

    #[test]
    fn an_older_kernel_is_refused_with_both_versions() {
        for release in ["5.17.15", "5.15.0-1051-aws", "4.19.0"] {
            let sentence = judge("eth0", release).expect_err("too old").to_string();
            assert!(sentence.contains("--xdp eth0") && sentence.contains(release), "{sentence}");
            assert!(sentence.contains("5.18"), "{sentence}");
        }
        for release in ["5.18.0", "5.19", "6.1.0-13-amd64", "unreadable"] {
            assert!(judge("eth0", release).is_ok(), "{release}");
        }
    }
}
