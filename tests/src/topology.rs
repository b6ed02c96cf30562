//! The lab: a relay and two clients on one Ethernet, each on its own host.
//!
//! ```text
//!   relay: r0 -- sw-relay |        | sw-0 -- c0 :alice
//!                         | switch |
//!                         |        | sw-1 -- c0 :bob
//! ```
//! The switch's port towards the relay runs a native XDP program that checks every checksum and passes the
//! frame on. Without a program there, the veth would not deliver the frames of the relay's program. Checksum
//! offload is off on every host.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use relay_common::{key::DiscoPrivate, net::datagram::Datagram};
use relay_ebpf::lab::{Checked, LabConfig};

use crate::{
    bpf::{LabPrograms, Objects},
    client::{Client, Dial},
    daemon::{Daemon, Setup, run_relayd},
    lab::{End, Netns, veth},
    process::until,
    raw::RawSender,
    skip,
    udp_client::UdpClient,
};

/// The relay's interface.
pub const RELAY_INTERFACE: &str = "r0";
/// The relay's address.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The clients' addresses.
pub const CLIENTS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3)];
/// Ports to which clients bind. They are fixed, so that two runs send the same packets, and so that no packet
/// is the one in 65,536 whose checksum looks partial and which XDP leaves to userspace.
pub const CLIENT_PORTS: [u16; 2] = [41_641, 50_001];
/// Length of the network's prefix.
const PREFIX: &str = "24";
/// The clients' interface; each client has its own namespace.
const CLIENT_INTERFACE: &str = "c0";
/// The switch's port towards the relay.
const RELAY_PORT: &str = "sw-relay";
/// The switch's ports towards the clients.
const CLIENT_SWITCH_PORTS: [&str; 2] = ["sw-0", "sw-1"];
/// Number of the relay's host, used in its link-layer addresses.
const RELAY_HOST: u8 = 1;
const FIRST_CLIENT: u8 = 2;
/// The switch's bridge.
const BRIDGE: &str = "br0";

/// The hosts and the switch that connects them.
#[derive(Debug)]
pub struct Lab {
    // Dropped before the namespaces, so that its programs are detached while their interfaces still exist.
    checker: Option<LabPrograms>,
    /// The daemon's host.
    pub relay: Netns,
    /// The host that connects the others.
    pub switch: Netns,
    /// Alice's host and Bob's.
    pub clients: [Netns; 2],
}

impl Lab {
    /// The lab with its checker, or `None` after skipping `test` if the lab cannot be built.
    pub fn or_skip(test: &str) -> Result<Option<Self>> {
        match objects() {
            Ok(objects) => Self::new(Some(&objects)).map(Some),
            Err(reason) => {
                skip(test, &reason);
                Ok(None)
            }
        }
    }

    /// Builds the lab. Without objects it has no XDP program, and then the relay must not use one either.
    pub fn new(objects: Option<&Objects>) -> Result<Self> {
        let (relay, switch) = (Netns::new("relay")?, Netns::new("switch")?);
        let clients = [Netns::new("alice")?, Netns::new("bob")?];
        switch.enter(no_bridge_filter)??;
        switch.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        switch.ip(&["link", "set", BRIDGE, "up"])?;
        connect(&relay, RELAY_INTERFACE, RELAY, RELAY_HOST, &switch, RELAY_PORT)?;
        for (index, client) in (0..).zip(&clients) {
            let port = CLIENT_SWITCH_PORTS[usize::from(index)];
            connect(
                client,
                CLIENT_INTERFACE,
                CLIENTS[usize::from(index)],
                FIRST_CLIENT + index,
                &switch,
                port,
            )?;
        }
        let checker = objects.map(|objects| attach_checker(objects, &switch)).transpose()?;
        Ok(Self { checker, relay, switch, clients })
    }

    /// The setup of a daemon on the relay, without XDP.
    pub fn setup(&self) -> Setup {
        Setup::in_netns(self.relay.name(), RELAY.into())
    }

    /// The setup of a daemon on the relay, with XDP on its interface.
    pub fn setup_xdp(&self) -> Setup {
        self.setup().xdp(RELAY_INTERFACE)
    }

    /// Connects a DERP client from the host of client `index`.
    pub fn derp_client(&self, index: usize, dial: &Dial) -> Result<Client> {
        self.clients[index].enter(|| Client::connect(dial))?
    }

    /// Two clients of a new session, one on each host, from the ports `ports`; their legs are not bound.
    pub fn session(&self, daemon: &Daemon, ports: [u16; 2]) -> Result<[UdpClient; 2]> {
        let [alice, bob] = &self.clients;
        clients_of(daemon, [alice, bob], ports)
    }

    /// Makes a session with [`Self::session`] and binds both legs. With `--xdp`, it waits until the kernel
    /// forwards the session.
    pub fn bound_session(&self, daemon: &Daemon, ports: [u16; 2]) -> Result<[UdpClient; 2]> {
        let mut clients = self.session(daemon, ports)?;
        for client in &mut clients {
            client.bind(daemon.admin())?;
        }
        if daemon.has_xdp() {
            daemon.wait_installed(clients[0].endpoint.vni.get())?;
        }
        Ok(clients)
    }

    /// Frames from the relay so far, by the checker's result.
    pub fn checked(&self) -> Result<[u64; Checked::COUNT as usize]> {
        self.checker.as_ref().context("a lab without XDP checks nothing")?.checked()
    }

    /// A socket for whole frames out of the interface of client `index`.
    pub fn raw_sender(&self, index: usize) -> Result<RawSender> {
        RawSender::open(&self.clients[index], CLIENT_INTERFACE)
    }
}

/// The objects, if a daemon with XDP can be tested with them.
///
/// # Errors
/// What is missing.
pub fn objects() -> Result<Objects, String> {
    let objects = Objects::find()?;
    let version = run_relayd(&["--version"]).map_err(|error| format!("{error:#}"))?;
    if version.contains("without the XDP program") {
        return Err("relayd is built without the XDP program (`cargo xtask build`)".to_owned());
    }
    Ok(objects)
}

/// Allocates a session for two new keys and makes its clients. Each is in its namespace and uses the lab's
/// address of that client and a port of `ports`. Their legs are not bound. The order is that of the session's
/// legs, which is that of the keys.
pub fn clients_of(daemon: &Daemon, hosts: [&Netns; 2], ports: [u16; 2]) -> Result<[UdpClient; 2]> {
    let [one, other] = two_keys();
    let endpoint = daemon.admin().allocate([one.public(), other.public()])?;
    let relay = *endpoint.addr_ports.first().context("an endpoint without addresses")?;
    let client = |index: usize, key: &DiscoPrivate| -> Result<UdpClient> {
        let local = SocketAddr::new(IpAddr::V4(CLIENTS[index]), ports[index]);
        hosts[index].enter(|| UdpClient::new(&endpoint, relay, key, local))?
    };
    Ok([client(0, &one)?, client(1, &other)?])
}

/// The sum of all reasons of the program, and the frames that the relay's driver gave to XDP: as soon as they
/// agree, or the last values if they still disagree at the deadline. A frame may arrive between two readings,
/// but none may get lost.
pub fn reasons_and_frames(relay: &Netns, daemon: &Daemon) -> Result<(u64, u64)> {
    let mut found = (0, 0);
    let agree = until("reasons and frames to agree", || {
        let status = daemon.admin().status()?;
        let reasons = status["xdp"]["reasons"].as_object().context("reasons by label")?;
        let reasons = reasons.values().filter_map(|count| count["packets"].as_u64()).sum();
        found = (reasons, xdp_frames(&relay.output("ethtool", &["-S", RELAY_INTERFACE])?)?);
        Ok(found.0 == found.1)
    });
    // If they disagree, the numbers say more than the timeout.
    let _ = agree;
    Ok(found)
}

/// Two disco keys, ascending by their public keys.
pub fn two_keys() -> [DiscoPrivate; 2] {
    let [one, other] = [(); 2].map(|()| DiscoPrivate::generate(&mut rand_core::OsRng));
    if one.public() < other.public() { [one, other] } else { [other, one] }
}

/// The IPv4 socket address in `addr`; any other is an error.
pub fn v4(addr: SocketAddr) -> Result<SocketAddrV4> {
    match addr {
        SocketAddr::V4(addr) => Ok(addr),
        SocketAddr::V6(addr) => anyhow::bail!("{addr} is not IPv4"),
    }
}

/// The sum of a veth's counters `rx_queue_N_xdp_packets` over all queues.
fn xdp_frames(statistics: &str) -> Result<u64> {
    let counts = statistics.lines().filter_map(|line| line.trim().split_once(": "));
    let counts = counts.filter(|(name, _)| name.starts_with("rx_queue_") && name.ends_with("_xdp_packets"));
    let counts = counts.map(|(_, count)| count.parse::<u64>()).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!counts.is_empty(), "the driver counts no XDP frames");
    Ok(counts.iter().sum())
}

/// The frame of a UDP payload from client `index` to the relay.
pub fn client_frame(index: u8, source: SocketAddr, relay: SocketAddr, payload: &[u8]) -> Result<Vec<u8>> {
    let (source, destination) = (v4(source)?, v4(relay)?);
    let (source_mac, destination_mac) = (mac(FIRST_CLIENT + index), mac(RELAY_HOST));
    let (tos, id, ttl) = (0, 0x4242, 64);
    Ok(Datagram { source_mac, destination_mac, source, destination, tos, id, ttl, payload }.to_frame())
}

/// The link-layer address of a host by its number: 1 is the relay, 2 and 3 are the clients.
pub fn mac(host: u8) -> [u8; 6] {
    [0x02, 0, 0, 0x77, 0, host]
}

/// Stops bridges from passing frames to netfilter, which would drop malformed IP packets before the relay.
pub(crate) fn no_bridge_filter() -> io::Result<()> {
    match fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn connect(
    host: &Netns,
    interface: &str,
    ip: Ipv4Addr,
    number: u8,
    switch: &Netns,
    port: &str,
) -> Result<()> {
    veth(
        End { netns: host, name: interface, mac: mac(number) },
        End { netns: switch, name: port, mac: mac(0x80 | number) },
    )?;
    host.ip(&["address", "add", &format!("{ip}/{PREFIX}"), "dev", interface])?;
    switch.ip(&["link", "set", port, "master", BRIDGE])?;
    host.complete_checksums(interface)
}

fn attach_checker(objects: &Objects, switch: &Netns) -> Result<LabPrograms> {
    passing_checker(&objects.lab, switch, RELAY_PORT)
}

/// Attaches a checker that passes every frame on. A veth takes the frames of the relay's program only while
/// a program is attached to its other end.
pub fn passing_checker(object: &Path, netns: &Netns, interface: &str) -> Result<LabPrograms> {
    let mut checker = LabPrograms::load(object)?;
    checker.configure(&LabConfig { egress: 0, template_mask: 0, drop: 0, reserved: 0 })?;
    let attach = || -> Result<_> { Ok(checker.checker()?.attach(interface, XdpMode::Driver)?) };
    netns.enter(attach)?.with_context(|| format!("attaching to {interface}"))?;
    Ok(checker)
}
