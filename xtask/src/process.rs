//! Runs one child at a time, so that no process outlives the command that started it.
//!
//! Ctrl-C reaches every process of the terminal's foreground group, also the children. If this command ended
//! at once, the prompt would return while a daemon still detaches its XDP program. So SIGINT only sets a flag
//! here; the command waits for the child and then ends. SIGTERM and SIGHUP reach only one process, so they
//! are passed on to all of its descendants.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, bail};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::host;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// A child that failed, with the exit status that the caller should use.
#[derive(Debug)]
pub(crate) struct Failed {
    program: String,
    status: ExitStatus,
}

impl Failed {
    /// The exit status to end with: the child's own, or 128 plus the signal that ended it, as in shells.
    pub(crate) fn exit_code(&self) -> u8 {
        let code = self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended with {}", self.program, self.status)
    }
}

impl std::error::Error for Failed {}

/// Handles the signals that would end this process before its children.
pub(crate) fn outlive_children() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    signal_hook::flag::register(SIGINT, Arc::clone(flag)).context("cannot catch SIGINT")?;
    let mut signals = Signals::new([SIGTERM, SIGHUP]).context("cannot catch SIGTERM")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            flag.store(true, Ordering::Relaxed);
            end(host::descendants(std::process::id()).into_iter());
        }
    });
    Ok(())
}

/// Whether a signal asked this command to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Runs `command` to its end; if it does not succeed, the error is [`Failed`].
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    check(command, status)
}

/// Runs `command` to its end and reports how it ended.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    refuse_after_interrupt()?;
    command.status().with_context(|| format!("cannot start {}", name(command)))
}

/// The output of `command`, or `None` if it cannot be started or fails.
pub(crate) fn stdout_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Turns a child's exit status into a result.
pub(crate) fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    bail!(Failed { program: name(command), status })
}

/// Fails after Ctrl-C, so that no new process starts.
pub(crate) fn refuse_after_interrupt() -> Result<()> {
    if interrupted() { bail!("interrupted") } else { Ok(()) }
}

/// The same command with root's rights, or `None` if they cannot be had.
///
/// sudo clears the environment, so the variables set on `command` become arguments of `env`.
pub(crate) fn as_root(command: &Command) -> Option<Command> {
    if host::is_root() {
        return Some(copy(command));
    }
    let mut elevated = Command::new(host::find_program("sudo")?);
    if !io::stdin().is_terminal() {
        elevated.arg("--non-interactive");
        let allowed = Command::new("sudo").args(["--non-interactive", "true"]).output();
        allowed.ok().filter(|output| output.status.success())?;
    }
    elevated.arg("--").arg("env");
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            let mut pair = key.to_owned();
            pair.push("=");
            pair.push(value);
            elevated.arg(pair);
        }
    }
    elevated.arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        elevated.current_dir(dir);
    }
    Some(elevated)
}

/// Sends SIGTERM to a process and all of its descendants.
pub(crate) fn end_tree(root: u32) {
    end(host::descendants(root).into_iter().chain([root]));
}

/// Sends SIGTERM to each process.
pub(crate) fn end(pids: impl Iterator<Item = u32>) {
    let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
    if pids.is_empty() {
        return;
    }
    let mut kill = Command::new("kill");
    kill.arg("-TERM").args(&pids);
    // Processes that run through sudo belong to root, so only root can end them.
    let sent = kill.output().is_ok_and(|output| output.status.success());
    if !sent && !host::is_root() {
        let _ended = Command::new("sudo").args(["--non-interactive", "kill", "-TERM"]).args(&pids).output();
    }
}

/// Copies a command's program, arguments, variables and directory, but not its pipes.
fn copy(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => copy.env(key, value),
            None => copy.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        copy.current_dir(dir);
    }
    copy
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
