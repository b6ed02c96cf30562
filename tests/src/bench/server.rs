//! The servers under load: relayd and derper with the same flags, each on its own port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use super::load::{Outcome, Plan};
use crate::flags::Flags;
use crate::process::{PATIENCE, Process};

/// derper's own setting, so that a window of 64 does not overflow its queue of 32.
pub(super) const DERPER_QUEUE: (&str, &str) = ("TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH", "256");

/// A running server.
pub(super) struct Server {
    process: Process,
    addr: SocketAddr,
    plain: bool,
    // Dropped after the process that uses its files.
    _dir: TempDir,
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
        // The port was free a moment ago and on a quiet machine it still is.
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let flags = match plain {
            true => Flags::plain(addr.to_string(), dir.path()),
            false => Flags::tls(addr.to_string(), dir.path(), "127.0.0.1"),
        };
        let mut command = Command::new(program);
        command.args(flags.words());
        more(&mut command, dir.path());
        command.envs(env.iter().copied());
        let mut process = Process::start(command, &dir.path().join("log"))?;
        process.wait("the server to listen", PATIENCE, |_| Ok(TcpStream::connect(addr).ok()))?;
        Ok(Server { process, addr, plain, _dir: dir })
    }

    /// Puts the server under load as planned; fills in the plan's address and process.
    pub(super) fn load(&self, plan: &Plan) -> anyhow::Result<Outcome> {
        let plan = Plan { addr: self.addr, pid: self.process.pid(), plain: self.plain, ..plan.clone() };
        // The running program itself, even if its file was replaced.
        let output = Command::new("/proc/self/exe")
            .arg("load")
            .args(plan.args())
            .stdin(Stdio::null())
            .output()
            .context("starting the load")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("the load failed: {}\nthe server's log ends:\n{}", said.trim(), self.process.log_tail());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
