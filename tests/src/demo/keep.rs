//! `--keep`: the lab stays, with a little traffic to look at, until Ctrl-C.

use std::{thread, time::Duration};

use anyhow::Result;

use super::{interrupt, place::Place};
use crate::{
    client::Start,
    daemon::{Daemon, binary},
};

/// Time between two packets of this traffic.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts the daemon again and keeps everything until Ctrl-C, then lets the caller clean up.
pub(super) fn keep(place: &Place) -> Result<()> {
    println!();
    let relayd = place.start(place.setup())?;
    let mut alice = place.derp_client(0, &relayd.dial(Start::Fast)?)?;
    let mut bob = place.derp_client(1, &relayd.dial(Start::Normal)?)?;
    let session = place.bound_session(&relayd)?;
    print_commands(place, &relayd)?;
    let mut number: u64 = 0;
    while !interrupt::came() {
        let packet = number.to_be_bytes();
        if alice.send(&bob.key(), &packet).and_then(|()| bob.recv_packet()).is_err() && interrupt::came() {
            // The terminal's Ctrl-C also reaches the daemon, which may end first.
            break;
        }
        session[0].send(&packet)?;
        session[1].send(&packet)?;
        for client in &session {
            while client.recv(Duration::from_millis(1))?.is_some() {}
        }
        number += 1;
        thread::sleep(PAUSE);
    }
    println!("\ncleaning up");
    Ok(())
}

fn print_commands(place: &Place, relayd: &Daemon) -> Result<()> {
    let program = binary()?;
    let (program, socket) = (program.display(), relayd.admin().path().display());
    println!(
        "\nthe lab stays, and packets go on through DERP and the session; look around from another terminal:"
    );
    for question in ["status", "clients", "sessions"] {
        println!("  {program} {question} --admin-socket {socket}");
    }
    if let Place::Lab(lab) = place {
        let (relay, pins) = (lab.relay.name(), relayd.bpf_dir().display());
        println!("  {program} inspect --bpf-dir {pins}");
        println!("  bpftool map dump pinned {pins}/SESSIONS");
        println!("  nsenter --net=/run/netns/{relay} ip -details link show r0");
        println!("  nsenter --net=/run/netns/{relay} ethtool -S r0");
    }
    println!("Ctrl-C ends it and removes everything.");
    Ok(())
}
