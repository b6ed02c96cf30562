//! A `relayd` with a command line, an environment and a standard error of the test's own: for what
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

/// A daemon that refuses its command line ends well before.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at what cannot be waited for.
const POLL: Duration = Duration::from_millis(5);
/// TCP port of DERP.
pub const DERP_PORT: u16 = 8443;

/// A started daemon, killed with the value.
#[derive(Debug)]
pub struct Bare {
    child: Child,
    admin: Admin,
}

/// A loopback address that no other test uses: the last number sets it apart from those of
/// [`crate::daemon::Setup`].
pub fn address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(129);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high, low, NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// Arguments for a daemon with plain DERP at `ip` and its files in `dir`.
pub fn plain(dir: &Path, ip: IpAddr) -> Vec<String> {
    let addr = SocketAddr::new(ip, DERP_PORT).to_string();
    [vec!["-dev".to_owned(), "-a".to_owned(), addr, "-stun-port=0".to_owned()], files(dir)].concat()
}

/// Arguments for a daemon with TLS at `ip`, any ports, and its files in `dir`.
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
    /// Starts a daemon whose admin socket is `dir`'s, with `log` as its `RELAYD_LOG` and `stderr` as its
    /// standard error, and waits until it answers.
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

    /// Starts one with plain DERP that logs to the file `log` in `dir`.
    pub fn logging<A: AsRef<OsStr>>(dir: &Path, args: &[A], log: &str) -> Result<Self> {
        let file = fs::File::options().create(true).append(true).open(dir.join("log"))?;
        Self::start(dir, args, log, file.into())
            .with_context(|| fs::read_to_string(dir.join("log")).unwrap_or_default())
    }

    /// Its admin socket.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Asks it to stop, and waits: whether it ended well.
    pub fn stop(mut self) -> Result<bool> {
        let done = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(done.success(), "cannot signal the daemon");
        Ok(wait(&mut self.child)?.success())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How to reach a daemon with plain DERP.
pub fn dial(ip: IpAddr) -> Dial {
    Dial { addr: SocketAddr::new(ip, DERP_PORT), transport: Transport::Plain, start: Start::Normal }
}

/// Runs a daemon that must end by itself with an error; what it says on standard error.
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
        // It serves, which is what it must not.
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
