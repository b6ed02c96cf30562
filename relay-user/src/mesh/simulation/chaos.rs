//! What happens to the region, and what must be true of it all the same.

use anyhow::{Context as _, Result, ensure};

use super::node::State;
use super::{HEALED_WITHIN, MS, Planted, World};
use crate::route::link::Way;

/// Steps of one history.
const STEPS: usize = 400;

/// Histories of a test.
const SEEDS: u64 = 60;

impl World {
    fn step(&mut self) {
        let (nodes, clients) = (self.nodes.len(), self.clients.len());
        let (node, client) = (self.random.index(nodes), self.random.index(clients));
        match self.random.below(100) {
            0..40 => {
                let to = self.random.index(clients);
                self.send(client, to);
            }
            40..55 => self.connect(client, node),
            55..62 => self.leave(client, false),
            62..74 => self.leave(client, true),
            74..78 => {
                let other = self.random.index(nodes);
                if node != other && !self.is_cut(node, other) {
                    self.cut.push((node.min(other), node.max(other)));
                }
            }
            78..83 if !self.cut.is_empty() => {
                let healed = self.random.index(self.cut.len());
                self.cut.swap_remove(healed);
            }
            83..86 if self.nodes[node].state == State::Up => self.nodes[node].state = State::Frozen,
            86..90 if self.nodes[node].state == State::Frozen => self.nodes[node].state = State::Up,
            90..94 if self.nodes[node].state != State::Dead => {
                let off = self.random.below(3) == 0;
                self.kill(node, off);
            }
            94..100 if self.nodes[node].state == State::Dead => self.restart(node),
            _ => {}
        }
        // Mostly little time passes, and sometimes enough for a link to be given up.
        let most = if self.random.below(20) == 0 { 5_000 } else { 100 };
        let pause = self.random.below(most) * MS;
        self.pump();
        self.run(pause);
    }

    /// How the nodes see each other, for a failed check.
    fn describe(&self) -> String {
        let mut text = String::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let standings: Vec<_> =
                node.region.standings().map(|(place, _, standing)| (place, standing)).collect();
            text += &format!("\nnode {number}, life {}, {:?}: {standings:?}", node.life, node.state);
            for (name, client) in self.clients.iter().enumerate() {
                let way = match node.relay.router.way(&client.key) {
                    Some(Way::Here(_)) => "here".to_owned(),
                    Some(Way::Link(remote)) => format!("{:?}", remote.link.id),
                    None => "nowhere".to_owned(),
                };
                let at = client.at.as_ref().map(|at| at.node);
                text += &format!("\n  client {name}, connected to {at:?}: {way}");
            }
        }
        text
    }

    /// What must be true at any time.
    fn check(&self) -> Result<()> {
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.state == State::Up) {
            for client in &self.clients {
                let whereabouts = node.relay.router.whereabouts(&client.key);
                match node.relay.router.way(&client.key) {
                    Some(Way::Here(peer)) => {
                        ensure!(
                            whereabouts.here.iter().any(|here| here.id == peer.id),
                            "a connection that left"
                        );
                    }
                    Some(Way::Link(remote)) => {
                        ensure!(whereabouts.here.is_empty(), "a link before a connection here");
                        ensure!(
                            self.place_of(number, remote.link.id).is_some(),
                            "node {number} has a way over a link that is down"
                        );
                        let newest = whereabouts.links.last().map(|link| link.id);
                        ensure!(newest == Some(remote.link.id), "an older claim");
                    }
                    None => ensure!(whereabouts.here.is_empty() && whereabouts.links.is_empty(), "no way"),
                }
            }
            let mut servers: Vec<_> = node
                .region
                .standings()
                .filter_map(|(_, server, standing)| {
                    matches!(standing, crate::mesh::region::Standing::Up(_)).then_some(server)
                })
                .collect();
            let links = servers.len();
            servers.sort();
            servers.dedup();
            ensure!(servers.len() == links, "two links to one relay");
            ensure!(!servers.contains(&Some(node.relay.public)), "a link to itself");
        }
        for (number, fate) in self.packets.iter().enumerate() {
            ensure!(fate.links <= 1, "packet {number} was forwarded {} times", fate.links);
            ensure!(fate.arrivals <= 1, "packet {number} arrived {} times", fate.arrivals);
        }
        Ok(())
    }

    /// Ends all faults; then every relay must reach every connected client soon.
    fn heal(&mut self) -> Result<()> {
        self.cut.clear();
        self.is_calm = true;
        for node in 0..self.nodes.len() {
            match self.nodes[node].state {
                State::Dead => self.restart(node),
                State::Frozen => self.nodes[node].state = State::Up,
                State::Up => {}
            }
        }
        for client in 0..self.clients.len() {
            while !self.clients[client].ghosts.is_empty() {
                self.leave(client, true);
            }
        }
        self.pump();
        self.run(HEALED_WITHIN);
        let mut sent = Vec::new();
        for from in 0..self.clients.len() {
            for to in 0..self.clients.len() {
                if self.clients[to].at.is_some()
                    && let Some(number) = self.send(from, to)
                {
                    sent.push((from, to, number));
                }
            }
        }
        self.pump();
        self.run(1_000 * MS);
        for (from, to, number) in sent {
            ensure!(self.packets[number].arrivals == 1, "the packet {number} from client {from} to {to}");
        }
        for node in &self.nodes {
            for client in &self.clients {
                let is_known = node.relay.router.way(&client.key).is_some();
                ensure!(is_known == client.at.is_some(), "a key that is connected nowhere has a way");
            }
        }
        self.is_calm = false;
        Ok(())
    }
}

/// Runs one history; returns its steps and packets.
fn history(seed: u64, planted: Option<Planted>) -> Result<(usize, usize)> {
    let (nodes, clients) = (2 + seed as usize % 4, 4 + seed as usize % 5);
    let mut world = World::new(seed, nodes, clients, planted);
    for step in 0..STEPS {
        let at = || format!("seed {seed}, step {step}: {nodes} relays, {clients} clients");
        world.step();
        world.check().with_context(at)?;
        if step % 100 == 99 {
            let healed = world.heal().and_then(|()| world.check());
            healed.with_context(at).with_context(|| world.describe())?;
        }
    }
    Ok((STEPS, world.packets.len()))
}

#[test]
fn whatever_happens_to_a_region_it_heals_and_no_packet_is_forwarded_twice() {
    let seeds =
        std::env::var("RELAYD_SIMULATION_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let (mut steps, mut packets) = (0, 0);
    for seed in 0..seeds {
        let (more_steps, more_packets) = history(seed, None).expect("the region stays whole");
        steps += more_steps;
        packets += more_packets;
    }
    println!("seeds 0 to {}: {steps} steps, {packets} packets", seeds - 1);
}

#[test]
fn planted_bugs_are_noticed() {
    for planted in [Planted::ForwardsAgain, Planted::KeepsClaims, Planted::WaitsForEver, Planted::LosesNews] {
        let noticed = (0..SEEDS).find_map(|seed| history(seed, Some(planted)).err());
        let noticed = noticed.unwrap_or_else(|| panic!("{planted:?} was not noticed in {SEEDS} histories"));
        println!("{planted:?}: {noticed:#}");
    }
}
