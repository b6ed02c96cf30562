//! Passes a test program's output on as it arrives, and counts the results in it.
//!
//! The run is over when the program ends, not when its output ends: a daemon that a broken test left behind
//! keeps the pipe open.

use std::{
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::tally::Tally;
use crate::process;

const POLL: Duration = Duration::from_millis(50);
/// Time to wait for a program's last output, and for a program to end after it was told to.
const GRACE: Duration = Duration::from_secs(2);

/// Runs `command` and adds its test results to `tally`; `title` names the program if it fails without naming
/// a test.
pub(super) fn into_tally(
    mut command: Command,
    title: &str,
    deadline: Duration,
    tally: &mut Tally,
    out: &mut impl Write,
) -> Result<()> {
    process::refuse_after_interrupt()?;
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {title}"))?;
    let pipe = child.stdout.take().context("a piped child has an output")?;
    let (chunks, output) = mpsc::channel();
    thread::spawn(move || forward(pipe, &chunks));
    let failed_before = tally.failed;
    let end = Instant::now() + deadline;
    let mut status = None;
    while status.is_none() && Instant::now() < end {
        match output.recv_timeout(POLL) {
            Ok(chunk) => show(&chunk, tally, out)?,
            Err(RecvTimeoutError::Timeout) => status = child.try_wait()?,
            Err(RecvTimeoutError::Disconnected) => status = wait_until(&mut child, end)?,
        }
    }
    let ended = match status {
        Some(status) => status,
        None => end_late(&mut child)?,
    };
    let grace = Instant::now() + GRACE;
    while let Ok(chunk) = output.recv_timeout(grace.saturating_duration_since(Instant::now())) {
        show(&chunk, tally, out)?;
    }
    process::refuse_after_interrupt()?;
    if status.is_none() {
        tally.fail(format!("{title}: still running after {} s", deadline.as_secs()));
    } else if !ended.success() && tally.failed == failed_before {
        tally.fail(format!("{title}: {ended} without naming a failed test"));
    }
    tally.end_of_program();
    Ok(())
}

fn forward(mut pipe: impl Read, chunks: &mpsc::Sender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = pipe.read(&mut buffer) {
        if chunks.send(buffer.iter().take(len).copied().collect()).is_err() {
            break;
        }
    }
}

fn show(chunk: &[u8], tally: &mut Tally, out: &mut impl Write) -> Result<()> {
    tally.read(chunk);
    out.write_all(chunk).and_then(|()| out.flush()).context("cannot pass a test program's output on")
}

fn wait_until(child: &mut Child, end: Instant) -> Result<Option<ExitStatus>> {
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(POLL);
    }
    Ok(None)
}

fn end_late(child: &mut Child) -> Result<ExitStatus> {
    process::end_tree(child.id());
    if let Some(status) = wait_until(child, Instant::now() + GRACE)? {
        return Ok(status);
    }
    child.kill().context("cannot end a test program")?;
    child.wait().context("cannot wait for a test program")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far more than these programs need, and far less than they would take if they were not ended.
    const PROMPT: Duration = Duration::from_secs(30);

    fn run(script: &str, deadline: Duration) -> (Tally, String) {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        let (mut tally, mut out) = (Tally::default(), Vec::new());
        into_tally(shell, "a script", deadline, &mut tally, &mut out).expect("the shell starts");
        (tally, String::from_utf8(out).expect("the shell prints text"))
    }

    #[test]
    fn a_program_that_dies_without_a_result_is_one_failure() {
        let (tally, out) = run("echo 'test a ... ok'; kill -SEGV $$", PROMPT);
        assert_eq!((tally.passed, tally.failed), (0, 1));
        assert_eq!(out, "test a ... ok\n");
    }

    #[test]
    fn a_program_past_its_deadline_is_ended_and_one_failure() {
        let started = Instant::now();
        let (tally, _) = run("sleep 600; echo", POLL * 4);
        assert_eq!(tally.failed, 1);
        assert!(started.elapsed() < PROMPT);
    }

    #[test]
    fn a_process_left_behind_does_not_hold_the_run_up() {
        let started = Instant::now();
        let result = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let (tally, out) = run(&format!("sleep 600 & echo $!; echo '{result}'"), PROMPT);
        let left_behind = out.lines().next().expect("its process id");
        let ended = Command::new("kill").arg(left_behind).status().expect("kill is on every machine");
        assert!(ended.success(), "it was still there");
        assert_eq!((tally.passed, tally.failed), (1, 0));
        assert!(started.elapsed() < PROMPT);
    }
}
