//! More connections than the daemon may have files: it logs the limit, serves its clients, still answers the
//! operator, and recovers. Fewer threads than it needs: it says so, and ends.

use std::{fs, net::TcpStream, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use procfs::process::LimitValue;
use relay_tests::{
    admin::Admin,
    bare,
    client::{Client, Dial, Start},
    daemon::{Daemon, Setup, binary},
    process::{Process, until},
    skip,
};

/// A file limit so low that a test can use up all files.
const FEW_FILES: &[&str] = &["prlimit", "--nofile=256:256"];

#[test]
fn when_all_files_are_taken_the_operator_is_answered_and_clients_are_served() -> Result<()> {
    let test = "when_all_files_are_taken_the_operator_is_answered_and_clients_are_served";
    let caps = ["--max-pending-logins", "0", "--max-pending-per-ip", "0"];
    let Some(setup) = limited(test, FEW_FILES, &caps) else { return Ok(()) };
    let daemon = Daemon::start(setup)?;
    let dial = daemon.dial(Start::Normal)?;
    let (mut alice, mut bob) = Client::pair(&dial)?;
    let idle = connect(&dial, 400)?;
    // The status comes from the real command, whose connection needs a file too.
    until("the limit to be counted", || {
        let status = status(&daemon)?;
        Ok(count(&status, "refused_files")? >= 100)
    })?;
    alice.send(&bob.key(), b"still served")?;
    ensure!(bob.recv_packet()? == (alice.key(), b"still served".to_vec()));
    ensure!(Client::connect(&dial).is_err(), "there is no file for a new client");
    let log = daemon.log();
    ensure!(log.matches("no open files are left").count() == 1, "one line, not one for each: {log}");
    ensure!(log.contains("LimitNOFILE="), "{log}");
    drop(idle);
    until("new clients to be served", || Ok(Client::connect(&dial).is_ok()))?;
    Ok(())
}

#[test]
fn the_limit_of_files_is_raised_as_far_as_it_goes() -> Result<()> {
    let test = "the_limit_of_files_is_raised_as_far_as_it_goes";
    let Some(setup) = limited(test, &["prlimit", "--nofile=64:1000"], &[]) else { return Ok(()) };
    let daemon = Daemon::start(setup)?;
    let limits = procfs::process::Process::new(daemon.pid().cast_signed())?.limits()?;
    let files = limits.max_open_files;
    assert!(matches!(files.soft_limit, LimitValue::Value(1000)), "{files:?}");
    assert_eq!(daemon.log().matches("open files").count(), 1, "said once: {}", daemon.log());
    // A daemon that had not raised its limit would run out of files at 64.
    let dial = daemon.dial(Start::Normal)?;
    let _idle = connect(&dial, 100)?;
    Client::connect(&dial)?.ping()?;
    Ok(())
}

/// Starts a daemon with ever more allowed threads, from none to enough: each time it serves, or names the
/// limit.
#[test]
fn a_daemon_without_threads_says_so_and_one_with_enough_serves() -> Result<()> {
    const MOST: usize = 16;
    // Limits do not apply to root; this user has no other processes.
    let user = 61_000 + std::process::id() % 4_000;
    let dir = tempfile::tempdir()?;
    std::os::unix::fs::chown(dir.path(), Some(user), Some(user))?;
    let args = [bare::plain(dir.path(), bare::address()), vec!["--workers=4".into()]].concat();
    // Other users may not be allowed into the build directory.
    let program = dir.path().join("relayd");
    fs::copy(binary()?, &program)?;
    let admin = Admin::new(dir.path().join("admin.sock"));
    for threads in 1..=MOST {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={threads}")).arg(&program).args(&args).uid(user).gid(user);
        let mut relayd = Process::start(command, &dir.path().join(format!("log-{threads}")))?;
        until("it to serve or to end", || Ok(relayd.ended()?.is_some() || admin.status().is_ok()))?;
        let refused = relayd.ended()?.map(|status| !status.success());
        let said = relayd.log();
        match refused {
            Some(refused) => ensure!(refused && said.contains("ulimit -u"), "{threads}: {said}"),
            None => {
                ensure!(threads > 5, "main, log, admin and four workers are more than {threads}");
                return Ok(());
            }
        }
        ensure!(!said.contains("panicked"), "{threads}: {said}");
    }
    bail!("{MOST} threads are not enough for it")
}

#[test]
fn accepts_that_fail_are_said_and_the_limit_can_be_raised_under_the_running_daemon() -> Result<()> {
    let test = "accepts_that_fail_are_said_and_the_limit_can_be_raised_under_the_running_daemon";
    let Some(setup) = limited(test, FEW_FILES, &[]) else { return Ok(()) };
    let daemon = Daemon::start(setup)?;
    let dial = daemon.dial(Start::Normal)?;
    let (mut alice, mut bob) = Client::pair(&dial)?;
    // The limit is lower than the number of open files, so not even the admin socket can accept a connection.
    set_soft_limit(daemon.pid(), 4)?;
    let _waits = connect(&dial, 1)?;
    until("a warning", || Ok(daemon.log().contains("cannot accept connections")))?;
    alice.send(&bob.key(), b"still served")?;
    ensure!(bob.recv_packet()? == (alice.key(), b"still served".to_vec()));
    set_soft_limit(daemon.pid(), 256)?;
    Client::connect(&dial)?.ping()?;
    ensure!(daemon.counter("accept_failed")? > 0);
    let log = daemon.log();
    ensure!(log.matches("cannot accept connections").count() == 1 && log.contains("LimitNOFILE="), "{log}");
    Ok(())
}

#[test]
fn connections_that_do_not_log_in_are_limited_by_where_they_come_from() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback().plain().with(&["--max-pending-per-ip", "8"]))?;
    refuses_beyond(&daemon, 8, "refused_per_ip", "--max-pending-per-ip")
}

#[test]
fn connections_that_do_not_log_in_are_limited_in_all() -> Result<()> {
    let caps = ["--max-pending-logins", "8", "--max-pending-per-ip", "0"];
    let daemon = Daemon::start(Setup::loopback().plain().with(&caps))?;
    refuses_beyond(&daemon, 8, "refused_pending", "--max-pending-logins")
}

/// Fills `places` and checks that one more connection is refused, that clients who have logged in take no
/// place, and that a place is free again when its connection is closed.
fn refuses_beyond(daemon: &Daemon, places: usize, counter: &str, flag: &str) -> Result<()> {
    let dial = daemon.dial(Start::Normal)?;
    let clients: Vec<_> = (0..places + 2).map(|_| Client::connect(&dial)).collect::<Result<_>>()?;
    let idle = connect(&dial, places)?;
    daemon.wait("all to be accepted", |status| {
        status["counters"]["accepts"].as_u64() == Some((clients.len() + places) as u64)
    })?;
    assert_eq!(daemon.counter(counter)?, 0);
    for refused in 1..=3 {
        ensure!(Client::connect(&dial).is_err(), "there is no place");
        assert_eq!(daemon.counter(counter)?, refused);
    }
    let warnings =
        || daemon.log().lines().filter(|line| line.contains("WARN") && line.contains(flag)).count();
    until("a warning in the log, which has a thread of its own", || Ok(warnings() > 0))?;
    ensure!(warnings() == 1, "one warning that names {flag}: {}", daemon.log());
    drop(idle);
    until("a new client to be served", || Ok(Client::connect(&dial).is_ok()))
}

/// The setup of a plain daemon with a limit; `None` if this machine cannot run it.
fn limited(test: &str, under: &[&str], args: &[&str]) -> Option<Setup> {
    if Command::new("prlimit").arg("--version").output().is_err() {
        skip(test, "needs prlimit");
        return None;
    }
    Some(Setup::loopback().plain().under(under).with(args))
}

fn set_soft_limit(pid: u32, files: u32) -> Result<()> {
    let args = [format!("--pid={pid}"), format!("--nofile={files}:")];
    ensure!(Command::new("prlimit").args(args).status()?.success(), "prlimit failed");
    Ok(())
}

/// Opens connections that send nothing.
fn connect(dial: &Dial, count: usize) -> Result<Vec<TcpStream>> {
    (0..count).map(|_| Ok(TcpStream::connect(dial.addr)?)).collect()
}

fn status(daemon: &Daemon) -> Result<serde_json::Value> {
    let path = daemon.admin().path().to_string_lossy();
    Ok(serde_json::from_str(&daemon.ask(&["status", "--json", "--admin-socket", &path])?)?)
}

fn count(status: &serde_json::Value, label: &str) -> Result<u64> {
    status["counters"][label].as_u64().with_context(|| format!("no counter {label}"))
}
