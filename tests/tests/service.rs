//! relayd in place of derper: as a service without a directory for an admin socket, under `nohup`, and after
//! an interrupted start.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::{Result, ensure};
use relay_tests::{
    bare::{Bare, address, dial, plain, tls},
    client::Client,
    daemon::{binary, until},
};
use tempfile::tempdir;

/// A daemon that is killed when the test ends.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // The daemon may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Service {
    fn signal(&self, name: &str) -> Result<()> {
        ensure!(Command::new("kill").args([name, &self.0.id().to_string()]).status()?.success());
        Ok(())
    }
}

#[test]
fn a_service_without_a_runtime_directory_serves_and_ignores_what_it_was_told_to() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let log = dir.path().join("log");
    let mut args = plain(dir.path(), ip);
    // The last two arguments set the path of the admin socket.
    args.truncate(args.len() - 2);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(binary()?).args(&args);
    // A path under which nobody can make a directory.
    command.env("RUNTIME_DIRECTORY", "/proc/none").stdin(Stdio::null()).stderr(fs::File::create(&log)?);
    let mut service = Service(command.spawn()?);
    until("the relay to serve", || {
        ensure!(service.0.try_wait()?.is_none(), "ended: {}", fs::read_to_string(&log)?);
        Ok(Client::connect(&dial(ip)).is_ok())
    })?;
    for signal in ["-HUP", "-USR1", "-USR2"] {
        service.signal(signal)?;
        Client::pair(&dial(ip))?;
        ensure!(service.0.try_wait()?.is_none(), "{signal} ended it");
    }
    service.signal("-TERM")?;
    until("it to end", || Ok(service.0.try_wait()?.is_some_and(|status| status.success())))?;
    let log = fs::read_to_string(&log)?;
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
