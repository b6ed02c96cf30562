//! `--relay-deny-file`: a client on a denied network cannot bind, and a list that is read again ends its
//! sessions, in userspace and in XDP.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use relay_common::disco::message::BindKind;
use relay_tests::{
    bare,
    daemon::{Daemon, Setup, run_relayd},
    process::until,
    skip,
    topology::{CLIENT_PORTS, CLIENTS, Lab},
    udp_client::{DEADLINE, UdpClient},
};

/// Time in which an answer that must not come would have come.
const SILENCE: Duration = Duration::from_millis(100);

/// Writes the list and has it read; returns when the daemon has done so for the `nth` time.
fn reload(daemon: &Daemon, file: &Path, list: &str, nth: usize) -> Result<()> {
    fs::write(file, list)?;
    kill(Pid::from_raw(daemon.pid().cast_signed()), Signal::SIGHUP)?;
    until("the list to be read again", || Ok(daemon.log().matches("SIGHUP").count() == nth))
}

/// Sends a Bind and expects that nothing comes back.
fn refused(daemon: &Daemon, client: &UdpClient) -> Result<()> {
    let before = daemon.counter("udp_drop_denied")?;
    client.send_raw(&client.control(BindKind::Bind, [0; 32]))?;
    daemon.wait("the bind to be refused", |status| status["counters"]["udp_drop_denied"] == before + 1)?;
    ensure!(client.recv_raw(SILENCE)?.is_none(), "it was answered");
    Ok(())
}

/// Alice's network is denied while two sessions are bound, one of them with her.
fn denied(lab: &Lab, setup: Setup) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("deny");
    fs::write(&file, "# nobody yet\n192.0.2.0/24\n")?;
    let name = file.display().to_string();
    let daemon = Daemon::start(setup.with(&["--relay-deny-file", &name]))?;
    let status = daemon.admin().status()?;
    ensure!(status["udp"]["denied"]["networks"] == 1, "{}", status["udp"]);
    let mut clients = lab.bound_session(&daemon, CLIENT_PORTS)?;
    let vni = clients[0].endpoint.vni.get();
    exchange(&clients)?;

    // A broken list changes nothing, and is named with the line.
    reload(&daemon, &file, "10.77.0.0/24\nnonsense\n", 1)?;
    ensure!(daemon.log().contains(&format!("{name}:2: ")), "{}", daemon.log());
    let why = |status: &serde_json::Value| status["udp"]["denied"]["refused"].to_string();
    let told = why(&daemon.admin().status()?);
    ensure!(told.contains(&format!("{name}:2: ")), "{told}");
    exchange(&clients)?;

    let list = format!("{}/32 # Alice\n", CLIENTS[0]);
    reload(&daemon, &file, &list, 2)?;
    ensure!(daemon.session(vni)?.is_none(), "the session has ended");
    ensure!(why(&daemon.admin().status()?) == "null", "the list is what the file says");
    ensure!(daemon.counter("udp_ended_denied")? == 1);
    let log = daemon.log();
    ensure!(log.lines().any(|line| line.contains("SIGHUP") && line.contains("ended=1")), "{log}");
    if daemon.has_xdp() {
        let inspected =
            run_relayd(&["inspect", "--verbose", "--bpf-dir", &daemon.bpf_dir().to_string_lossy()])?;
        ensure!(!inspected.contains(&format!("vni {vni}")), "{inspected}");
        let forwarded = daemon.reason("forwarded")?;
        clients[0].send(b"to nobody")?;
        clients[1].send(b"to nobody")?;
        daemon.wait("both to be dropped", |status| status["counters"]["udp_drop_unknown_vni"] == 2)?;
        ensure!(daemon.reason("forwarded")? == forwarded);
    }
    for client in &clients {
        ensure!(client.recv(SILENCE)?.is_none(), "a packet of a session that has ended");
    }

    // Alice cannot bind any more, Bob can.
    clients = lab.session(&daemon, CLIENT_PORTS.map(|port| port + 1))?;
    clients[0].next_generation();
    refused(&daemon, &clients[0])?;
    clients[1].bind(daemon.admin())?;

    // Until she is off the list.
    reload(&daemon, &file, "", 3)?;
    clients[0].bind(daemon.admin())?;
    exchange(&clients)
}

fn exchange(clients: &[UdpClient; 2]) -> Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        clients[from].send(b"hello")?;
        let got = clients[to].recv(DEADLINE)?.context("nothing came")?;
        ensure!(got == b"hello");
    }
    Ok(())
}

#[test]
fn a_denied_client_loses_its_session_and_cannot_bind_in_userspace() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        skip("a_denied_client_loses_its_session_and_cannot_bind_in_userspace", "needs root");
        return Ok(());
    }
    let lab = Lab::new(None)?;
    denied(&lab, lab.setup())
}

#[test]
fn a_denied_client_loses_its_session_and_cannot_bind_in_xdp() -> Result<()> {
    let test = "a_denied_client_loses_its_session_and_cannot_bind_in_xdp";
    let Some(lab) = Lab::or_skip(test)? else { return Ok(()) };
    denied(&lab, lab.setup_xdp())
}

#[test]
fn a_broken_list_is_refused_at_start_by_file_and_line() -> Result<()> {
    let (dir, ip) = (tempfile::tempdir()?, bare::address());
    let file = dir.path().join("deny");
    let mut args = bare::plain(dir.path(), ip);
    args.extend(["--relay-server-port=0", "--relay-deny-file"].map(Into::into));
    args.push(file.clone().into());
    let said = bare::refused(&args, None)?;
    ensure!(said.contains("--relay-deny-file") && said.contains("deny"), "no file: {said}");
    fs::write(&file, "192.0.2.0/24\n\n192.0.2.1/24\n")?;
    let said = bare::refused(&args, None)?;
    ensure!(said.contains(&format!("{}:3: ", file.display())) && said.contains("clear them"), "{said}");
    ensure!(!dir.path().join("derper.key").exists(), "nothing is written before all is judged");
    Ok(())
}

#[test]
fn a_hangup_without_a_list_ends_nothing() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    for nth in 1..=3 {
        kill(Pid::from_raw(daemon.pid().cast_signed()), Signal::SIGHUP)?;
        until("the hangup to be heard", || Ok(daemon.log().matches("SIGHUP").count() == nth))?;
    }
    ensure!(daemon.admin().status()?["udp"]["denied"].is_null());
    Ok(())
}
