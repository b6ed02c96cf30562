//! `derpprobe`, on a host whose name service knows the relay, and whose authorities its certificate.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::certificate::{AUTHORITY, Certificate};
use super::place::Host;
use super::process::{Process, inside, run};
use super::relay::Relay;

/// Runs what follows its first argument with that file as `/etc/hosts`, in a mount namespace of its own.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
/// Where derpprobe serves its metrics.
const METRICS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8030);
/// How long the probe of queueing delay may take for its packets. derpprobe starts such a probe by a coin's
/// fall, and tosses again every ten seconds.
const QUEUING: Duration = Duration::from_secs(45);

/// What `derpprobe -once` said.
#[derive(Debug)]
pub struct Probed {
    /// Names of the probes that succeeded.
    pub good: Vec<String>,
    /// Those that failed, with the reason.
    pub bad: Vec<String>,
    /// All it said.
    pub text: String,
}

/// Probes everything once from `host`: TLS, STUN, the way between two clients, and a stream of a megabyte.
///
/// # Errors
/// derpprobe cannot be run, or its status says otherwise than its words.
pub fn probe_once(derpprobe: &Path, relay: &Relay<'_>, host: Host) -> Result<Probed> {
    let mut command = command(derpprobe, relay, host, 1)?;
    command.args(["-once", "-spread=false", "-bw-interval", "15s", "-bw-probe-size-bytes", "1000000"]);
    let output = run(&command)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = |word: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once(word)?.1.to_owned())).collect()
    };
    let (good, bad) = (said(" good: "), said(" bad: "));
    ensure!(output.status.success() == bad.is_empty(), "{}:\n{text}", output.status);
    let good = good.iter().filter_map(|line| Some(line.split_once(": ")?.0.to_owned())).collect();
    Ok(Probed { good, bad, text })
}

/// Lets derpprobe send 50 packets a second between two clients, and waits until `packets` have come. How many
/// did not come in two seconds.
///
/// # Errors
/// derpprobe cannot be run, or the packets do not come.
pub fn queuing_delay(derpprobe: &Path, relay: &Relay<'_>, host: Host, packets: f64) -> Result<f64> {
    // Three names of one relay make nine pairs, each with a coin of its own.
    let mut command = command(derpprobe, relay, host, 3)?;
    command.args(["-spread=false", "-listen", &format!("{}:{}", METRICS.0, METRICS.1)]);
    command.args(["-qd-packets-per-second", "50", "-qd-packet-timeout", "2s"]);
    let mut process = Process::start(command, relay.place().dir().join("derpprobe.log"))?;
    let netns = relay.place().host(host);
    process.wait("packets of the probe of queueing delay", QUEUING, |_| {
        let Ok(metrics) = netns.enter(metrics)? else { return Ok(None) };
        let arrived = sum(&metrics, "derp_qd_probe_delays_seconds_count");
        Ok((arrived >= packets).then(|| sum(&metrics, "derp_qd_probe_dropped_packets")))
    })
}

/// derpprobe with a DERP map of `names` names for the relay.
fn command(derpprobe: &Path, relay: &Relay<'_>, host: Host, names: usize) -> Result<Command> {
    let dir = relay.place().dir();
    let map = dir.join("map.json");
    fs::write(&map, relay.derp_map(&host.relay(), names).to_string())?;
    let mut command = inside(relay.place().host(host), Path::new("unshare"));
    command.args(["--mount", "sh", "-c", WITH_HOSTS]).arg(write_hosts(dir, host)?).arg(derpprobe);
    command.env("SSL_CERT_FILE", dir.join(AUTHORITY)).env("HOME", dir);
    command.arg("-derp-map").arg(format!("file://{}", map.display()));
    Ok(command)
}

fn write_hosts(dir: &Path, host: Host) -> Result<PathBuf> {
    let name = Certificate::Signed.hostname();
    let lines = host.relay().into_iter().map(|address| format!("{address} {name}\n"));
    let path = dir.join("hosts");
    fs::write(&path, lines.collect::<String>())?;
    Ok(path)
}

/// derpprobe's own metrics.
fn metrics() -> Result<String> {
    let mut stream = TcpStream::connect(METRICS)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /debug/varz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("reading derpprobe's metrics")?;
    Ok(text)
}

/// The sum of a metric over all its labels.
fn sum(metrics: &str, name: &str) -> f64 {
    let values = metrics.lines().filter(|line| !line.starts_with('#') && line.contains(name));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
