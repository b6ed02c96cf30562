//! A process that only holds the fast path, for tests that kill such a process: `fastpath-holder IFACE
//! BPF_DIR`.
//!
//! It starts the fast path in its network namespace, prints `ready`, and stops cleanly when its standard
//! input ends.
#![forbid(unsafe_code)]

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use relay_user::fastpath::{FastPath, Mode, XdpOptions};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let iface = args.next().and_then(|arg| arg.into_string().ok()).context("IFACE is missing")?;
    let bpf_dir = Some(PathBuf::from(args.next().context("BPF_DIR is missing")?));
    let options = XdpOptions {
        iface,
        mode: Mode::Native,
        bpf_dir,
        max_sessions: 16,
        udp_port: 3478,
        any_ingress: false,
    };
    let fast_path = FastPath::start(&options)?;
    writeln!(std::io::stdout(), "ready")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    fast_path.stop();
    Ok(())
}
