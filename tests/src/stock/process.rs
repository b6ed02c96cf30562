//! Runs a program in a namespace until the value is dropped, or until the program ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Netns;

/// Maximum time until a program ends after it was asked to.
const STOP: Duration = Duration::from_secs(5);
/// Maximum seconds for a program that ends by itself; a netcheck or a probe without answers gives up within
/// half of that.
const BOUND: &str = "60";
/// Time between two polls.
const POLL: Duration = Duration::from_millis(20);

/// A running program.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

/// A command that runs `program` in a namespace through `exec`, so that the child's process id is the
/// program's.
pub(super) fn inside(netns: &Netns, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", netns.name())).arg(program);
    command
}

/// Runs `command` to its end, within a minute.
pub(super) fn run(command: &Command) -> Result<Output> {
    let mut bounded = Command::new("timeout");
    bounded.args(["-k", "2", BOUND]).arg(command.get_program()).args(command.get_args());
    bounded.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bounded.stdin(Stdio::null()).output().with_context(|| format!("running {command:?}"))
}

/// Returns the standard output of `command`, which must succeed.
pub(super) fn stdout(command: &Command) -> Result<String> {
    let output = run(command)?;
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    if !output.status.success() {
        bail!("{command:?}: {}\n{stdout}{stderr}", output.status);
    }
    Ok(stdout.into_owned())
}

impl Process {
    /// Starts `command`; its output goes to the file `log`.
    pub(super) fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Self { child: child.with_context(|| format!("starting {command:?}"))?, log })
    }

    /// Waits until `ready` returns a value; fails if the program ends first, or after `patience`.
    pub(super) fn wait<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut ready: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + patience;
        loop {
            if let Some(found) = ready(self)? {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("ended before {what}: {status}; its log ends:\n{}", self.log_tail());
            }
            if Instant::now() > end {
                bail!("waited {patience:?} in vain for {what}; its log ends:\n{}", self.log_tail());
            }
            thread::sleep(POLL);
        }
    }

    /// The exit status; `None` while the program runs.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// All output of the program.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last part of the output.
    pub(super) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {} ends:\n{}", self.log.display(), self.log_tail());
        }
        // The program is asked first, so that it removes its own files.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let end = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(POLL);
        }
        // Both calls fail only if the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
