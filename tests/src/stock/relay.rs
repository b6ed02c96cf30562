//! The relay to be judged, on a host of its own, started as an operator starts it: derper's defaults for all
//! ports, and so every address of the host.

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::certificate::Certificate;
use super::place::Place;
use super::process::{Process, inside};
use super::programs::DERPER;
use crate::interop::Server;

/// Number of the DERP map's one region.
pub const REGION: u16 = 900;
/// How long a relay may take to listen.
const START: Duration = Duration::from_secs(20);
/// What precedes the pin in the relay's log, and the length of its digits.
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
    /// Starts what `JUDGE_SERVER` asks for, and waits until it listens. The inner error is why there is nothing
    /// to judge.
    ///
    /// # Errors
    /// The relay cannot be built, or does not come up.
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
        let mut command = inside(place.relay(), &program);
        command.args(["-certmode", "manual", "-hostname", &certificate.hostname(), "-certdir"]).arg(dir);
        command.args(["-a", ":443", "-c"]).arg(dir.join("derper.key"));
        if is_relayd {
            command.arg("--admin-socket").arg(dir.join("admin.sock"));
        }
        let mut process = Process::start(command, dir.join("relay.log"))?;
        process.wait("the relay to listen", START, |_| {
            let connected = |address| place.relay().enter(move || TcpStream::connect((address, 443)).is_ok());
            Ok(connected(IpAddr::from([127, 0, 0, 1]))?.then_some(()))
        })?;
        let pin = match certificate {
            Certificate::Signed => None,
            Certificate::Pinned => {
                Some(process.wait("the certificate's pin in the log", START, |it| Ok(pin(&it.log())))?)
            }
        };
        Ok(Ok(Self { place, certificate, pin, process }))
    }

    /// Where it runs.
    pub(super) fn place(&self) -> &'p Place {
        self.place
    }

    /// A DERP map of one region, which is this relay under `nodes` names, at these addresses of it.
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

    /// Whether the relay still runs, which no test may end.
    ///
    /// # Errors
    /// Its end.
    pub fn check(&mut self) -> Result<()> {
        let ended = self.process.ended()?;
        anyhow::ensure!(ended.is_none(), "the relay ended: {ended:?}\n{}", self.process.log_tail());
        Ok(())
    }
}

/// The pin that both relays log when they have made a certificate.
fn pin(log: &str) -> Option<String> {
    let digits = log.get(log.find(PIN)? + PIN.len()..)?.get(..PIN_DIGITS)?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| format!("{PIN}{digits}"))
}
