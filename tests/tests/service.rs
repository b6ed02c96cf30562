//! relayd where derper ran before: as a service without a place for an admin socket, under `nohup`, and after
//! a start that was cut short.

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

/// Ends with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // Ended already is as good.
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
    // The last two name the admin socket's place.
    args.truncate(args.len() - 2);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(binary()?).args(&args);
    // A directory in which nobody can make another.
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
    // As it is then: written whole, without its name.
    fs::rename(&crt, at(format!(".{hostname}.crt.Ab3dEf")))?;
    let daemon = Bare::logging(dir.path(), &args, "")?;
    ensure!(fs::read(&crt)? == before, "the same certificate");
    ensure!(daemon.admin().status()?["certificate"]["state"] == "valid");
    Ok(())
}
