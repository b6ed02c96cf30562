//! The demo's region: the relay and a second one on the same host, with links to each other.

use anyhow::{Context as _, Result};

use super::{
    PACKETS,
    account::{self, Account},
    place::Place,
    rung::Rung,
    say,
    traffic::by_derp,
};
use crate::{
    client::{Client, Start},
    daemon::Daemon,
    neighbours::Neighbours,
    process::until,
};

/// Starts the second relay, with a client of its own, and sends packets between its client and the first's.
pub(super) fn mesh(
    place: &Place,
    relayd: &Daemon,
    region: &Neighbours,
    alice: &mut Client,
    account: &mut Account,
) -> Result<Rung> {
    say("a second relay of the region starts; carol connects to it");
    let second = Daemon::start(region.join(place.second(region.second())))?;
    let mut carol = place.beside(|| Client::connect(&second.dial(Start::Fast)?))??;
    for (relay, key) in [(relayd, carol.key()), (&second, alice.key())] {
        until("each relay to know the other's client", || {
            let why = relay.admin().get(&format!("/v1/why?key={key}"))?;
            Ok(why["found"].as_array().is_some_and(|found| found.iter().any(|at| at["rung"] == "mesh")))
        })?;
    }
    say(&format!("{PACKETS} packets between alice and carol, each over the link of its sender's relay"));
    let before = [relayd.admin().status()?, second.admin().status()?];
    let traffic = by_derp(alice, &mut carol, PACKETS)?;
    let half = traffic.sent / 2;
    let mut counted = Vec::new();
    for (relay, before) in [relayd, &second].into_iter().zip(&before) {
        let after = relay.wait("the packets to be counted", |status| {
            account::grown(before, status, "packets_sent") >= half
        })?;
        let grown = |label| account::grown(before, &after, label);
        account.equal("mesh: received from the relay's own client", grown("packets_received"), half);
        account.equal("mesh: over the link", grown("packets_forwarded_out"), half);
        account.equal("mesh: from the other relay", grown("packets_forwarded_in"), half);
        account.equal("mesh: sent to the relay's own client", grown("packets_sent"), half);
        account.equal("mesh: bytes over the link", grown("bytes_forwarded_out"), traffic.bytes / 2);
        for drops in ["drop_mesh_link", "drop_queue_head", "drop_unknown_dest"] {
            account.equal(&format!("mesh: {drops}"), grown(drops), 0);
        }
        counted.push(grown("packets_forwarded_out"));
    }
    account.delivered("mesh", &traffic);
    let counted: Vec<_> = counted.iter().map(ToString::to_string).collect();
    let counted = format!("counter `packets_forwarded_out`: {} at the two relays", counted.join(" and "));
    drop(carol);
    drop(second);
    relayd.wait("the second relay to be gone", |status| status["derp"]["clients"] == 2).context("mesh")?;
    Ok(Rung::new("mesh", traffic, counted))
}
