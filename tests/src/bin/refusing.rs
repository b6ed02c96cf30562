//! Runs a program and makes the kernel refuse one of its system calls: `refusing CALL PROGRAM [ARGUMENT…]`.
//!
//! For failures that a test machine does not have by itself: no IPv6 in the kernel, sockets that do not work.
#![forbid(unsafe_code)]

use std::{collections::BTreeMap, env, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

fn main() -> Result<()> {
    let mut args = env::args_os().skip(1);
    let call = args.next().context("CALL is missing")?;
    let program = args.next().context("PROGRAM is missing")?;
    let (number, rules, error) = match call.to_str() {
        // Like a kernel that was built or booted without IPv6.
        Some("ipv6") => {
            let family = libc::AF_INET6.try_into()?;
            let is_ipv6 = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)?;
            (libc::SYS_socket, vec![SeccompRule::new(vec![is_ipv6])?], libc::EAFNOSUPPORT)
        }
        Some("recvmmsg") => (libc::SYS_recvmmsg, vec![], libc::ENOBUFS),
        Some("sendmmsg") => (libc::SYS_sendmmsg, vec![], libc::EPERM),
        _ => bail!("no such CALL: {}; there are ipv6, recvmmsg, sendmmsg", call.display()),
    };
    let refused = SeccompAction::Errno(error.try_into()?);
    let rules = BTreeMap::from([(number, rules)]);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, env::consts::ARCH.try_into()?)?;
    apply_filter(&BpfProgram::try_from(filter)?)?;
    Err(Command::new(&program).args(args).exec()).with_context(|| format!("starting {}", program.display()))
}
