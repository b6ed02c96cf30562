//! A `relayd` whose command line, environment and standard error come from the test, for tests of what
//! [`crate::daemon`] would set up itself.

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    admin::Admin,
    client::{Dial, Start, Transport},
    daemon::{DERP_PORT, arguments, binary},
    flags::Flags,
    process::{PATIENCE, Process},
};

/// A started daemon; it ends when the value is dropped.
#[derive(Debug)]
pub struct Bare {
    process: Process,
    admin: Admin,
}

/// A loopback address that no other test uses: its last number differs from those of
/// [`crate::daemon::Setup`].
pub fn address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(129);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high, low, NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// Arguments for a daemon with plain DERP on `ip` and its files in `dir`.
pub fn plain(dir: &Path, ip: IpAddr) -> Vec<OsString> {
    arguments(&Flags::plain(SocketAddr::new(ip, DERP_PORT).to_string(), dir), &socket(dir))
}

/// Arguments for a daemon with TLS on `ip`, and its files in `dir`.
pub fn tls(dir: &Path, ip: IpAddr, hostname: &str) -> Vec<OsString> {
    arguments(&Flags::tls(SocketAddr::new(ip, DERP_PORT).to_string(), dir, hostname), &socket(dir))
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("admin.sock")
}

impl Bare {
    /// Starts a daemon with its admin socket in `dir`, `log` as `RELAYD_LOG` and `stderr` as standard error,
    /// and waits until it answers.
    pub fn start<A: AsRef<OsStr>>(dir: &Path, args: &[A], log: &str, stderr: Stdio) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(args).env("RELAYD_LOG", log);
        let mut process = Process::start_with(command, Stdio::null(), stderr, &dir.join("log"))?;
        let admin = Admin::new(socket(dir));
        process.wait("relayd to answer", PATIENCE, |_| Ok(admin.status().ok()))?;
        Ok(Self { process, admin })
    }

    /// Starts a daemon that logs to the file `log` in `dir`.
    pub fn logging<A: AsRef<OsStr>>(dir: &Path, args: &[A], log: &str) -> Result<Self> {
        let file = fs::File::options().create(true).append(true).open(dir.join("log"))?;
        Self::start(dir, args, log, file.into())
    }

    /// The daemon's admin socket.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Whether the daemon still runs.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// Asks the daemon to stop and waits for it; returns whether it ended with success.
    pub fn stop(mut self) -> Result<bool> {
        Ok(self.process.stop()?.success())
    }
}

/// How to connect to a daemon with plain DERP.
pub fn dial(ip: IpAddr) -> Dial {
    Dial { addr: SocketAddr::new(ip, DERP_PORT), transport: Transport::Plain, start: Start::Normal }
}

/// Runs a daemon that must end by itself with an error; returns its standard error.
pub fn refused<A: AsRef<OsStr>>(args: &[A], log: Option<&str>) -> Result<String> {
    let mut command = Command::new(binary()?);
    command.args(args).env_remove("RELAYD_LOG").envs(log.map(|log| ("RELAYD_LOG", log)));
    refused_command(command)
}

/// As [`refused`], for a whole command.
pub fn refused_command(command: Command) -> Result<String> {
    let said = tempfile::NamedTempFile::new()?;
    let mut process = Process::start_with(command, Stdio::null(), said.reopen()?.into(), said.path())?;
    let ended = process.wait_for_end().with_context(|| process.log())?;
    let said = process.log();
    ensure!(!ended.success(), "not refused: {said}");
    ensure!(!said.contains("panicked"), "{said}");
    Ok(said)
}
