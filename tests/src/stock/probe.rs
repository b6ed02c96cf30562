//! Runs `derpprobe` on a host that can resolve the relay's name and trusts its certificate.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::certificate::{AUTHORITY, Certificate};
use super::place::Host;
use super::relay::Relay;
use crate::process::{Process, inside, run};

/// Runs a command with the file in the first argument as `/etc/hosts`, in a new mount namespace.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
/// Where derpprobe serves its metrics.
const METRICS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8030);
/// Maximum time until the probe of queueing delay has sent its packets. derpprobe decides at random whether
/// to start such a probe, and decides again every ten seconds.
const QUEUING: Duration = Duration::from_secs(45);

/// The results of `derpprobe -once`.
#[derive(Debug)]
pub struct Probed {
    /// Names of the probes that succeeded.
    pub good: Vec<String>,
    /// Names of the probes that failed, with the reason.
    pub bad: Vec<String>,
    /// The whole output.
    pub text: String,
}

/// Runs every probe once from `host`: TLS, STUN, packets between two clients, and a stream of 16 megabytes
/// with up to 30 packets of 64 KiB on their way, which must arrive complete and in order.
///
/// # Errors
/// derpprobe cannot be run, or its exit status contradicts its output.
pub fn probe_once(derpprobe: &Path, relay: &Relay<'_>, host: Host) -> Result<Probed> {
    let mut command = command(derpprobe, relay, host, 1)?;
    command.args(["-once", "-spread=false", "-bw-interval", "15s", "-bw-probe-size-bytes", "16000000"]);
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

/// Lets derpprobe send 50 packets per second between two clients, and waits until `packets` have arrived.
/// Returns how many did not arrive within two seconds.
///
/// # Errors
/// derpprobe cannot be run, or the packets do not arrive.
pub fn queuing_delay(derpprobe: &Path, relay: &Relay<'_>, host: Host, packets: f64) -> Result<f64> {
    // Three names of one relay make nine pairs, and derpprobe decides at random for each.
    let mut command = command(derpprobe, relay, host, 3)?;
    command.args(["-spread=false", "-listen", &format!("{}:{}", METRICS.0, METRICS.1)]);
    command.args(["-qd-packets-per-second", "50", "-qd-packet-timeout", "2s"]);
    let mut process = Process::start(command, &relay.place().dir().join("derpprobe.log"))?;
    let netns = relay.place().host(host);
    process.wait("packets of the probe of queueing delay", QUEUING, |_| {
        let Ok(metrics) = netns.enter(metrics)? else { return Ok(None) };
        let arrived = sum(&metrics, "derp_qd_probe_delays_seconds_count");
        Ok((arrived >= packets).then(|| sum(&metrics, "derp_qd_probe_dropped_packets")))
    })
}

/// derpprobe with a DERP map that has `names` names for the relay.
fn command(derpprobe: &Path, relay: &Relay<'_>, host: Host, names: usize) -> Result<Command> {
    let dir = relay.place().dir();
    let map = dir.join("map.json");
    fs::write(&map, relay.derp_map(&host.relay(), names).to_string())?;
    let mut command = inside(relay.place().host(host).name(), Path::new("unshare"));
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
