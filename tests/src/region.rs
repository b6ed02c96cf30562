//! A region of three relays of either kind, which forward each other's packets, and what is measured in it.
//!
//! ```text
//!   Load: clients that send all the time ─► Relay ◄─ mesh ─► Relay, Relay     three hosts and a switch: Net
//!         │ records                           ▲ cut, frozen, killed, stopped
//!         ▼                                   │
//!   account: gaps, losses  ◄─ windows ─── faults
//! ```
//! The relays verify each other's names, so they have certificates of the test's own authority, which
//! `SSL_CERT_FILE` makes both kinds trust.

pub mod account;
pub mod faults;
pub mod load;
mod net;
mod packet;
mod records;
mod relay;

use std::fs;

use anyhow::Result;
use rand_core::{OsRng, RngCore as _};
use tempfile::TempDir;

use self::{net::Net, relay::Shared};
pub use self::{
    net::SIZE,
    relay::{Kind, Program, Relay},
};
use crate::{authority::Authority, lab::Netns, skip};

/// Bytes of a mesh key.
const MESH_KEY_LEN: usize = 32;

/// The relays with their network.
#[derive(Debug)]
pub struct Region {
    // In this order the relays end before their hosts and their files are removed.
    relays: [Relay; SIZE],
    net: Net,
    _dir: TempDir,
}

impl Region {
    /// A region of these kinds, without a running relay; or skips `test` if that is not possible here.
    pub fn or_skip(test: &str, kinds: [Kind; SIZE]) -> Result<Option<Self>> {
        if !nix::unistd::geteuid().is_root() {
            skip(test, "network namespaces need root");
            return Ok(None);
        }
        let mut programs = Vec::new();
        for kind in kinds {
            match kind.program()? {
                Ok(program) => programs.push(program),
                Err(reason) => {
                    skip(test, &reason);
                    return Ok(None);
                }
            }
        }
        let [one, two, three] = &programs[..] else { unreachable!("as many programs as kinds") };
        Self::new([one, two, three]).map(Some)
    }

    /// A region of these programs, without a running relay.
    pub fn new(programs: [&Program; SIZE]) -> Result<Self> {
        Self::on(Net::new()?, programs)
    }

    /// A region on one host, over loopback with its large buffers; no relay of it can be cut off.
    pub fn on_one_host(programs: [&Program; SIZE]) -> Result<Self> {
        Self::on(Net::one_host()?, programs)
    }

    fn on(net: Net, programs: [&Program; SIZE]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("relayd-").tempdir()?;
        let authority = Authority::new("Authority of the region")?;
        let shared =
            Shared { mesh_key: dir.path().join("mesh.key"), authority: dir.path().join("authority.pem") };
        fs::write(&shared.mesh_key, mesh_key())?;
        fs::write(&shared.authority, authority.pem())?;
        let relay = |index: usize| -> Result<Relay> {
            let own = dir.path().join((index + 1).to_string());
            fs::create_dir(&own)?;
            authority.issue(&relay::name(index), &own)?;
            Relay::new(index, programs[index].clone(), &net, &own, &shared)
        };
        let relays = [relay(0)?, relay(1)?, relay(2)?];
        Ok(Self { relays, net, _dir: dir })
    }

    /// Starts all relays at once and does not wait.
    pub fn start_all(&mut self) -> Result<()> {
        self.relays.iter_mut().try_for_each(Relay::start)
    }

    /// Waits until a relay listens.
    pub fn wait_until_listening(&mut self, index: usize) -> Result<()> {
        self.relays[index].wait_until_listening(self.net.clients())
    }

    /// A relay.
    pub fn relay(&mut self, index: usize) -> &mut Relay {
        &mut self.relays[index]
    }

    /// Cuts a relay off from the others, but not from its clients.
    pub fn cut(&self, index: usize) -> Result<()> {
        self.net.pass_mesh(index, false)
    }

    /// Ends [`Self::cut`].
    pub fn restore(&self, index: usize) -> Result<()> {
        self.net.pass_mesh(index, true)
    }

    /// The host of the clients.
    pub fn clients(&self) -> &Netns {
        self.net.clients()
    }

    /// The ends of all logs, for an error.
    pub fn logs(&self) -> String {
        let logs = (1..).zip(&self.relays);
        logs.map(|(number, relay)| format!("relay {number}, {:?}:\n{}\n", relay.kind(), relay.log_tail()))
            .collect()
    }
}

/// A new mesh key in derper's form.
fn mesh_key() -> String {
    let mut key = [0; MESH_KEY_LEN];
    OsRng.fill_bytes(&mut key);
    key.map(|byte| format!("{byte:02x}")).concat()
}
