//! The few pages a relay has, over its TLS listener and over the plain companion beside it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use relay_tests::{
    client::{Dial, Start, Transport, wire::Wire},
    daemon::{COMPANION_PORT, Daemon, Setup},
};

#[test]
fn probes_are_answered_over_tls() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let mut wire = Wire::connect(&daemon.dial(Start::Normal)?)?;
    for path in ["/derp/probe", "/derp/latency-check"] {
        let (head, body) = get(&mut wire, "GET", path, "")?;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("Access-Control-Allow-Origin: *\r\n"), "{head}");
        assert_eq!(body, "");
    }
    let (head, body) = get(&mut wire, "GET", "/derp", "")?;
    assert!(head.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{head}");
    assert_eq!(body, "DERP requires connection upgrade\n");
    assert_eq!(daemon.counter("http_requests")?, 3);
    Ok(())
}

#[test]
fn the_companion_answers_the_portal_check_and_sends_the_rest_to_https() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let addr = SocketAddr::new(daemon.ip(), COMPANION_PORT);
    let mut wire = Wire::connect(&Dial { addr, transport: Transport::Plain, start: Start::Normal })?;
    let challenge = "X-Tailscale-Challenge: ts_192.0.2.1\r\n";
    let (head, body) = get(&mut wire, "GET", "/generate_204", challenge)?;
    assert!(head.starts_with("HTTP/1.1 204 No Content\r\n"), "{head}");
    assert!(head.contains("X-Tailscale-Response: response ts_192.0.2.1\r\n"), "{head}");
    assert_eq!(body, "");
    let (head, _) = get(&mut wire, "GET", "/derp?x=1", "Upgrade: DERP\r\nConnection: Upgrade\r\n")?;
    assert!(head.starts_with("HTTP/1.1 302 Found\r\n"), "{head}");
    assert!(head.contains("Location: https://relay.example/derp?x=1\r\n"), "{head}");
    let (head, body) = get(&mut wire, "POST", "/", "")?;
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    assert_eq!(body, "Use HTTPS\n");
    Ok(())
}

fn get(wire: &mut Wire, method: &str, path: &str, headers: &str) -> Result<(String, String)> {
    wire.write(format!("{method} {path} HTTP/1.1\r\nHost: relay.example\r\n{headers}\r\n").as_bytes())?;
    let head = wire.http_head()?;
    let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(Ok(0), str::parse);
    let body = wire.http_body(len.context("Content-Length")?)?;
    Ok((head, String::from_utf8(body)?))
}
