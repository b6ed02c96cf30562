//! Certificates as operators have them: complete, incomplete, for another host, close to expiry and expired.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, KeyPair};
use relay_tests::{
    bare::{Bare, address, refused, tls},
    daemon::run_relayd,
};
use serde_json::Value;
use tempfile::tempdir;
use time::{Duration, OffsetDateTime};

/// Writes a certificate and its key for `hostname`, valid for `names`, that expire in this many days.
fn write_pair(dir: &Path, hostname: &str, names: &[&str], days: i64) -> Result<()> {
    let key = KeyPair::generate()?;
    let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
    let mut params = CertificateParams::new(names)?;
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::days(365), now + Duration::days(days));
    fs::write(dir.join(format!("{hostname}.crt")), params.self_signed(&key)?.pem())?;
    fs::write(dir.join(format!("{hostname}.key")), key.serialize_pem())?;
    Ok(())
}

/// The nodes for the DERP map, from the log.
fn nodes(dir: &Path) -> Result<Vec<Value>> {
    let log = fs::read_to_string(dir.join("log"))?;
    let texts = log.lines().filter_map(|line| Some(line.split_once("node for the DERP map: ")?.1));
    texts.map(|text| serde_json::from_str(text).context("a line of JSON")).collect()
}

#[test]
fn a_certificate_of_somebody_else_is_refused_with_its_file() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    write_pair(dir.path(), "relay.example", &["other.example"], 100)?;
    let said = refused(&tls(dir.path(), ip, "relay.example"), None)?;
    for part in ["relay.example.crt", "other.example", "-hostname relay.example"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    write_pair(dir.path(), "relay.example", &["relay.example"], 100)?;
    fs::write(dir.path().join("relay.example.key"), KeyPair::generate()?.serialize_pem())?;
    let said = refused(&tls(dir.path(), ip, "relay.example"), None)?;
    for part in ["relay.example.crt", "relay.example.key", "-certdir", "issued together"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!dir.path().join("derper.key").exists(), "nothing is written for it");
    Ok(())
}

#[test]
fn half_a_pair_is_refused_with_both_names_and_nothing_is_made() -> Result<()> {
    for gone in ["crt", "key"] {
        let (dir, ip) = (tempdir()?, address());
        let hostname = ip.to_string();
        write_pair(dir.path(), &hostname, &[&hostname], 100)?;
        fs::remove_file(dir.path().join(format!("{hostname}.{gone}")))?;
        let said = refused(&tls(dir.path(), ip, &hostname), None)?;
        assert!(
            said.contains(&format!("{hostname}.crt")) && said.contains(&format!("{hostname}.key")),
            "{said}"
        );
        assert!(said.contains("-certdir") && said.contains("move the other away"), "{said}");
        assert_eq!(fs::read_dir(dir.path())?.count(), 1);
    }
    Ok(())
}

#[test]
fn a_certificate_is_served_whatever_its_dates_and_they_are_told() -> Result<()> {
    for (days, state, level) in
        [(100, "valid", None), (13, "expires soon", Some("WARN")), (-1, "expired", Some("ERROR"))]
    {
        let (dir, ip) = (tempdir()?, address());
        write_pair(dir.path(), "relay.example", &["relay.example"], days)?;
        let daemon = Bare::logging(dir.path(), &tls(dir.path(), ip, "relay.example"), "info")?;
        let status = daemon.admin().status()?;
        let certificate = &status["certificate"];
        assert_eq!(certificate["state"], state, "{certificate}");
        let left = certificate["days_left"].as_i64().context("days")?;
        assert!((days - 1..=days).contains(&left), "{certificate}");
        assert_eq!(certificate["names"], serde_json::json!(["relay.example"]));
        assert!(daemon.stop()?);
        let log = fs::read_to_string(dir.path().join("log"))?;
        let told =
            log.lines().find(|line| line.contains("the certificate ") && line.contains("relay.example.crt"));
        match level {
            Some(level) => assert!(told.is_some_and(|line| line.contains(level)), "{log}"),
            None => assert_eq!(told, None),
        }
    }
    Ok(())
}

#[test]
fn the_node_for_the_derp_map_is_told_at_each_start_and_by_status() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let hostname = ip.to_string();
    let mut args = tls(dir.path(), ip, &hostname);
    args.extend(["-stun=true", "-stun-port=3479"].map(Into::into));
    for start in 1..=2 {
        let daemon = Bare::logging(dir.path(), &args, "")?;
        let certificate = &daemon.admin().status()?["certificate"];
        let socket = daemon.admin().path().display().to_string();
        let status = run_relayd(&["status", "--admin-socket", &socket])?;
        let pin = certificate["pin"].as_str().context("a pin")?;
        assert!(status.contains(pin) && status.contains("\"DERPPort\":8443"), "{status}");
        assert!(daemon.stop()?);
        let nodes = nodes(dir.path())?;
        assert_eq!(nodes.len(), start);
        assert_eq!(nodes[start - 1], certificate["derp_map_node"]);
        assert_eq!(nodes[start - 1], node(&ip, pin));
        assert!(pin.strip_prefix("sha256-raw:").is_some_and(|hex| hex.len() == 64), "{pin}");
    }
    Ok(())
}

fn node(ip: &IpAddr, pin: &str) -> Value {
    serde_json::json!({
        "Name": "custom", "RegionID": 900, "HostName": ip.to_string(), "CertName": pin,
        "IPv4": ip.to_string(), "IPv6": "none", "STUNPort": 3479, "DERPPort": 8443,
    })
}
