//! Starts the programs of a test: each is asked to end, and killed if it does not, when its value is dropped.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Maximum time from start to the first answer, and from a request to end to the end.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Maximum time for a program that is no longer needed to end by itself.
const STOP: Duration = Duration::from_secs(5);
/// Maximum seconds for a program that ends by itself; a netcheck or a probe without answers gives up within
/// half of that.
const BOUND: &str = "60";
/// Time between two polls.
const POLL: Duration = Duration::from_millis(5);
/// Last lines of a log that an error shows.
const TAIL: usize = 30;

/// A running program whose output is in a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// A command that runs `program` in a namespace through `exec`, so that the child's process id is the
/// program's. `ip netns exec` is not used, because it hides the BPF file system behind a new /sys.
pub fn inside(netns: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).arg(program);
    command
}

/// Runs `command` to its end, within a minute, in this process's directory and with its environment and the
/// command's. A program that is missing ends with status 127.
///
/// # Errors
/// `timeout` cannot be started.
pub fn run(command: &Command) -> Result<Output> {
    let mut bounded = Command::new("timeout");
    bounded.args(["-k", "2", BOUND]).arg(command.get_program()).args(command.get_args());
    bounded.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bounded.stdin(Stdio::null()).output().with_context(|| format!("running {command:?}"))
}

/// Returns the standard output of `command`.
///
/// # Errors
/// The command does not succeed; the error has its output.
pub fn stdout(command: &Command) -> Result<String> {
    let output = run(command)?;
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    if !output.status.success() {
        bail!("{command:?}: {}\n{stdout}{stderr}", output.status);
    }
    Ok(stdout.into_owned())
}

/// Polls until `done` returns true.
///
/// # Errors
/// `done` fails, or [`PATIENCE`] is over.
pub fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    poll(what, PATIENCE, || Ok(done()?.then_some(())))
}

fn poll<T>(what: &str, patience: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = ready()? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "waited {patience:?} in vain for {what}");
        thread::sleep(POLL);
    }
}

impl Process {
    /// Starts `command`; its output is appended to the file `log`.
    ///
    /// # Errors
    /// The file cannot be opened, or the program cannot be started.
    pub fn start(command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("opening {}", log.display()))?;
        Self::start_with(command, file.try_clone()?.into(), file.into(), log)
    }

    /// As [`Self::start`], but with its own output and standard error; `log` is the file that has them, if
    /// any has.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_with(mut command: Command, stdout: Stdio, stderr: Stdio, log: &Path) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn();
        Ok(Self { child: child.with_context(|| format!("starting {command:?}"))?, log: log.to_owned() })
    }

    /// Waits until `ready` returns a value.
    ///
    /// # Errors
    /// `ready` fails, the program ends first, or `patience` is over; the error shows the end of its log.
    pub fn wait<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut ready: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let waited = poll(what, patience, || {
            let found = ready(self)?;
            if found.is_none()
                && let Some(status) = self.child.try_wait()?
            {
                bail!("ended before {what}: {status}");
            }
            Ok(found)
        });
        waited.with_context(|| format!("the log ends:\n{}", self.log_tail()))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status; `None` while the program runs.
    ///
    /// # Errors
    /// The process is not ours any more.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The program has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // A process that was waited for has no id any more.
        ensure!(self.ended()?.is_none(), "the program has ended");
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).context("signalling")
    }

    /// Asks the program to end and waits for it.
    ///
    /// # Errors
    /// The program has ended before, or does not end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_for_end()
    }

    /// Kills the program, as `kill -9` does.
    ///
    /// # Errors
    /// The program has ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        let status = self.wait_for_end()?;
        ensure!(status.signal() == Some(Signal::SIGKILL as i32), "it ended by itself: {status}");
        Ok(())
    }

    /// Waits until the program ends by itself.
    ///
    /// # Errors
    /// The program does not end.
    pub fn wait_for_end(&mut self) -> Result<ExitStatus> {
        poll("the program's end", PATIENCE, || self.ended())
    }

    /// All output of the program.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last part of the output.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {} ends:\n{}", self.log.display(), self.log_tail());
        }
        // The program is asked first, so that it removes its own files.
        if self.signal(Signal::SIGTERM).is_ok() {
            let _ = poll("its end", STOP, || self.ended());
        }
        // Both calls fail only if the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
