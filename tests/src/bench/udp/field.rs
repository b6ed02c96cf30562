//! The field for very many sessions: a relay with XDP on one interface and without on another, and a host
//! that has all clients.
//!
//! ```text
//!   relay  r0 10.79.0.1 (XDP) ── f0 10.79.0.2 to .5   far
//!          r1 10.79.1.1       ── f1 10.79.1.2, .3
//! ```
//! 10.79.2.2 is a client behind a gateway, 10.79.0.2 or 10.79.0.3: its route flaps between them. 10.79.0.4 is
//! a client's host that vanishes. Sessions over the second interface stay in userspace.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use anyhow::Context as _;

use super::place::client_socket;
use super::relay::{PORT, Program, Relay};
use crate::bpf::{LabPrograms, lab_object};
use crate::lab::{End, Netns, veth};
use crate::topology::passing_checker;

/// The relay's address on the interface with XDP.
pub(in crate::bench) const RELAY: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
/// The relay's address on the other interface.
const RELAY_PLAIN: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 1);
/// The clients' addresses on the interface with XDP, side by side.
pub(in crate::bench) const CLIENTS: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 79, 0, 2), Ipv4Addr::new(10, 79, 0, 3)];
/// The clients' addresses on the other interface.
pub(in crate::bench) const PLAIN_CLIENTS: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 79, 1, 2), Ipv4Addr::new(10, 79, 1, 3)];
/// The client behind a gateway.
pub(in crate::bench) const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 79, 2, 2);
/// The client whose host vanishes.
pub(in crate::bench) const MORTAL: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 4);
/// Sessions that there is room for besides the crowd.
const ROOM: usize = 1024;
const NETWORK_BEHIND: &str = "10.79.2.0/24";
const XDP_INTERFACE: &str = "r0";
const FAR_INTERFACE: &str = "f0";
/// The directory of the BPF file system in which the maps are pinned.
const BPF_ROOT: &str = "/sys/fs/bpf";

/// The hosts, and the relay that runs on its own.
pub(in crate::bench) struct Field {
    /// The relay.
    pub(in crate::bench) relay: Relay,
    bpf_dir: PathBuf,
    // Dropped before the namespace of its interface.
    _checker: LabPrograms,
    /// The clients' host.
    pub(in crate::bench) far: Netns,
    host: Netns,
}

impl Field {
    /// Makes the hosts and starts `program` with XDP and room for `sessions`.
    pub(in crate::bench) fn start(program: &Program, sessions: usize) -> anyhow::Result<Field> {
        let (host, far) = (Netns::new("relay")?, Netns::new("far")?);
        let pairs = [(XDP_INTERFACE, FAR_INTERFACE, RELAY), ("r1", "f1", RELAY_PLAIN)];
        for (index, (own, other, address)) in (0..).zip(pairs) {
            veth(
                End { netns: &host, name: own, mac: [2, 0, 0, 0x79, index, 1] },
                End { netns: &far, name: other, mac: [2, 0, 0, 0x79, index, 2] },
            )?;
            host.ip(&["address", "add", &format!("{address}/24"), "dev", own])?;
            // XDP needs whole checksums.
            for (netns, interface) in [(&host, own), (&far, other)] {
                netns.complete_checksums(interface)?;
            }
        }
        for address in [CLIENTS[0], CLIENTS[1], MORTAL, BEHIND] {
            far.ip(&["address", "add", &format!("{address}/24"), "dev", FAR_INTERFACE])?;
        }
        for address in PLAIN_CLIENTS {
            far.ip(&["address", "add", &format!("{address}/24"), "dev", "f1"])?;
        }
        let object = lab_object().map_err(anyhow::Error::msg)?;
        let checker = passing_checker(&object, &far, FAR_INTERFACE)?;
        host.ip(&["route", "add", NETWORK_BEHIND, "via", &CLIENTS[0].to_string()])?;
        let bpf_dir = PathBuf::from(BPF_ROOT).join(host.name());
        let mut args = Relay::long_lived(program)?;
        args.extend(
            [
                "--xdp",
                XDP_INTERFACE,
                "--bpf-dir",
                &bpf_dir.to_string_lossy(),
                "--relay-max-sessions",
                &(sessions + ROOM).min(1 << 20).to_string(),
            ]
            .map(str::to_owned),
        );
        let relay = Relay::start(&host, program, &[RELAY.into(), RELAY_PLAIN.into()], &args)?;
        Ok(Field { relay, bpf_dir, _checker: checker, far, host })
    }

    /// `count` sockets of a client at `ip`.
    pub(in crate::bench) fn sockets(&self, ip: Ipv4Addr, count: usize) -> anyhow::Result<Vec<UdpSocket>> {
        let relay: IpAddr = if PLAIN_CLIENTS.contains(&ip) { RELAY_PLAIN } else { RELAY }.into();
        let socket = || client_socket((ip, 0).into(), SocketAddr::new(relay, PORT), false);
        self.far.enter(|| (0..count).map(|_| socket()).collect())?
    }

    /// The route to the client behind a gateway now leads over this one.
    pub(in crate::bench) fn flap(&self, turn: usize) -> anyhow::Result<()> {
        let gateway = CLIENTS[turn % CLIENTS.len()].to_string();
        self.host.ip(&["route", "replace", NETWORK_BEHIND, "via", &gateway])
    }

    /// The host of [`MORTAL`] vanishes, and the relay's neighbour entry with it.
    pub(in crate::bench) fn vanish(&self) -> anyhow::Result<()> {
        self.far.ip(&["address", "del", &format!("{MORTAL}/24"), "dev", FAR_INTERFACE])?;
        self.host.ip(&["neighbour", "del", &MORTAL.to_string(), "dev", XDP_INTERFACE])
    }

    /// Whether it is the kernel that forwards this session; `None`: the relay does not know the session.
    pub(in crate::bench) fn installed(&self, vni: u32) -> anyhow::Result<Option<bool>> {
        let sessions = self.relay.admin.get(&format!("/v1/sessions?filter={vni}&limit=1"))?;
        let sessions = sessions.as_array().context("sessions are a list")?;
        let found = sessions.iter().find(|session| session["vni"] == vni);
        Ok(found.map(|session| session["installed"] == true))
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // A relay that ends removes its pins, but one that was killed or is slow to end leaves them.
        self.relay.end();
        let pins = fs::read_dir(&self.bpf_dir).into_iter().flatten().flatten();
        pins.for_each(|pin| drop(fs::remove_file(pin.path())));
        let _ = fs::remove_dir(&self.bpf_dir);
    }
}
