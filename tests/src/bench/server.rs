//! The servers under load: relayd and derper with the same flags, each on its own port.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use super::load::{Outcome, Plan};

/// Maximum time until a server accepts connections.
const START: Duration = Duration::from_secs(20);
/// Maximum time until a server ends after it was asked to.
const STOP: Duration = Duration::from_secs(5);
/// derper's own setting, so that a window of 64 does not overflow its queue of 32.
pub(super) const DERPER_QUEUE: (&str, &str) = ("TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH", "256");

/// A running server.
pub(super) struct Server {
    child: Child,
    addr: SocketAddr,
    plain: bool,
    dir: TempDir,
}

impl Server {
    /// relayd, with `args` in addition to the flags that derper also knows.
    pub(super) fn relayd(program: &Path, plain: bool, args: &[String]) -> anyhow::Result<Server> {
        Server::start(program, plain, &[("RELAYD_LOG", "warn")], |command, dir| {
            command.arg("--admin-socket").arg(dir.join("admin.sock")).args(args);
        })
    }

    /// derper, with its queue of 32 packets per client or a longer one, and with `args` in addition to its
    /// flags.
    pub(super) fn derper(
        program: &Path,
        plain: bool,
        long_queue: bool,
        args: &[String],
    ) -> anyhow::Result<Server> {
        let env: &[_] = if long_queue { &[DERPER_QUEUE] } else { &[] };
        Server::start(program, plain, env, |command, _| {
            command.args(args);
        })
    }

    /// Starts `program` with derper's flags, and returns once it accepts connections.
    fn start(
        program: &Path,
        plain: bool,
        env: &[(&str, &str)],
        more: impl FnOnce(&mut Command, &Path),
    ) -> anyhow::Result<Server> {
        let dir = tempfile::tempdir()?;
        let certs = dir.path().join("certs");
        fs::create_dir(&certs)?;
        // The port was free a moment ago and on a quiet machine it still is.
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(program);
        command.args(["-a", &addr.to_string(), "-hostname", "127.0.0.1", "-http-port", "-1", "-stun=false"]);
        command.arg("-c").arg(dir.path().join("key"));
        if !plain {
            command.args(["-certmode", "manual"]).arg("-certdir").arg(&certs);
        }
        more(&mut command, dir.path());
        command.envs(env.iter().copied()).stdin(Stdio::null());
        let log = File::create(dir.path().join("log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let mut server = Server { child, addr, plain, dir };
        if let Err(error) = server.await_start() {
            bail!("{} {error:#}; its log ends:\n{}", program.display(), server.log_tail());
        }
        Ok(server)
    }

    fn await_start(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        while TcpStream::connect(self.addr).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended as it started: {status}");
            }
            if Instant::now() > end {
                bail!("does not listen after {START:?}");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Puts the server under load as planned; fills in the plan's address and process.
    pub(super) fn load(&self, plan: &Plan) -> anyhow::Result<Outcome> {
        let plan = Plan { addr: self.addr, pid: self.child.id(), plain: self.plain, ..plan.clone() };
        // The running program itself, even if its file was replaced.
        let output = Command::new("/proc/self/exe")
            .arg("load")
            .args(plan.args())
            .stdin(Stdio::null())
            .output()
            .context("starting the load")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("the load failed: {}\nthe server's log ends:\n{}", said.trim(), self.log_tail());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server is asked first, so that it removes its own files.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let end = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        // Both calls fail only if the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
