//! A program that runs in a namespace until the value is dropped, and one that runs to its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Netns;

/// How long a program may take to end when asked to.
const STOP: Duration = Duration::from_secs(5);
/// How long a program that ends by itself may take, in seconds: a netcheck or a probe that is never answered
/// gives up within half of it.
const BOUND: &str = "60";
/// Between two looks at what cannot be waited for.
const POLL: Duration = Duration::from_millis(20);

/// A running program.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

/// A command that runs `program` in a namespace. It is entered by `exec`, so that the child's process id is
/// the program's.
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

/// Standard output of `command`, which must end well.
pub(super) fn stdout(command: &Command) -> Result<String> {
    let output = run(command)?;
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    if !output.status.success() {
        bail!("{command:?}: {}\n{stdout}{stderr}", output.status);
    }
    Ok(stdout.into_owned())
}

impl Process {
    /// Starts `command`; what it prints goes to the file `log`.
    pub(super) fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Self { child: child.with_context(|| format!("starting {command:?}"))?, log })
    }

    /// Waits until `ready` has something; an error if the program ends before, or nothing comes in `patience`.
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

    /// How it ended; nothing while it runs.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// All it has printed.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last it has printed.
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
        // Asked first, so that it takes its own files with it.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let end = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(POLL);
        }
        // Either may fail only because the child is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
