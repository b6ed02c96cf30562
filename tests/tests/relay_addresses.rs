//! What the UDP relay advertises: of the host's own addresses those that lead here, what an operator names,
//! and where STUN servers see the relay.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use relay_common::{
    key::DiscoPrivate,
    stun::{MAX_RESPONSE_LEN, TxId, binding_response, parse_binding_request},
};
use relay_tests::{
    daemon::{Daemon, STUN_PORT, Setup, run_relayd},
    lab::{End, Netns, veth},
    process::stdout,
    skip,
    topology::two_keys,
    wire::addr,
};
use serde_json::Value;

const REFUSING: &str = env!("CARGO_BIN_EXE_refusing");
/// The relay's address and a neighbour's.
const RELAY: &str = "10.77.0.1";
const NEIGHBOUR: &str = "10.77.0.2";
/// The port that the lab's relays bind.
const PORT: u16 = 7777;

/// Two hosts with IPv6 on one wire.
struct Place {
    relay: Netns,
    neighbour: Netns,
}

impl Place {
    /// `None`, after skipping `test`, without root.
    fn or_skip(test: &str) -> Result<Option<Self>> {
        if !nix::unistd::geteuid().is_root() {
            skip(test, "needs root, for network namespaces");
            return Ok(None);
        }
        let place = Self { relay: Netns::dual_stack("relay")?, neighbour: Netns::dual_stack("neighbour")? };
        let end = |netns, name, last| End { netns, name, mac: [2, 0, 0, 0x77, 1, last] };
        veth(end(&place.relay, "r0", 1), end(&place.neighbour, "n0", 2))?;
        place.relay.ip(&["address", "add", &format!("{RELAY}/24"), "dev", "r0"])?;
        place.neighbour.ip(&["address", "add", &format!("{NEIGHBOUR}/24"), "dev", "n0"])?;
        Ok(Some(place))
    }

    fn setup(&self) -> Setup {
        Setup::in_netns(self.relay.name(), addr(RELAY)).plain()
    }

    fn add(&self, address: &str, device: &str) -> Result<()> {
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        self.relay.ip(&[&["address", "add", address, "dev", device], nodad].concat())
    }
}

/// What the status says is advertised: address and source.
fn advertised(status: &Value) -> Vec<(String, String)> {
    let entries = status["udp"]["advertised"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries.map(|entry| (text(&entry["addr"]), text(&entry["from"]))).collect()
}

fn addresses(status: &Value) -> Vec<String> {
    advertised(status).into_iter().map(|(addr, _)| addr).collect()
}

/// What an allocation hands out.
fn allocated(daemon: &Daemon) -> Result<Vec<String>> {
    let [one, other] = two_keys();
    let endpoint = daemon.admin().allocate([one.public(), other.public()])?;
    Ok(endpoint.addr_ports.iter().map(ToString::to_string).collect())
}

fn wait_for(daemon: &Daemon, wanted: &[&str]) -> Result<()> {
    let what = format!("{wanted:?} to be advertised");
    daemon.wait(&what, |status| addresses(status) == wanted)?;
    ensure!(allocated(daemon)? == wanted, "an allocation says what the status says");
    Ok(())
}

#[test]
fn what_leads_here_is_advertised_and_each_change_is_said_once() -> Result<()> {
    let Some(place) = Place::or_skip("what_leads_here_is_advertised_and_each_change_is_said_once")? else {
        return Ok(());
    };
    let relay = &place.relay;
    // As Docker makes it: a bridge whose ports are the ends of containers' veths.
    relay.ip(&["link", "add", "docker0", "type", "bridge"])?;
    relay.ip(&["link", "add", "veth7", "type", "veth", "peer", "name", "guest0"])?;
    relay.ip(&["link", "set", "veth7", "master", "docker0"])?;
    relay.ip(&["link", "add", "down0", "type", "veth", "peer", "name", "down1"])?;
    for name in ["docker0", "veth7", "guest0"] {
        relay.ip(&["link", "set", name, "up"])?;
    }
    place.add("172.17.0.1/16", "docker0")?;
    place.add("192.0.2.9/24", "down0")?;
    place.add("100.100.1.2/32", "r0")?;
    place.add("fd7a:115c:a1e0::7/128", "r0")?;
    place.add("169.254.7.7/16", "r0")?;
    place.add("fd77::1/64", "r0")?;
    for host in 1..=3 {
        place.add(&format!("2001:db8::{host}/64"), "r0")?;
    }
    let daemon = Daemon::start(place.setup())?;
    // The kernel names the newest IPv6 address first.
    let at_first = ["10.77.0.1:7777", "[2001:db8::3]:7777", "[2001:db8::2]:7777"];
    wait_for(&daemon, &at_first)?;
    ensure!(advertised(&daemon.admin().status()?).iter().all(|(_, from)| from == "interface r0"));
    let printed = run_relayd(&["status", "--admin-socket", &daemon.admin().path().to_string_lossy()])?;
    ensure!(printed.contains("advertised") && printed.contains("10.77.0.1:7777, interface r0"), "{printed}");

    relay.ip(&["address", "del", "2001:db8::3/64", "dev", "r0"])?;
    wait_for(&daemon, &["10.77.0.1:7777", "[2001:db8::2]:7777", "[2001:db8::1]:7777"])?;
    let log = daemon.log();
    ensure!(log.matches("advertised addresses changed").count() == 1, "{log}");
    let line = log.lines().find(|line| line.contains("addresses changed")).context("a line")?;
    ensure!(line.contains("[2001:db8::1]:7777") && line.contains("[2001:db8::3]:7777"), "{line}");
    ensure!(!line.contains("10.77.0.1"), "what stays is not said: {line}");

    // A bridge that has got a port to elsewhere leads here.
    relay.ip(&["link", "add", "vx0", "type", "vxlan", "id", "5", "dstport", "4789", "dev", "r0"])?;
    relay.ip(&["link", "set", "vx0", "master", "docker0"])?;
    let with_bridge = ["10.77.0.1:7777", "172.17.0.1:7777", "[2001:db8::2]:7777", "[2001:db8::1]:7777"];
    wait_for(&daemon, &with_bridge)?;
    relay.ip(&["link", "set", "r0", "down"])?;
    daemon.wait("nothing of r0", |status| addresses(status).iter().all(|one| !one.starts_with("10.77")))?;
    relay.ip(&["link", "del", "docker0"])?;
    let empty = daemon.wait("nothing at all", |status| addresses(status).is_empty());
    empty.with_context(|| daemon.log())?;
    let [one, other] = two_keys();
    let refused = daemon.admin().allocate([one.public(), other.public()]).expect_err("no address");
    ensure!(refused.to_string().contains("--advertise"), "{refused}");
    ensure!(daemon.log().contains("no address is left to advertise"), "{}", daemon.log());
    Ok(())
}

#[test]
fn without_an_ipv6_socket_no_ipv6_address_is_advertised() -> Result<()> {
    let Some(place) = Place::or_skip("without_an_ipv6_socket_no_ipv6_address_is_advertised")? else {
        return Ok(());
    };
    place.add("2001:db8::1/64", "r0")?;
    let daemon = Daemon::start(place.setup().under(&[REFUSING, "ipv6"]))?;
    wait_for(&daemon, &["10.77.0.1:7777"])?;
    drop(daemon);
    let daemon = Daemon::start(place.setup())?;
    wait_for(&daemon, &["10.77.0.1:7777", "[2001:db8::1]:7777"])
}

#[test]
fn what_the_operator_names_stands_for_the_hosts_own() -> Result<()> {
    let given = ["--advertise", "203.0.113.7,[2001:db8::7]:9", "--relay-server-port", "0"];
    let mut setup = Setup::loopback();
    setup.args.clear();
    let daemon = Daemon::start(setup.clone().with(&given))?;
    let port = daemon.udp()?.port();
    wait_for(&daemon, &[&format!("203.0.113.7:{port}"), "[2001:db8::7]:9"])?;
    ensure!(advertised(&daemon.admin().status()?).iter().all(|(_, from)| from == "--advertise"));
    drop(daemon);
    let fixed = ["--relay-server-static-endpoints", "198.51.100.1:1"];
    let daemon = Daemon::start(setup.with(&[&given[..], &fixed].concat()))?;
    let port = daemon.udp()?.port();
    wait_for(&daemon, &["198.51.100.1:1", &format!("203.0.113.7:{port}"), "[2001:db8::7]:9"])
}

/// Answers STUN with addresses of the test's choice, and also from a port that nobody asked.
struct FakeStun {
    at: SocketAddr,
    tells: Mutex<SocketAddr>,
    silent: AtomicBool,
}

impl FakeStun {
    fn new(at: &str, tells: &str) -> Self {
        let [at, tells] = [at, tells].map(|text| text.parse().expect("an address"));
        Self { at, tells: Mutex::new(tells), silent: AtomicBool::new(false) }
    }

    /// Serves until `stop`, in the namespace of the calling thread.
    fn serve(&self, stop: &AtomicBool) -> Result<()> {
        let socket = UdpSocket::bind(self.at)?;
        let liar = UdpSocket::bind((self.at.ip(), 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut datagram = [0; 128];
        while !stop.load(Ordering::Relaxed) {
            let Ok((len, from)) = socket.recv_from(&mut datagram) else { continue };
            let transaction = parse_binding_request(&datagram[..len])?;
            let mut answer = [0; MAX_RESPONSE_LEN];
            let lie = binding_response(transaction, "203.0.113.66:6".parse()?, &mut answer);
            liar.send_to(&answer[..lie], from)?;
            let guess = binding_response(TxId([9; 12]), "203.0.113.66:6".parse()?, &mut answer);
            socket.send_to(&answer[..guess], from)?;
            if !self.silent.load(Ordering::Relaxed) {
                let tells = *self.tells.lock().expect("no panic");
                let len = binding_response(transaction, tells, &mut answer);
                socket.send_to(&answer[..len], from)?;
            }
        }
        Ok(())
    }
}

/// Runs `test` while the servers answer in the neighbour's namespace.
fn with_servers(place: &Place, servers: &[FakeStun], test: impl FnOnce() -> Result<()>) -> Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let serving: Vec<_> = servers
            .iter()
            .map(|server| scope.spawn(|| place.neighbour.enter(|| server.serve(&stop))))
            .collect();
        let done = test();
        stop.store(true, Ordering::Relaxed);
        for server in serving {
            server.join().map_err(|_| anyhow::anyhow!("a server panicked"))???;
        }
        done
    })
}

#[test]
fn where_a_stun_server_sees_the_relay_is_advertised_and_lies_are_not() -> Result<()> {
    let Some(place) = Place::or_skip("where_a_stun_server_sees_the_relay_is_advertised_and_lies_are_not")?
    else {
        return Ok(());
    };
    let server = format!("{NEIGHBOUR}:3478");
    let servers = [FakeStun::new(&server, "203.0.113.9:7777")];
    with_servers(&place, &servers, || {
        let daemon = Daemon::start(place.setup().with(&["--relay-server-stun", &server]))?;
        wait_for(&daemon, &["10.77.0.1:7777", "203.0.113.9:7777"])?;
        let status = daemon.wait("the lies to be counted", |status| {
            let counters = &status["counters"];
            counters["udp_drop_stun"] == 2 && counters["udp_stun_answers"] == 1
        })?;
        ensure!(advertised(&status)[1].1 == format!("seen by {server}"), "{status}");
        let asked = &status["udp"]["stun_servers"][0];
        ensure!(asked["seen"] == "203.0.113.9:7777" && asked["silent"] == false, "{asked}");
        ensure!(status["counters"]["udp_drop_options"] == 0, "no answer is taken for Geneve");

        // The NAT gives the relay another address. A change of the host's asks again before its time.
        *servers[0].tells.lock().expect("no panic") = "203.0.113.10:7777".parse()?;
        place.add("10.78.0.1/24", "r0")?;
        wait_for(&daemon, &["10.77.0.1:7777", "10.78.0.1:7777", "203.0.113.10:7777"])?;
        let log = daemon.log();
        for part in ["203.0.113.9:7777", "203.0.113.10:7777", "the STUN server answers"] {
            ensure!(log.contains(part), "no {part} in {log}");
        }
        let changes = log.matches("advertised addresses changed").count();
        ensure!(changes == 3, "seen, another address, seen elsewhere: {changes} in {log}");
        Ok(())
    })
}

#[test]
fn where_two_servers_disagree_the_relays_own_port_is_guessed() -> Result<()> {
    let Some(place) = Place::or_skip("where_two_servers_disagree_the_relays_own_port_is_guessed")? else {
        return Ok(());
    };
    let [one, other] = [format!("{NEIGHBOUR}:3478"), format!("{NEIGHBOUR}:3479")];
    let servers = [FakeStun::new(&one, "203.0.113.9:1001"), FakeStun::new(&other, "203.0.113.9:1002")];
    with_servers(&place, &servers, || {
        let daemon = Daemon::start(place.setup().with(&["--relay-server-stun", &format!("{one},{other}")]))?;
        wait_for(&daemon, &["10.77.0.1:7777", "203.0.113.9:1001", "203.0.113.9:7777"])?;
        let status = daemon.admin().status()?;
        ensure!(advertised(&status)[2].1.starts_with("a guess"), "{status}");
        Ok(())
    })
}

#[test]
fn a_silent_server_is_said_once_and_costs_nothing_else() -> Result<()> {
    let Some(place) = Place::or_skip("a_silent_server_is_said_once_and_costs_nothing_else")? else {
        return Ok(());
    };
    let dead = format!("{NEIGHBOUR}:9,no.such.host.invalid:3478");
    let daemon = Daemon::start(place.setup().with(&["--relay-server-stun", &dead]))?;
    daemon.wait("the server to be given up", |status| status["udp"]["stun_servers"][0]["silent"] == true)?;
    wait_for(&daemon, &["10.77.0.1:7777"])?;
    let unknown = &daemon
        .wait("the name to be looked up", |_| daemon.log().contains("the STUN server's name is not found"))?
        ["udp"]["stun_servers"][1];
    ensure!(unknown["server"] == "no.such.host.invalid:3478" && unknown["addr"].is_null(), "{unknown}");
    let log = daemon.log();
    ensure!(log.matches("does not answer").count() == 1, "{log}");
    Ok(())
}

/// The relay asks from the port that clients use, over both families, and what it asks is a STUN server of
/// ours.
#[test]
fn another_relayd_tells_where_it_sees_this_one() -> Result<()> {
    let Some(place) = Place::or_skip("another_relayd_tells_where_it_sees_this_one")? else { return Ok(()) };
    place.add("2001:db8::1/64", "r0")?;
    place.neighbour.ip(&["address", "add", "2001:db8::2/64", "dev", "n0", "nodad"])?;
    let other = Daemon::start(Setup::in_netns(place.neighbour.name(), addr("::")).plain())?;
    let servers = format!("{NEIGHBOUR}:{STUN_PORT},[2001:db8::2]:{STUN_PORT}");
    // A static endpoint stands for the host's own addresses, so that what is seen is shown.
    let fixed = ["--relay-server-static-endpoints", "198.51.100.1:1", "--relay-server-stun", &servers];
    let daemon = Daemon::start(place.setup().with(&fixed))?;
    wait_for(&daemon, &["198.51.100.1:1", "10.77.0.1:7777", "[2001:db8::1]:7777"])?;
    ensure!(other.counter("stun_answered")? >= 2);
    Ok(())
}

/// With nftables: the relay stands behind a translation one to one, and a client reaches it at the address
/// that the STUN server outside has told.
#[test]
fn behind_a_nat_the_outer_address_is_advertised_and_leads_here() -> Result<()> {
    let test = "behind_a_nat_the_outer_address_is_advertised_and_leads_here";
    let Some(place) = Place::or_skip(test)? else { return Ok(()) };
    if stdout(std::process::Command::new("nft").arg("--version")).is_err() {
        skip(test, "no nft for the translation (apt-get install nftables)");
        return Ok(());
    }
    // The neighbour becomes the router: inside n0, outside o0 with a public address for the relay.
    let outside = Netns::new("outside")?;
    let end = |netns, name, last| End { netns, name, mac: [2, 0, 0, 0x77, 2, last] };
    veth(end(&place.neighbour, "o0", 1), end(&outside, "c0", 2))?;
    for public in ["203.0.113.1/24", "203.0.113.9/24"] {
        place.neighbour.ip(&["address", "add", public, "dev", "o0"])?;
    }
    outside.ip(&["address", "add", "203.0.113.2/24", "dev", "c0"])?;
    place.relay.ip(&["route", "add", "default", "via", NEIGHBOUR])?;
    place.neighbour.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
    let rules = "table ip lab { \
        chain in { type nat hook prerouting priority -100; ip daddr 203.0.113.9 dnat to 10.77.0.1; }; \
        chain out { type nat hook postrouting priority 100; ip saddr 10.77.0.1 snat to 203.0.113.9; }; }";
    place.neighbour.command("nft", &[rules])?;
    let server = Daemon::start(Setup::in_netns(outside.name(), addr("203.0.113.2")).plain())?;
    let asked = format!("203.0.113.2:{STUN_PORT}");
    let daemon = Daemon::start(place.setup().with(&["--relay-server-stun", &asked]))?;
    wait_for(&daemon, &["10.77.0.1:7777", "203.0.113.9:7777"])?;
    ensure!(server.counter("stun_answered")? >= 1);
    // A client outside binds at the address that it was told.
    let [one, other]: [DiscoPrivate; 2] = two_keys();
    let endpoint = daemon.admin().allocate([one.public(), other.public()])?;
    let seen = SocketAddr::new(addr("203.0.113.9"), PORT);
    let local = SocketAddr::new(IpAddr::from([203, 0, 113, 2]), 41_641);
    let mut client =
        outside.enter(|| relay_tests::udp_client::UdpClient::new(&endpoint, seen, &one, local))??;
    client.bind(daemon.admin())
}
