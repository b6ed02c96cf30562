//! Stock programs find no fault with the relay. Each runs as on an operator's machine, against a relay that
//! has its own host and listens on all of its addresses. `JUDGE_SERVER=upstream` runs them against derper.

use anyhow::{Context as _, Result, ensure};
use relay_tests::skip;
use relay_tests::stock::{
    Certificate, DERPPROBE, Host, Node, Place, REGION, Relay, Tailnet, probe_once, queuing_delay,
};
use serde_json::Value;

/// Skips the calling test by its name if something that it needs is missing.
macro_rules! or_skip {
    ($test:expr, $asked:expr) => {
        match $asked {
            Ok(it) => it,
            Err(reason) => return Ok(skip($test, &reason)),
        }
    };
}

#[test]
fn derpprobe_finds_all_good_over_ipv4() -> Result<()> {
    probe_all("derpprobe over IPv4", Host::Ipv4, "udp")
}

#[test]
fn derpprobe_finds_all_good_over_ipv6() -> Result<()> {
    probe_all("derpprobe over IPv6", Host::Ipv6, "udp6")
}

fn probe_all(test: &str, host: Host, udp: &str) -> Result<()> {
    with_relay(test, Certificate::Signed, |relay| {
        let derpprobe = or_skip!(test, DERPPROBE.built()?);
        let probed = probe_once(&derpprobe, relay, host)?;
        println!("{}", probed.text);
        let node = format!("derp/lab/{REGION}-1");
        let want = [
            format!("{node}/{REGION}-1/bw"),
            format!("{node}/{REGION}-1/mesh"),
            format!("{node}/tls"),
            format!("{node}/{udp}"),
            "derpmap-probe".to_owned(),
        ];
        ensure!((&probed.bad[..], &probed.good[..]) == (&[], &want), "{}", probed.text);
        Ok(())
    })
}

#[test]
fn derpprobe_sees_no_packet_lost_in_a_queue() -> Result<()> {
    let test = "derpprobe's queueing delay";
    with_relay(test, Certificate::Signed, |relay| {
        let derpprobe = or_skip!(test, DERPPROBE.built()?);
        let lost = queuing_delay(&derpprobe, relay, Host::Dual, 300.0)?;
        ensure!(lost == 0.0, "{lost} packets did not come in time");
        Ok(())
    })
}

#[test]
fn netcheck_finds_the_relay_over_every_family_that_a_host_has() -> Result<()> {
    tailnet("tailscale netcheck", |tailnet| {
        let node = tailnet.node(Host::Dual)?;
        for host in [Host::Dual, Host::Ipv4, Host::Ipv6] {
            let (text, report) = node.netcheck(host)?;
            println!("{host:?}:{text}\n{report}");
            check_netcheck(host, &report).with_context(|| format!("{host:?}: {text}\n{report}"))?;
        }
        Ok(())
    })
}

fn check_netcheck(host: Host, report: &Value) -> Result<()> {
    let region = REGION.to_string();
    ensure!(report["UDP"] == true, "no STUN answer at all");
    ensure!(report["PreferredDERP"] == REGION, "another region is nearest");
    ensure!(report["RegionLatency"][&region].as_u64() > Some(0), "no latency");
    for (family, is_ipv4) in [("4", true), ("6", false)] {
        let own = host.addresses().into_iter().find(|address| address.is_ipv4() == is_ipv4);
        ensure!(report[format!("IPv{family}")] == own.is_some(), "IPv{family}");
        let latency = &report[format!("RegionV{family}Latency")][&region];
        ensure!(latency.is_u64() == own.is_some(), "latency over IPv{family}");
        let seen = report[format!("GlobalV{family}")].as_str().context("an address, maybe empty")?;
        let seen = seen.parse().ok().map(|seen: std::net::SocketAddr| seen.ip());
        ensure!(seen == own, "the relay told {seen:?}, and the address is {own:?}");
    }
    Ok(())
}

#[test]
fn debug_derp_finds_no_error() -> Result<()> {
    tailnet("tailscale debug derp", |tailnet| {
        let report = tailnet.node(Host::Dual)?.debug_derp()?;
        println!("{report:#}");
        ensure!(report["Errors"] == Value::Null, "{report:#}");
        // Every relay that is alone in its map gets this warning.
        let warnings = report["Warnings"].as_array().context("a list of warnings")?;
        let single =
            warnings.iter().filter_map(Value::as_str).filter(|line| line.contains("single DERP region"));
        ensure!((single.count(), warnings.len()) == (1, 1), "{report:#}");
        let info = report["Info"].as_array().context("a list of facts")?;
        let facts = [
            "working IPv4 and IPv6 connectivity",
            "Successfully established a DERP connection",
            "returned IPv4 STUN response: 10.77.0.2:",
        ];
        for fact in facts {
            let told = info.iter().filter_map(Value::as_str).any(|line| line.contains(fact));
            ensure!(told, "no fact `{fact}` in {report:#}");
        }
        Ok(())
    })
}

#[test]
fn two_nodes_of_different_families_talk_over_the_relay_only() -> Result<()> {
    tailnet("tailscale ping", |tailnet| {
        // One node has only IPv4 and the other only IPv6, so they could not connect directly anyway.
        let (one, other) = (tailnet.node(Host::Ipv4)?, tailnet.node(Host::Ipv6)?);
        check_pings(&one, &other)?;
        check_pings(&other, &one)
    })
}

fn check_pings(from: &Node<'_>, to: &Node<'_>) -> Result<()> {
    let disco = from.ping(to, &["--until-direct=false", "-c", "3"])?;
    print!("{disco}");
    let relayed =
        disco.lines().filter(|line| line.starts_with("pong from") && line.contains(" via DERP(lab) "));
    ensure!((relayed.count(), disco.lines().count()) == (3, 3), "{disco}");
    // This ping goes inside WireGuard, so the relay sees a normal packet.
    let data = from.ping(to, &["--tsmp", "-c", "1"])?;
    print!("{data}");
    ensure!(data.starts_with("pong from"), "{data}");
    Ok(())
}

/// Calls `judge` with a control server whose DERP map pins the relay's own certificate.
fn tailnet(test: &str, judge: impl FnOnce(&Tailnet<'_>) -> Result<()>) -> Result<()> {
    with_relay(test, Certificate::Pinned, |relay| judge(&or_skip!(test, Tailnet::start(relay)?)))
}

/// Calls `judge` with a relay on its own host, which must still run afterwards.
fn with_relay(
    test: &str,
    certificate: Certificate,
    judge: impl FnOnce(&Relay<'_>) -> Result<()>,
) -> Result<()> {
    let Some(place) = Place::or_skip(test)? else { return Ok(()) };
    let mut relay = or_skip!(test, Relay::start(&place, certificate)?);
    judge(&relay).with_context(|| relay.told())?;
    relay.check()
}
