//! The log: its content and its destination, and that the daemon works without it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use rand_core::OsRng;
use relay_common::{
    derp::frame::{FrameType, Header},
    key::NodePrivate,
};
use relay_tests::{
    bare::{Bare, address, dial, plain, refused, tls},
    client::{
        Client, Start,
        login::{nonce, request, upgraded},
        wire::Wire,
    },
    daemon::DERP_PORT,
    process::until,
};
use tempfile::tempdir;

/// Enough logins to log more than a small pipe holds.
const LOGINS: usize = 60;
/// Maximum length of a log line with a client's text.
const LONGEST_LINE: usize = 400;
/// Bytes of a long text that still fits into a login, and that the log should not repeat in full.
const LONG_TEXT: usize = 200 * 1024;

/// Checks that the daemon still serves logins and ends with success.
fn serves(mut daemon: Bare, ip: IpAddr) -> Result<()> {
    for _ in 0..LOGINS {
        let (mut one, mut other) = Client::pair(&dial(ip))?;
        one.send(&other.key(), b"still here")?;
        assert_eq!(other.recv_packet()?.1, b"still here");
    }
    assert!(daemon.is_alive()?);
    daemon.admin().status()?;
    assert!(daemon.stop()?, "a stop is a success");
    Ok(())
}

#[test]
fn a_log_on_a_full_disk_costs_nothing() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let full = fs::File::options().write(true).open("/dev/full")?;
    serves(Bare::start(dir.path(), &plain(dir.path(), ip), "debug", full.into())?, ip)
}

#[test]
fn a_log_that_nobody_takes_any_more_costs_nothing() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    serves(Bare::start(dir.path(), &plain(dir.path(), ip), "debug", writer.into())?, ip)
}

#[test]
fn a_log_that_lost_lines_and_stays_unread_does_not_hold_the_end_up() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let (reader, writer) = std::io::pipe()?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096))?;
    let daemon = Bare::start(dir.path(), &plain(dir.path(), ip), "debug", writer.into())?;
    until("lines to be lost", || {
        for _ in 0..100 {
            // Each bad request is a line.
            TcpStream::connect(SocketAddr::new(ip, DERP_PORT))?.write_all(b"\0\x01\r\n\r\n")?;
        }
        Ok(daemon.admin().status()?["log_lines_dropped"].as_u64() > Some(0))
    })?;
    assert!(daemon.stop()?);
    drop(reader);
    Ok(())
}

#[test]
fn a_log_that_nobody_reads_costs_nothing() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let (reader, writer) = std::io::pipe()?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096))?;
    let stderr = Stdio::from(writer);
    serves(Bare::start(dir.path(), &plain(dir.path(), ip), "debug", stderr)?, ip)?;
    drop(reader);
    Ok(())
}

#[test]
fn the_first_line_names_version_commit_and_flags_and_nothing_is_coloured_or_quoted() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let mut args = plain(dir.path(), ip);
    args.extend(["-dev", "-http-port=80", "-stun=true", "-stun-port=0"].map(Into::into));
    let daemon = Bare::logging(dir.path(), &args, "")?;
    assert!(daemon.stop()?);
    let log = fs::read_to_string(dir.path().join("log"))?;
    let first = log.lines().next().context("a line")?;
    for part in
        ["commit ", env!("CARGO_PKG_VERSION"), &format!("-a={ip}:{DERP_PORT}"), "-dev=true", "-stun-port=0"]
    {
        assert!(first.contains(part), "{part}: {first}");
    }
    assert!(!first.contains("-http-port"), "it is at its default: {first}");
    assert!(log.contains("what=STUN") && log.contains("why=SIGTERM"), "{log}");
    assert!(!log.contains('\x1b') && !log.contains("Some(") && !log.contains('"'), "{log}");
    Ok(())
}

#[test]
fn one_name_is_enough_to_hear_more() -> Result<()> {
    for wanted in ["relayd=debug", "debug", "relayd::conn=debug,warn"] {
        let (dir, ip) = (tempdir()?, address());
        let daemon = Bare::logging(dir.path(), &plain(dir.path(), ip), wanted)?;
        Client::pair(&dial(ip))?;
        wait_for(dir.path(), "logged in").with_context(|| wanted.to_owned())?;
        drop(daemon);
    }
    Ok(())
}

#[test]
fn a_variable_that_is_not_understood_is_refused_with_its_name() -> Result<()> {
    for wrong in ["verbose", "relayd=loud", "relay=debug", "debug;info"] {
        let dir = tempdir()?;
        let said = refused(&plain(dir.path(), address()), Some(wrong)).with_context(|| wrong.to_owned())?;
        assert!(said.contains("RELAYD_LOG") && said.contains("write "), "{said}");
        assert_eq!(fs::read_dir(dir.path())?.count(), 0, "{wrong}");
    }
    Ok(())
}

#[test]
fn a_failed_handshake_or_login_is_one_line_with_address_and_reason() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let _daemon = Bare::logging(dir.path(), &tls(dir.path(), ip, &ip.to_string()), "debug")?;
    let mut tcp = TcpStream::connect(SocketAddr::new(ip, DERP_PORT))?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    tcp.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut end = Vec::new();
    // The client sees an alert or a reset; the log has the reason.
    let _ = tcp.read_to_end(&mut end);
    let line = wait_for(dir.path(), &tcp.local_addr()?.to_string())?;
    assert!(line.contains("InvalidContentType") || line.contains("corrupt message"), "{line}");
    let log = fs::read_to_string(dir.path().join("log"))?;
    assert_eq!(
        log.lines().filter(|line| line.contains("corrupt") || line.contains("alert")).count(),
        1,
        "{log}"
    );
    Ok(())
}

#[test]
fn what_a_client_says_is_not_repeated_whole() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let _daemon = Bare::logging(dir.path(), &plain(dir.path(), ip), "debug")?;
    let key = NodePrivate::generate(&mut OsRng);
    let mut wire = Wire::connect(&dial(ip))?;
    wire.write(&request(dial(ip).addr, dial(ip).start == Start::Fast))?;
    let server = upgraded(&wire.http_head()?)?;
    let json = format!(r#"{{"version":"\u001b[31m\n{}"}}"#, "x".repeat(LONG_TEXT));
    let sealed = key.seal_to(&server, nonce(), json.as_bytes()).context("a secret")?;
    let len = key.public().as_bytes().len() + sealed.len();
    let header = Header::new(FrameType::ClientInfo, u32::try_from(len)?).encode();
    wire.write(&[&header[..], key.public().as_bytes(), &sealed[..]].concat())?;
    wire.frames_until_closed()?;
    let line = wait_for(dir.path(), "login failed")?;
    assert!(line.contains("remote=127.") && line.contains("client info"), "{line}");
    ensure!(line.len() < LONGEST_LINE, "{} bytes", line.len());
    assert!(!fs::read_to_string(dir.path().join("log"))?.contains('\x1b'));
    Ok(())
}

/// Waits for the first log line that contains `text`.
fn wait_for(dir: &std::path::Path, text: &str) -> Result<String> {
    let mut found = None;
    until(&format!("{text:?} in the log"), || {
        let log = fs::read_to_string(dir.join("log"))?;
        found = log.lines().find(|line| line.contains(text)).map(str::to_owned);
        Ok(found.is_some())
    })?;
    found.context("found")
}
