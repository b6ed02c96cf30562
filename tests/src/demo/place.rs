//! Where the demo runs: in a lab of network namespaces or, without the rights for it, over loopback.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use relay_ebpf::lab::Checked;

use super::{account::Account, say};
use crate::{
    client::{Client, Dial},
    daemon::{Daemon, Setup},
    topology::{self, CLIENT_PORTS, CLIENTS, Lab, RELAY, RELAY_INTERFACE, two_keys},
    udp_client::UdpClient,
};

/// Where the hosts and the daemon run.
#[derive(Debug)]
pub(super) enum Place {
    /// Each host has its own namespace, with XDP between them.
    Lab(Box<Lab>),
    /// Everything is on the loopback interface; no XDP.
    Loopback,
}

/// Frames from the relay that the lab's checker saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByChecksum {
    /// Frames with correct checksums.
    pub(super) good: u64,
    /// Frames with a wrong checksum or without one.
    pub(super) bad: u64,
}

impl Place {
    /// The lab if possible, else loopback; prints what is missing.
    pub(super) fn new() -> Result<Self> {
        match topology::objects() {
            Ok(objects) => {
                let lab = Lab::new(Some(&objects))?;
                say(&format!("a lab of network namespaces: {}, {}", lab.relay.name(), lab.switch.name()));
                let [alice, bob] = &lab.clients;
                say(&format!(
                    "relay {RELAY}, {} {}, {} {}",
                    alice.name(),
                    CLIENTS[0],
                    bob.name(),
                    CLIENTS[1]
                ));
                Ok(Self::Lab(Box::new(lab)))
            }
            Err(reason) => {
                say(&format!("no lab and no XDP here: {reason}; over loopback instead, without that rung"));
                Ok(Self::Loopback)
            }
        }
    }

    /// Whether the daemon can have XDP here.
    pub(super) fn has_xdp(&self) -> bool {
        matches!(self, Self::Lab(_))
    }

    /// The settings of the daemon, with XDP if possible.
    pub(super) fn setup(&self) -> Setup {
        match self {
            Self::Lab(lab) => lab.setup_xdp(),
            Self::Loopback => Setup::loopback(),
        }
    }

    /// An address for a second relay on the daemon's host.
    pub(super) fn second_ip(&self) -> IpAddr {
        match self {
            Self::Lab(_) => [127, 0, 0, 2].into(),
            Self::Loopback => Setup::loopback().ip,
        }
    }

    /// The settings of a second relay on the daemon's host, without UDP and XDP.
    pub(super) fn second(&self, ip: IpAddr) -> Setup {
        let setup = match self {
            Self::Lab(lab) => Setup::in_netns(lab.relay.name(), ip),
            Self::Loopback => Setup { ip, ..Setup::loopback() },
        };
        Setup { args: Vec::new(), ..setup }
    }

    /// Calls `inside` on the daemon's host.
    pub(super) fn beside<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T> {
        match self {
            Self::Lab(lab) => lab.relay.enter(inside),
            Self::Loopback => Ok(inside()),
        }
    }

    /// Starts the daemon.
    pub(super) fn start(&self, setup: Setup) -> Result<Daemon> {
        let daemon = Daemon::start(setup)?;
        let status = daemon.admin().status()?;
        let fast_path = match self.has_xdp() {
            true => format!("native XDP on {RELAY_INTERFACE}, program {}", status["xdp"]["program_id"]),
            false => "no XDP".to_owned(),
        };
        say(&format!(
            "relayd {} runs on {}, {fast_path}",
            status["version"].as_str().unwrap_or("?"),
            daemon.ip()
        ));
        Ok(daemon)
    }

    /// Connects a DERP client from one of the two hosts.
    pub(super) fn derp_client(&self, index: usize, dial: &Dial) -> Result<Client> {
        match self {
            Self::Lab(lab) => lab.derp_client(index, dial),
            Self::Loopback => Client::connect(dial),
        }
    }

    /// A session with both legs bound, one from each host; with XDP, it waits until the kernel forwards it.
    pub(super) fn bound_session(&self, daemon: &Daemon) -> Result<[UdpClient; 2]> {
        match self {
            Self::Lab(lab) => lab.bound_session(daemon, CLIENT_PORTS),
            Self::Loopback => {
                let [one, other] = two_keys();
                let endpoint = daemon.admin().allocate([one.public(), other.public()])?;
                let (relay, local) = (daemon.udp()?, SocketAddr::new(daemon.ip(), 0));
                let mut clients = [
                    UdpClient::new(&endpoint, relay, &one, local)?,
                    UdpClient::new(&endpoint, relay, &other, local)?,
                ];
                for client in &mut clients {
                    client.bind(daemon.admin())?;
                }
                Ok(clients)
            }
        }
    }

    /// The checker's counters; `None` over loopback.
    pub(super) fn checked(&self) -> Result<Option<ByChecksum>> {
        let Self::Lab(lab) = self else { return Ok(None) };
        let count = lab.checked()?;
        let of = |checked: Checked| count[checked as usize];
        let bad = of(Checked::BadIp) + of(Checked::BadUdp) + of(Checked::NoChecksum);
        Ok(Some(ByChecksum { good: of(Checked::Good), bad }))
    }

    /// Compares the sum of the program's reasons with the frames that the driver gave to it.
    pub(super) fn account_reasons(&self, daemon: &Daemon, account: &mut Account) -> Result<()> {
        let Self::Lab(lab) = self else { return Ok(()) };
        let (reasons, frames) = topology::reasons_and_frames(&lab.relay, daemon)?;
        account.equal("XDP: sum of all reasons, and frames the driver counted", reasons, frames);
        Ok(())
    }
}
