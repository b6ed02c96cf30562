//! What the program forwards and the driver cannot send: the daemon says so.

use anyhow::{Result, ensure};
use relay_tests::{
    daemon::Daemon,
    skip,
    topology::{CLIENT_PORTS, Lab, objects},
};

/// Packets: enough for a judgement, whatever was counted before.
const PACKETS: usize = 2_500;

#[test]
fn frames_that_a_veth_drops_because_its_other_end_has_no_program_are_said_to_be() -> Result<()> {
    let test = "frames_that_a_veth_drops_because_its_other_end_has_no_program_are_said_to_be";
    if let Err(reason) = objects() {
        skip(test, &reason);
        return Ok(());
    }
    // Without a checker the switch's port towards the relay has no program.
    let lab = Lab::new(None)?;
    let daemon = Daemon::start(lab.setup_xdp())?;
    let clients = lab.bound_session(&daemon, CLIENT_PORTS)?;
    ensure!(daemon.admin().status()?["xdp"]["hint"].is_null(), "before anything was forwarded");
    // The counts of the first second are where the judgement starts.
    let looked = |status: &serde_json::Value| status["uptime_seconds"].as_u64() >= Some(3);
    daemon.wait("the first looks at the counters", looked)?;
    for _ in 0..PACKETS {
        clients[0].send(b"to nobody")?;
    }
    let said = |status: &serde_json::Value| {
        status["xdp"]["hint"].as_str().is_some_and(|hint| hint.contains("drops most frames"))
    };
    let status = daemon.wait("the drops to be noticed", said)?;
    let forwarded = status["xdp"]["reasons"]["forwarded"]["packets"].as_u64();
    ensure!(forwarded >= Some(1000), "{}", status["xdp"]["reasons"]);
    ensure!(daemon.log().matches("drops most frames").count() == 1, "one line:\n{}", daemon.log());
    Ok(())
}
