//! The web pages of a relay, over its TLS listener and over the plain companion.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use rand_core::OsRng;
use relay_common::key::NodePrivate;
use relay_tests::{
    client::{Dial, Greeted, Start, Transport, login::upgraded, wire::Wire},
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

#[test]
fn every_path_of_derpers_is_answered_as_derper_does() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let dial = daemon.dial(Start::Normal)?;
    let mut wire = Wire::connect(&dial)?;
    for (path, kind, begins) in [
        ("/", "text/html; charset=utf-8", "<!DOCTYPE html>"),
        ("/index.html?x", "text/html; charset=utf-8", "<!DOCTYPE html>"),
        ("/robots.txt", "text/plain; charset=utf-8", "User-agent: *\nDisallow: /\n"),
        ("/bootstrap-dns", "application/json", "{}"),
    ] {
        let (head, body) = get(&mut wire, "GET", path, "")?;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
        assert!(head.contains(&format!("Content-Type: {kind}\r\n")), "{path}: {head}");
        assert!(head.contains("\r\nDate: ") && head.contains(" GMT\r\n"), "{path}: {head}");
        assert!(head.contains("\r\nX-Frame-Options: DENY\r\n"), "{path}: {head}");
        assert!(body.starts_with(begins), "{path}: {body}");
        assert_eq!(head.contains("Connection: close\r\n"), path == "/bootstrap-dns", "{path}: {head}");
    }
    assert!(wire.frames_until_closed()?.is_empty(), "/bootstrap-dns is the last answer");
    let (head, _) = get(&mut Wire::connect(&dial)?, "GET", "/debug/varz", "")?;
    assert!(head.starts_with("HTTP/1.1 404 "), "there are no metrics here: {head}");
    Ok(())
}

#[test]
fn a_connection_that_ends_after_its_answers_is_no_failure() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let dial = daemon.dial(Start::Normal)?;
    for _ in 0..3 {
        get(&mut Wire::connect(&dial)?, "GET", "/derp/probe", "")?;
    }
    let mut wire = Wire::connect(&dial)?;
    get(&mut wire, "GET", "/derp/probe", "Connection: x, Close\r\n")?;
    assert!(wire.frames_until_closed()?.is_empty(), "closed as it asked");
    // A failure for comparison: when it is counted, the earlier connections have been counted too.
    Wire::connect(&dial)?.write(b"GET /derp/pro")?;
    let status =
        daemon.wait("the failure", |status| status["counters"]["http_transport"].as_u64() >= Some(1))?;
    assert_eq!(status["counters"]["http_transport"], 1);
    assert_eq!(
        (status["counters"]["http_malformed"].as_u64(), status["counters"]["http_requests"].as_u64()),
        (Some(0), Some(4))
    );
    Ok(())
}

#[test]
fn the_last_answer_of_a_connection_says_so() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let mut wire = Wire::connect(&daemon.dial(Start::Normal)?)?;
    for number in 1..=16 {
        let (head, _) = get(&mut wire, "GET", "/derp/probe", "")?;
        assert_eq!(head.contains("Connection: close\r\n"), number == 16, "{number}: {head}");
    }
    assert!(wire.frames_until_closed()?.is_empty());
    Ok(())
}

#[test]
fn a_request_that_can_be_read_in_two_ways_is_refused() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let dial = daemon.dial(Start::Normal)?;
    for (headers, status) in [
        ("Host: other.example\r\n", "400 Bad Request"),
        ("Content-Length: 0\r\nContent-Length: 1\r\n", "400 Bad Request"),
        ("Transfer-Encoding: gzip\r\n", "501 Not Implemented"),
    ] {
        let (head, _) = get(&mut Wire::connect(&dial)?, "GET", "/", headers)?;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{headers:?}: {head}");
    }
    assert_eq!(daemon.counter("http_malformed")?, 3);
    // With two upgrade headers, the first one counts.
    let upgrade = "Upgrade: DERP\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n";
    let mut wire = Wire::connect(&dial)?;
    wire.write(format!("GET /derp HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n").as_bytes())?;
    upgraded(&wire.http_head()?)?;
    Ok(())
}

#[test]
fn websocket_without_its_subprotocol_speaks_derp() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let dial = daemon.dial(Start::Normal)?;
    let mut wire = Wire::connect(&dial)?;
    wire.write(b"GET /derp HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n")?;
    let server = upgraded(&wire.http_head()?)?;
    wire.frame().context("ServerKey")?;
    Greeted { wire, server }.login(NodePrivate::generate(&mut OsRng))?.ping()?;
    let real = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: derp\r\n";
    let (head, body) = get(&mut Wire::connect(&dial)?, "GET", "/derp", real)?;
    assert!(head.starts_with("HTTP/1.1 426 ") && body.contains("WebSocket is not built"), "{head}{body}");
    Ok(())
}

fn get(wire: &mut Wire, method: &str, path: &str, headers: &str) -> Result<(String, String)> {
    wire.write(format!("{method} {path} HTTP/1.1\r\nHost: relay.example\r\n{headers}\r\n").as_bytes())?;
    let head = wire.http_head()?;
    let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(Ok(0), str::parse);
    let body = wire.http_body(len.context("Content-Length")?)?;
    Ok((head, String::from_utf8(body)?))
}
