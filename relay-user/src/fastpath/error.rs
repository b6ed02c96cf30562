//! Why the fast path could not start. Each variant is one sentence with the flag, the cause and the remedy.
//!
//! If XDP was requested but cannot be used, the daemon exits with this sentence; it never runs slower in
//! silence.

use std::{io, path::PathBuf};

use nix::errno::Errno;

use super::Mode;

/// Why [`super::FastPath::start`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The daemon was compiled without the eBPF object.
    #[error(
        "--xdp {iface}: this relayd was built without the XDP program; build it with `cargo xtask build` \
         (`cargo xtask setup` installs what that needs), or leave --xdp out"
    )]
    NotBuiltIn {
        /// The interface asked for.
        iface: String,
    },
    /// The process may not load or attach BPF programs.
    #[error(
        "--xdp {iface}: {cause}; run relayd as root or with CAP_BPF, CAP_PERFMON \
         and CAP_NET_ADMIN, or leave --xdp out"
    )]
    Permission {
        /// The interface asked for.
        iface: String,
        /// The missing right.
        cause: String,
    },
    /// The kernel has no BPF.
    #[error("--xdp {iface}: this kernel was built without BPF; leave --xdp out")]
    NoBpf {
        /// The interface asked for.
        iface: String,
    },
    /// The kernel is too old for the program.
    #[error(
        "--xdp {iface}: this is Linux {found}, and the XDP program needs {needed} or newer; use a newer kernel, \
         or leave --xdp out"
    )]
    OldKernel {
        /// The interface asked for.
        iface: String,
        /// The kernel's release.
        found: String,
        /// The oldest version that will do.
        needed: String,
    },
    /// The processor does not keep the order of loads that the program needs.
    #[error(
        "--xdp {iface}: the XDP program tells a session's entry from one that the kernel has meanwhile given to \
         another session by the order in which it reads, which only x86-64 processors keep, and this one is \
         {machine}; leave --xdp out"
    )]
    Processor {
        /// The interface asked for.
        iface: String,
        /// The processor.
        machine: &'static str,
    },
    /// Another interface takes all packets of this one.
    #[error(
        "--xdp {iface}: {iface} is a member of the {of} {master}, so the host's packets come and go by {master} \
         and the program would forward none; use --xdp {master} --xdp-mode generic"
    )]
    Member {
        /// The interface asked for.
        iface: String,
        /// What kind of interface takes its packets.
        of: &'static str,
        /// That interface.
        master: String,
    },
    /// A native program on a bond runs on its members.
    #[error(
        "--xdp {iface} --xdp-mode native: {iface} is a bond, and in native mode the program sees its members, \
         to which no route leads, and would forward nothing; use --xdp-mode generic"
    )]
    NativeBond {
        /// The interface asked for.
        iface: String,
    },
    /// The kernel merges packets before the program sees them.
    #[error(
        "--xdp {iface} --xdp-mode generic: the kernel merges packets of {iface} before a generic program sees \
         them, and the program would send several datagrams as one; turn that off (`ethtool -K {iface} gro \
         off`), or use --xdp-mode native"
    )]
    Merges {
        /// The interface asked for.
        iface: String,
    },
    /// This network namespace has no such interface.
    #[error(
        "--xdp {iface}: there is no such interface in this network namespace; there are: {}",
        existing.join(", ")
    )]
    NoInterface {
        /// The interface asked for.
        iface: String,
        /// The existing interfaces.
        existing: Vec<String>,
    },
    /// The driver does not support XDP in this mode.
    #[error(
        "--xdp {iface} --xdp-mode {mode}: the driver of {iface} does not support XDP in this mode \
         (EOPNOTSUPP); {}",
        match mode {
            Mode::Native => "use --xdp-mode generic, or leave --xdp out",
            Mode::Generic => "leave --xdp out, or name another interface",
        }
    )]
    ModeNotSupported {
        /// The interface asked for.
        iface: String,
        /// The mode asked for.
        mode: Mode,
    },
    /// Frames may be larger than the driver can hand to XDP.
    #[error(
        "--xdp {iface} --xdp-mode {mode}: the MTU of {iface}{}, or of the other end of a veth pair, is too large \
         for XDP (ERANGE); lower it (`ip link set dev {iface} mtu 1500`), or use --xdp-mode generic",
        mtu.map_or_else(String::new, |mtu| format!(" ({mtu})"))
    )]
    MtuTooLarge {
        /// The interface asked for.
        iface: String,
        /// The mode asked for.
        mode: Mode,
        /// The interface's MTU, in bytes, if the kernel says.
        mtu: Option<u32>,
    },
    /// The driver has no queues left for XDP to send on.
    #[error(
        "--xdp {iface} --xdp-mode {mode}: {iface} has too few queues for XDP (ENOSPC): a NIC needs \
         free ones to send on, a veth as many as the other end sends on; change them with `ethtool -L`, or \
         use --xdp-mode generic"
    )]
    TooFewQueues {
        /// The interface asked for.
        iface: String,
        /// The mode asked for.
        mode: Mode,
    },
    /// The interface already runs an XDP program.
    #[error(
        "--xdp {iface}: {by} is attached to {iface} already; stop the program that attached it, or, if \
         none is left, `ip link set dev {iface} xdp off`"
    )]
    Occupied {
        /// The interface asked for.
        iface: String,
        /// Name, id and mode of the attached program, as far as the kernel reports them.
        by: String,
    },
    /// The kernel refused to attach for another reason.
    #[error("--xdp {iface} --xdp-mode {mode}: could not attach to {iface}: {cause}; `dmesg` may say more")]
    Attach {
        /// The interface asked for.
        iface: String,
        /// The mode asked for.
        mode: Mode,
        /// The kernel's answer.
        cause: String,
    },
    /// The attachment is not a `bpf_link`, so it would outlive a killed daemon.
    #[error(
        "--xdp {iface}: this kernel attaches XDP programs only without a bpf_link (Linux 5.9 or newer has \
         them); leave --xdp out"
    )]
    NoLink {
        /// The interface asked for.
        iface: String,
    },
    /// Another daemon uses the directory.
    #[error(
        "--bpf-dir {}: another relayd uses it{} (lock file {}); stop that one, or give this one \
         another --bpf-dir",
        dir.display(), pid.map_or_else(String::new, |pid| format!(", process {pid}")), lock.display()
    )]
    Locked {
        /// The directory of the pins.
        dir: PathBuf,
        /// The process that holds the lock, if the lock file names it.
        pid: Option<u32>,
        /// The lock file.
        lock: PathBuf,
    },
    /// The lock file could not be made or locked.
    #[error(
        "--bpf-dir {}: cannot lock it: {cause}; the lock file's directory must be this user's own and writable",
        dir.display()
    )]
    Lock {
        /// The directory of the pins.
        dir: PathBuf,
        /// The failure and the remedy.
        cause: io::Error,
    },
    /// The directory or a pin could not be made.
    #[error(
        "--bpf-dir {}: could not {doing}: {cause}; name a writable directory of a BPF file system",
        dir.display()
    )]
    Directory {
        /// The directory of the pins.
        dir: PathBuf,
        /// The step that failed.
        doing: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The embedded object does not belong to this daemon.
    #[error(
        "the embedded XDP program does not fit this relayd: {cause}; rebuild both with `cargo xtask build`"
    )]
    Object {
        /// The part that does not fit.
        cause: String,
    },
    /// The kernel's verifier refused the program.
    #[error(
        "--xdp {iface}: this kernel refuses the XDP program, please report it: {cause}; until then leave \
         --xdp out"
    )]
    Rejected {
        /// The interface asked for.
        iface: String,
        /// The kernel's answer, and the end of the verifier's log.
        cause: String,
    },
}

impl StartError {
    /// Translates the errno of a failed `bpf_link_create` for the operator. `by` and `mtu` are called only
    /// when their results are needed.
    pub(super) fn from_attach(
        iface: &str,
        mode: Mode,
        errno: Errno,
        by: impl FnOnce() -> String,
        mtu: impl FnOnce() -> Option<u32>,
    ) -> Self {
        let iface = iface.to_owned();
        match errno {
            Errno::EOPNOTSUPP => Self::ModeNotSupported { iface, mode },
            Errno::ERANGE => Self::MtuTooLarge { iface, mode, mtu: mtu() },
            Errno::ENOSPC => Self::TooFewQueues { iface, mode },
            // EBUSY: a link in the same mode. EEXIST: a program in the other mode.
            Errno::EBUSY | Errno::EEXIST => Self::Occupied { iface, by: by() },
            Errno::EPERM | Errno::EACCES => {
                Self::Permission { iface, cause: format!("the kernel answered {errno}") }
            }
            Errno::ENOSYS => Self::NoBpf { iface },
            errno => Self::Attach { iface, mode, cause: errno.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attach(mode: Mode, errno: Errno) -> String {
        let by = || "program \"other\" (id 7, native mode)".to_owned();
        StartError::from_attach("eth0", mode, errno, by, || Some(65_535)).to_string()
    }

    #[test]
    fn every_attach_failure_names_flag_cause_and_remedy() {
        for (errno, cause, remedy) in [
            (Errno::EOPNOTSUPP, "does not support XDP in this mode", "--xdp-mode generic"),
            (Errno::ERANGE, "MTU of eth0 (65535)", "mtu 1500"),
            (Errno::ENOSPC, "too few queues", "ethtool -L"),
            (Errno::EBUSY, "program \"other\" (id 7, native mode)", "ip link set dev eth0 xdp off"),
            (Errno::EEXIST, "attached to eth0 already", "stop the program"),
            (Errno::EPERM, "EPERM", "CAP_BPF"),
            (Errno::EIO, "EIO", "dmesg"),
        ] {
            let sentence = attach(Mode::Native, errno);
            assert!(sentence.starts_with("--xdp eth0"), "{sentence}");
            assert!(sentence.contains(cause), "{sentence}");
            assert!(sentence.contains(remedy), "{sentence}");
            assert!(!sentence.contains("  "), "{sentence}");
        }
    }

    #[test]
    fn generic_mode_is_not_the_remedy_for_itself() {
        assert!(!attach(Mode::Generic, Errno::EOPNOTSUPP).contains("use --xdp-mode generic"));
    }

    #[test]
    fn an_interface_whose_packets_another_takes_is_refused_with_that_one() {
        let iface = "eth0".to_owned();
        let error = StartError::Member { iface: iface.clone(), of: "bridge", master: "br0".to_owned() };
        for (error, remedy) in [
            (error, "--xdp br0 --xdp-mode generic"),
            (StartError::NativeBond { iface: iface.clone() }, "use --xdp-mode generic"),
            (StartError::Merges { iface }, "`ethtool -K eth0 gro off`"),
        ] {
            let sentence = error.to_string();
            assert!(sentence.starts_with("--xdp eth0") && sentence.contains(remedy), "{sentence}");
            assert!(!sentence.contains("  "), "{sentence}");
        }
    }

    #[test]
    fn a_missing_interface_lists_the_existing_ones() {
        let existing = vec!["lo".to_owned(), "eth0".to_owned()];
        let sentence = StartError::NoInterface { iface: "eth9".to_owned(), existing }.to_string();
        assert!(sentence.contains("eth9") && sentence.contains("lo, eth0"), "{sentence}");
    }

    #[test]
    fn a_locked_directory_names_the_process() {
        let (dir, lock) = (PathBuf::from("/sys/fs/bpf/x"), PathBuf::from("/run/relayd/x.lock"));
        let sentence = StartError::Locked { dir, pid: Some(42), lock }.to_string();
        assert!(sentence.contains("process 42") && sentence.contains("/run/relayd/x.lock"), "{sentence}");
    }
}
