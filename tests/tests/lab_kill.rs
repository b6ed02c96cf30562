//! kill -9 under traffic: the program is detached with its process, the maps can still be read, and the next
//! start is a clean one.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use relay_tests::{
    daemon::{Daemon, run_relayd},
    process::until,
    topology::{CLIENT_PORTS, Lab},
    udp_client::{DEADLINE, UdpClient},
};

#[test]
fn after_kill_9_under_traffic_the_program_is_gone_the_maps_stay_and_the_next_start_is_clean() -> Result<()> {
    let test = "after_kill_9_under_traffic_the_program_is_gone_the_maps_stay_and_the_next_start_is_clean";
    let Some(lab) = Lab::or_skip(test)? else { return Ok(()) };
    let mut daemon = Daemon::start(lab.setup_xdp())?;
    let clients = lab.bound_session(&daemon, CLIENT_PORTS)?;
    let first_program = program_id(&daemon)?;
    assert!(is_loaded(first_program)?);

    let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| -> Result<()> {
        let traffic = scope.spawn(|| send_until(&clients, &sent, &stop));
        let killed = kill_under_traffic(&mut daemon, &sent);
        stop.store(true, Ordering::Relaxed);
        traffic.join().map_err(|_| anyhow::anyhow!("the traffic panicked"))??;
        killed
    })?;

    until("the program to be gone", || Ok(!is_loaded(first_program)?))?;
    let pins = daemon.bpf_dir().to_string_lossy().into_owned();
    for map in ["SESSIONS", "LEG_STATS", "REASONS", "CONFIG"] {
        assert!(Path::new(&pins).join(map).exists(), "{map} stays pinned");
    }
    let left = run_relayd(&["inspect", "--verbose", "--bpf-dir", &pins])?;
    assert!(left.contains("vni 1"), "the session can be read: {left}");
    assert!(
        left.contains("none runs") && left.contains("UTC; heartbeat"),
        "nobody runs, and since when: {left}"
    );
    assert!(left.contains(&clients[0].local()?.to_string()), "its client, too: {left}");
    assert!(left.lines().any(|line| line.contains("forwarded") && line.contains("tx")), "{left}");

    daemon.restart()?;
    let status = daemon.admin().status()?;
    assert_eq!(status["udp"]["sessions"], 0);
    assert_eq!(status["xdp"]["installed"], 0);
    assert_ne!(program_id(&daemon)?, first_program);
    let now = run_relayd(&["inspect", "--verbose", "--bpf-dir", &pins])?;
    assert!(now.contains(&format!("runs, process {}", daemon.pid())), "{now}");
    assert!(!now.contains("vni 1"), "the maps are new: {now}");
    // A packet for the old session is counted and not forwarded.
    clients[0].send(b"to a session of the dead daemon")?;
    daemon.wait("the old session to be unknown", |status| status["counters"]["udp_drop_unknown_vni"] == 1)?;
    drop(clients);
    let clients = lab.bound_session(&daemon, CLIENT_PORTS)?;
    clients[0].send(b"served again")?;
    assert_eq!(clients[1].recv(DEADLINE)?.as_deref(), Some(&b"served again"[..]));
    assert!(daemon.reason("forwarded")? >= 1);

    let second_program = program_id(&daemon)?;
    assert!(daemon.stop()?.success(), "a stop is a success: {}", daemon.log());
    assert!(!Path::new(&pins).exists(), "a clean stop removes the pins");
    until("the second program to be gone", || Ok(!is_loaded(second_program)?))
}

/// Sends as fast as one thread can, until `stop` is set; lost packets are ignored.
fn send_until(clients: &[UdpClient; 2], sent: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        for client in clients {
            // Between the kill and the stop, the relay's host answers "port unreachable", which a socket may
            // report as an error.
            if client.send(b"under traffic").is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

fn kill_under_traffic(daemon: &mut Daemon, sent: &AtomicU64) -> Result<()> {
    until("XDP to forward", || Ok(daemon.reason("forwarded")? > 1000))?;
    daemon.kill()?;
    let at_kill = sent.load(Ordering::Relaxed);
    until("traffic to go on after the kill", || Ok(sent.load(Ordering::Relaxed) > at_kill + 100))
}

fn program_id(daemon: &Daemon) -> Result<u32> {
    let status = daemon.admin().status()?;
    let id =
        status["xdp"]["program_id"].as_u64().with_context(|| format!("no program in {}", status["xdp"]))?;
    Ok(u32::try_from(id)?)
}

fn is_loaded(id: u32) -> Result<bool> {
    let mut seen = 0;
    for program in loaded_programs() {
        // A program may disappear while the list is read; the list may then end with an error.
        let Ok(program) = program else { break };
        seen += 1;
        ensure!(seen < 100_000, "no end of programs");
        if program.id() == id {
            return Ok(true);
        }
    }
    Ok(false)
}
