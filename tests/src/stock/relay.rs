//! The relay to be judged, on its own host and with an operator's arguments: derper's defaults for all ports,
//! so it listens on every address of the host.

use std::net::{IpAddr, TcpStream};

use anyhow::Result;
use serde_json::{Value, json};

use super::certificate::Certificate;
use super::place::Place;
use super::programs::DERPER;
use crate::admin::Admin;
use crate::flags::Flags;
use crate::interop::Server;
use crate::process::{PATIENCE, Process, inside};

/// Number of the only region in the DERP map.
pub const REGION: u16 = 900;
/// File of relayd's admin socket.
const ADMIN_SOCKET: &str = "admin.sock";
/// The text before the pin in the relay's log.
const PIN: &str = "sha256-raw:";
const PIN_DIGITS: usize = 64;

/// A running relay.
#[derive(Debug)]
pub struct Relay<'p> {
    place: &'p Place,
    certificate: Certificate,
    /// `CertName` of the DERP map.
    pin: Option<String>,
    process: Process,
}

impl<'p> Relay<'p> {
    /// Starts the relay that `JUDGE_SERVER` selects, and waits until it listens. The inner error says why
    /// there is no relay to judge.
    ///
    /// # Errors
    /// The relay cannot be built, or does not start.
    pub fn start(place: &'p Place, certificate: Certificate) -> Result<Result<Self, String>> {
        let chosen = match Server::chosen()? {
            Ok(Server::Relayd(path)) => Ok((path, true)),
            Ok(Server::Upstream) => DERPER.built()?.map(|path| (path, false)),
            Err(reason) => Err(reason),
        };
        let (program, is_relayd) = match chosen {
            Ok(chosen) => chosen,
            Err(reason) => return Ok(Err(reason)),
        };
        let dir = place.dir();
        certificate.write(dir)?;
        let mut command = inside(place.relay().name(), &program);
        let flags = Flags::tls(":443".to_owned(), dir, &certificate.hostname());
        command.args(flags.default_ports().words());
        if is_relayd {
            command.arg("--admin-socket").arg(dir.join(ADMIN_SOCKET));
        }
        let mut process = Process::start(command, &dir.join("relay.log"))?;
        process.wait("the relay to listen", PATIENCE, |_| {
            let connected = |address| place.relay().enter(move || TcpStream::connect((address, 443)).is_ok());
            Ok(connected(IpAddr::from([127, 0, 0, 1]))?.then_some(()))
        })?;
        let pin = match certificate {
            Certificate::Signed => None,
            Certificate::Pinned => {
                Some(process.wait("the certificate's pin in the log", PATIENCE, |it| Ok(pin(&it.log())))?)
            }
        };
        Ok(Ok(Self { place, certificate, pin, process }))
    }

    /// The place where it runs.
    pub(super) fn place(&self) -> &'p Place {
        self.place
    }

    /// A DERP map with one region: this relay under `nodes` names, at these addresses.
    pub(super) fn derp_map(&self, addresses: &[IpAddr], nodes: usize) -> Value {
        let address = |is_ipv4: bool| {
            let address = addresses.iter().find(|address| address.is_ipv4() == is_ipv4);
            address.map(IpAddr::to_string).unwrap_or_default()
        };
        let node = |number| {
            json!({
                "Name": format!("{REGION}-{number}"),
                "RegionID": REGION,
                "HostName": self.certificate.hostname(),
                "CertName": self.pin.as_deref().unwrap_or_default(),
                "IPv4": address(true),
                "IPv6": address(false),
                "CanPort80": true,
            })
        };
        let nodes: Vec<_> = (1..=nodes).map(node).collect();
        let region = json!({
            "RegionID": REGION, "RegionCode": "lab", "RegionName": "Laboratory", "Nodes": nodes,
        });
        json!({ "Regions": { REGION.to_string(): region } })
    }

    /// The relay's own report: its counters, if it has an admin socket, and the end of its log.
    pub fn told(&self) -> String {
        let admin = Admin::new(self.place.dir().join(ADMIN_SOCKET));
        let counters = match admin.status().map(|mut status| status["counters"].take()) {
            Ok(Value::Object(counters)) => counters.into_iter().filter(|(_, count)| *count != 0).collect(),
            // derper has no admin socket.
            _ => Value::Null,
        };
        format!("the relay counted {counters}; its log ends:\n{}", self.process.log_tail())
    }

    /// Checks that the relay still runs; no stock program may end it.
    ///
    /// # Errors
    /// The relay has ended.
    pub fn check(&mut self) -> Result<()> {
        let ended = self.process.ended()?;
        anyhow::ensure!(ended.is_none(), "the relay ended: {ended:?}\n{}", self.process.log_tail());
        Ok(())
    }
}

/// The pin that both relays log for a self-signed certificate.
fn pin(log: &str) -> Option<String> {
    let digits = log.get(log.find(PIN)? + PIN.len()..)?.get(..PIN_DIGITS)?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| format!("{PIN}{digits}"))
}
