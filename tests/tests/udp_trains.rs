//! Trains of datagrams through the daemon's sockets, where the kernel refuses to send them as they came.

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use rand_core::OsRng;
use relay_common::key::DiscoPrivate;
use relay_tests::{
    daemon::{Daemon, Setup},
    lab::Netns,
    skip,
    udp_client::{DEADLINE, UdpClient},
};

/// A host in whose loopback the path to the second client takes only small packets.
struct Site {
    daemon: Daemon,
    clients: [UdpClient; 2],
    // Dropped after the daemon.
    _netns: Netns,
}

const CLIENTS: [&str; 2] = ["127.0.0.8:5000", "127.0.0.9:5000"];
const PATH_MTU: &str = "1000";

impl Site {
    fn or_skip(test: &str) -> Result<Option<Self>> {
        let netns = match Netns::new("trains") {
            Ok(netns) => netns,
            Err(reason) => {
                skip(test, &format!("{reason:#}"));
                return Ok(None);
            }
        };
        netns.ip(&[
            "route",
            "replace",
            "local",
            "127.0.0.9",
            "dev",
            "lo",
            "table",
            "local",
            "mtu",
            PATH_MTU,
        ])?;
        let setup = Setup::in_netns(netns.name(), "127.0.0.1".parse()?).plain();
        let daemon = Daemon::start(setup.with(&["--relay-server-static-endpoints", "127.0.0.1:1"]))?;
        let keys = [DiscoPrivate::generate(&mut OsRng), DiscoPrivate::generate(&mut OsRng)];
        let endpoint = daemon.admin().allocate(keys.each_ref().map(DiscoPrivate::public))?;
        let relay = daemon.udp()?;
        let client = |n: usize| -> Result<UdpClient> {
            let local = CLIENTS[n].parse()?;
            let mut client = netns.enter(|| UdpClient::new(&endpoint, relay, &keys[n], local))??;
            client.bind(daemon.admin())?;
            Ok(client)
        };
        let clients = [client(0)?, client(1)?];
        Ok(Some(Self { daemon, clients, _netns: netns }))
    }

    /// Sends `count` datagrams with bodies of `size` bytes as one train, and receives them.
    fn train(&self, from: usize, count: u8, size: usize) -> Result<()> {
        let datagrams: Vec<_> = (0..count).map(|n| self.clients[from].data(&vec![n; size])).collect();
        setsockopt(&self.clients[from].socket, sockopt::UdpGsoSegment, &(datagrams[0].len() as i32))?;
        self.clients[from].send_raw(&datagrams.concat())?;
        for n in 0..count {
            let got = self.clients[1 - from].recv(DEADLINE)?.context("all of them arrive")?;
            assert_eq!(got, vec![n; size], "in order");
        }
        Ok(())
    }

    fn counters(&self) -> Result<[u64; 3]> {
        let count = |label: &str| self.daemon.counter(label);
        Ok([count("udp_forwarded")?, count("udp_sent_apart")?, count("udp_send_failed")?])
    }
}

#[test]
fn a_train_of_datagrams_larger_than_the_paths_mtu_arrives_all_the_same() -> Result<()> {
    let test = "a_train_of_datagrams_larger_than_the_paths_mtu_arrives_all_the_same";
    let Some(site) = Site::or_skip(test)? else { return Ok(()) };
    site.train(0, 20, 1300)?;
    assert_eq!(site.counters()?, [20, 1, 0], "refused once, then sent apart");
    // The destination is remembered, and what fits still travels together.
    site.train(0, 20, 1300)?;
    site.train(0, 20, 800)?;
    site.train(1, 20, 1300)?;
    assert_eq!(site.counters()?, [80, 1, 0]);
    Ok(())
}
