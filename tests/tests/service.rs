//! relayd in place of derper: as a service without a directory for an admin socket, under `nohup`, and after
//! an interrupted start.

use std::{fs, os::unix::process::ExitStatusExt as _, path::Path, process::Command};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use relay_tests::{
    bare::{Bare, address, dial, plain, tls},
    client::Client,
    daemon::binary,
    lab::Netns,
    process::{PATIENCE, Process, inside},
    skip, topology,
};
use tempfile::tempdir;

#[test]
fn a_service_without_a_runtime_directory_serves_and_ignores_what_it_was_told_to() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let mut args = plain(dir.path(), ip);
    // The last two arguments set the path of the admin socket.
    args.truncate(args.len() - 2);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(binary()?).args(&args);
    // A path under which nobody can make a directory.
    command.env("RUNTIME_DIRECTORY", "/proc/none");
    let mut service = Process::start(command, &dir.path().join("log"))?;
    service.wait("the relay to serve", PATIENCE, |_| Ok(Client::connect(&dial(ip)).ok()))?;
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        service.signal(signal)?;
        Client::pair(&dial(ip))?;
        ensure!(service.ended()?.is_none(), "{signal} ended it");
    }
    ensure!(service.stop()?.success());
    let log = service.log();
    ensure!(log.contains("no admin socket") && log.contains("RuntimeDirectory=relayd"), "{log}");
    Ok(())
}

#[test]
fn a_first_start_that_was_killed_between_key_and_certificate_is_gone_on_with() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let (hostname, at) = (ip.to_string(), |name: String| dir.path().join(name));
    let args = tls(dir.path(), ip, &hostname);
    ensure!(Bare::logging(dir.path(), &args, "")?.stop()?);
    let crt = at(format!("{hostname}.crt"));
    let before = fs::read(&crt)?;
    // The state after such a start: the file is complete but does not have its final name.
    fs::rename(&crt, at(format!(".{hostname}.crt.Ab3dEf")))?;
    let daemon = Bare::logging(dir.path(), &args, "")?;
    ensure!(fs::read(&crt)? == before, "the same certificate");
    ensure!(daemon.admin().status()?["certificate"]["state"] == "valid");
    Ok(())
}

#[test]
fn a_signal_that_comes_as_soon_as_it_answers_ends_it_cleanly() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    for start in 0..20 {
        let daemon = Bare::logging(dir.path(), &plain(dir.path(), ip), "info")?;
        ensure!(daemon.stop()?, "start {start}");
        ensure!(!dir.path().join("admin.sock").exists(), "start {start}: the socket stays behind");
    }
    Ok(())
}

/// Starts a daemon that finds no BPF file system, and the lock for mounting one held: by its own process,
/// which
/// `flock` has become.
const HELD_LOCK: &str = r#"
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /sys/fs/bpf && mkdir -m 700 /run/relayd || exit 77
exec flock --no-fork /run/relayd/bpffs.lock "$@"
"#;

#[test]
fn a_signal_ends_a_start_that_waits_for_somebody() -> Result<()> {
    const NAME: &str = "a_signal_ends_a_start_that_waits_for_somebody";
    if let Err(reason) = topology::objects() {
        skip(NAME, &reason);
        return Ok(());
    }
    let (dir, netns) = (tempdir()?, Netns::new("held")?);
    // Generic mode is refused where the kernel merges packets first.
    netns.command("ethtool", &["-K", "lo", "gro", "off"])?;
    let mut command = inside(netns.name(), Path::new("unshare"));
    command.args(["--mount", "sh", "-c", HELD_LOCK, "sh"]).arg(binary()?);
    command.args(plain(dir.path(), [127, 0, 0, 1].into()));
    command.args(["--relay-server-port=0", "--xdp=lo", "--xdp-mode=generic"]);
    let mut daemon = Process::start(command, &dir.path().join("log"))?;
    daemon.wait("the daemon to hear signals", PATIENCE, |daemon| {
        let tasks = procfs::process::Process::new(daemon.pid().cast_signed())?.tasks()?;
        let mut names = tasks.filter_map(|task| Some(task.ok()?.stat().ok()?.comm));
        Ok(names.any(|name| name == "relayd-signals").then_some(()))
    })?;
    let ended = daemon.stop()?;
    ensure!(ended.signal() == Some(Signal::SIGTERM as i32), "{ended}: {}", daemon.log());
    Ok(())
}
