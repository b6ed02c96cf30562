//! Allocation over the admin socket: the description that a session's clients get, and the status of every
//! refusal.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, Result, bail};
use rand_core::OsRng;
use relay_common::key::{DiscoPrivate, DiscoPublic};
use relay_tests::{
    admin::Refused,
    bare::refused_command,
    daemon::{Daemon, Setup, binary},
};

#[test]
fn the_same_pair_gets_the_same_session_in_either_order_and_another_pair_a_newer_one() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let [one, other, third] = keys();
    let first = daemon.admin().allocate([one, other])?;
    assert!(first.client_disco.is_sorted());
    assert_eq!(daemon.admin().allocate([other, one])?, first);
    let second = daemon.admin().allocate([one, third])?;
    assert!(second.lamport_id > first.lamport_id);
    assert_ne!(second.vni, first.vni);
    assert_eq!(second.server_disco, first.server_disco);
    assert_eq!((first.bind_lifetime.as_secs(), first.steady_state_lifetime.as_secs()), (30, 300));
    Ok(())
}

#[test]
fn what_is_no_pair_of_keys_is_refused_with_a_sentence() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let [one, other, _] = keys();
    let server = daemon.admin().allocate([one, other])?.server_disco;
    for pair in [[one, one], [one, DiscoPublic::default()], [DiscoPublic::default(), one], [server, one]] {
        let refused = refused(daemon.admin().allocate(pair))?;
        assert_eq!((refused.status.as_u16(), refused.retry_after), (400, None), "{pair:?}: {refused}");
        assert!(refused.error.contains("ClientDisco must be"), "{refused}");
    }
    let node_key = format!(r#"{{"ClientDisco":["{one}","nodekey:{}"]}}"#, other.hex());
    for body in ["", "{}", r#"{"ClientDisco":[]}"#, r#"{"ClientDisco":["x","y"]}"#, &node_key] {
        let refused = refused(daemon.admin().post("/v1/udp/endpoints", body.to_owned()))?;
        assert_eq!(refused.status, 400, "{body}: {refused}");
    }
    assert_eq!(daemon.counter("udp_allocations")?, 1);
    Ok(())
}

#[test]
fn a_full_table_says_when_to_come_back() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback().with(&["--relay-max-sessions", "1"]))?;
    let [one, other, third] = keys();
    let first = daemon.admin().allocate([one, other])?;
    let refused = refused(daemon.admin().allocate([one, third]))?;
    assert_eq!((refused.status.as_u16(), refused.retry_after), (503, Some(3)), "{refused}");
    assert_eq!(daemon.admin().allocate([one, other])?, first, "who has a session keeps it");
    Ok(())
}

#[test]
fn without_a_udp_relay_there_is_nothing_to_allocate() -> Result<()> {
    let daemon = Daemon::start(Setup { args: Vec::new(), ..Setup::loopback() })?;
    let [one, other, _] = keys();
    assert_eq!(refused(daemon.admin().allocate([one, other]))?.status, 409);
    assert!(daemon.admin().status()?["udp"].is_null());
    Ok(())
}

#[test]
fn the_socket_is_its_owners_and_a_second_daemon_does_not_take_it() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let path = daemon.admin().path();
    assert_eq!(fs::metadata(path)?.permissions().mode() & 0o777, 0o600);
    let mut second = Command::new(binary()?);
    second.args(["-dev", "-a", "127.0.0.1:0", "-stun=false", "--admin-socket"]).arg(path);
    let said = refused_command(second)?;
    assert!(said.contains("another relayd serves") && said.contains("--admin-socket"), "{said}");
    daemon.admin().status().context("the first still answers")?;
    Ok(())
}

fn keys() -> [DiscoPublic; 3] {
    [(); 3].map(|()| DiscoPrivate::generate(&mut OsRng).public())
}

fn refused<T: std::fmt::Debug>(answer: Result<T>) -> Result<Refused> {
    match answer {
        Ok(answer) => bail!("not refused: {answer:?}"),
        Err(error) => error.downcast::<Refused>(),
    }
}
