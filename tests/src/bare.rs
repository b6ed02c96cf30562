//! A `relayd` whose command line, environment and standard error come from the test, for tests of what
//! [`crate::daemon`] would set up itself.

use std::{
    ffi::OsStr,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    admin::Admin,
    client::{Dial, Start, Transport},
    daemon::{binary, until},
};

/// Maximum wait; a daemon that refuses its command line ends much earlier.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time between two polls.
const POLL: Duration = Duration::from_millis(5);
/// TCP port of DERP.
pub const DERP_PORT: u16 = 8443;

/// A started daemon; dropping the value kills it.
#[derive(Debug)]
pub struct Bare {
    child: Child,
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
pub fn plain(dir: &Path, ip: IpAddr) -> Vec<String> {
    let addr = SocketAddr::new(ip, DERP_PORT).to_string();
    [vec!["-dev".to_owned(), "-a".to_owned(), addr, "-stun-port=0".to_owned()], files(dir)].concat()
}

/// Arguments for a daemon with TLS on `ip`, with any ports, and its files in `dir`.
pub fn tls(dir: &Path, ip: IpAddr, hostname: &str) -> Vec<String> {
    let addr = SocketAddr::new(ip, DERP_PORT).to_string();
    let words = ["-certmode", "manual", "-http-port=-1", "-hostname", hostname, "-a", &addr, "-certdir"];
    let words = words.iter().map(|word| word.to_string());
    words.chain([dir.display().to_string()]).chain(files(dir)).collect()
}

fn files(dir: &Path) -> Vec<String> {
    let path = |name: &str| dir.join(name).display().to_string();
    vec!["-c".to_owned(), path("derper.key"), "--admin-socket".to_owned(), path("admin.sock")]
}

impl Bare {
    /// Starts a daemon with its admin socket in `dir`, `log` as `RELAYD_LOG` and `stderr` as standard error,
    /// and waits until it answers.
    pub fn start<A: AsRef<OsStr>>(dir: &Path, args: &[A], log: &str, stderr: Stdio) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(args).env("RELAYD_LOG", log).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().context("cannot start relayd")?;
        let mut daemon = Self { child, admin: Admin::new(dir.join("admin.sock")) };
        until("the daemon to answer", || {
            ensure!(daemon.child.try_wait()?.is_none(), "relayd ended at start");
            Ok(daemon.admin.status().is_ok())
        })?;
        Ok(daemon)
    }

    /// Starts a daemon with plain DERP that logs to the file `log` in `dir`.
    pub fn logging<A: AsRef<OsStr>>(dir: &Path, args: &[A], log: &str) -> Result<Self> {
        let file = fs::File::options().create(true).append(true).open(dir.join("log"))?;
        Self::start(dir, args, log, file.into())
            .with_context(|| fs::read_to_string(dir.join("log")).unwrap_or_default())
    }

    /// The daemon's admin socket.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Whether the daemon still runs.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Asks the daemon to stop and waits for it; returns whether it ended with success.
    pub fn stop(mut self) -> Result<bool> {
        let done = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(done.success(), "cannot signal the daemon");
        Ok(wait(&mut self.child)?.success())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // The daemon may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How to connect to a daemon with plain DERP.
pub fn dial(ip: IpAddr) -> Dial {
    Dial { addr: SocketAddr::new(ip, DERP_PORT), transport: Transport::Plain, start: Start::Normal }
}

/// Runs a daemon that must end by itself with an error; returns its standard error.
pub fn refused<A: AsRef<OsStr>>(args: &[A], log: Option<&str>) -> Result<String> {
    let mut command = Command::new(binary()?);
    command
        .args(args)
        .env_remove("RELAYD_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.envs(log.map(|log| ("RELAYD_LOG", log)));
    let mut child = command.spawn().context("cannot start relayd")?;
    let ended = wait(&mut child).inspect_err(|_| {
        // The daemon serves, although it should refuse.
        let _ = child.kill();
    });
    let said = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(!ended.with_context(|| said.clone())?.success(), "not refused: {said}");
    ensure!(!said.contains("panicked"), "{said}");
    Ok(said)
}

fn wait(child: &mut Child) -> Result<std::process::ExitStatus> {
    let end = Instant::now() + PATIENCE;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(status),
            None if Instant::now() > end => bail!("relayd does not end"),
            None => thread::sleep(POLL),
        }
    }
}
