//! What an operator is told of the mesh: at its start, by `relayd mesh` and by `relayd why`.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use relay_common::disco;
use relay_tests::{
    bare::{address, plain, refused, refused_command},
    client::{Client, Start},
    daemon::{Daemon, Setup, binary},
    neighbours::Neighbours,
    process::until,
};
use serde_json::Value;
use tempfile::tempdir;

/// Two relays with links to each other.
fn neighbours() -> Result<(Neighbours, Daemon, Daemon)> {
    let setups = [Setup::loopback(), Setup::loopback()];
    let neighbours = Neighbours::new([setups[0].ip, setups[1].ip])?;
    let [one, other] = setups.map(|setup| Daemon::start(neighbours.join(setup)));
    let (one, other) = (one?, other?);
    for relay in [&one, &other] {
        until("the link to be up", || Ok(link(&mesh(relay)?).is_some()))?;
    }
    Ok((neighbours, one, other))
}

fn mesh(relay: &Daemon) -> Result<Value> {
    relay.admin().get("/v1/mesh")
}

/// The only link in the answer.
fn link(mesh: &Value) -> Option<Value> {
    mesh["places"].as_array()?.iter().find(|place| place["state"] == "up").cloned()
}

fn ask(relay: &Daemon, words: &[&str]) -> Result<String> {
    relay.ask(&[words, &["--admin-socket", &relay.admin().path().to_string_lossy()]].concat())
}

#[test]
fn the_links_and_what_crossed_them_are_shown() -> Result<()> {
    let (_files, one, other) = neighbours()?;
    let mut alice = Client::connect(&one.dial(Start::Fast)?)?;
    let mut bob = Client::connect(&other.dial(Start::Fast)?)?;
    until("each relay to know the other's client", || {
        let found = |relay: &Daemon, key: String| -> Result<bool> {
            let why = relay.admin().get(&format!("/v1/why?key={key}"))?;
            Ok(why["found"][0]["rung"] == "mesh")
        };
        Ok(found(&one, bob.key().to_string())? && found(&other, alice.key().to_string())?)
    })?;
    for number in 0..100 {
        alice.send(&bob.key(), &[number; 200])?;
        assert_eq!(bob.recv_packet()?, (alice.key(), vec![number; 200]));
        bob.send(&alice.key(), &[number; 300])?;
        assert_eq!(alice.recv_packet()?, (bob.key(), vec![number; 300]));
    }
    let status =
        one.wait("the packets to be counted", |status| status["counters"]["packets_forwarded_out"] == 100)?;
    for (counter, expected) in
        [("packets_forwarded_in", 100), ("bytes_forwarded_out", 20_000), ("bytes_forwarded_in", 30_000)]
    {
        assert_eq!(status["counters"][counter], expected, "{counter}");
    }
    let link = link(&mesh(&one)?).context("a link")?;
    assert_eq!((&link["link"]["packets_out"], &link["link"]["bytes_out"]), (&100.into(), &20_000.into()));
    until("a probe to be answered", || {
        Ok(mesh(&one)?["places"].as_array().is_some_and(|all| {
            all.iter().any(|place| place["link"]["round_trip_ms"].as_f64().is_some_and(|ms| ms > 0.0))
        }))
    })?;
    let text = ask(&one, &["mesh"])?;
    for word in ["this relay", "up ", "100 pkts", "linked to us: nodekey:"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    Ok(())
}

#[test]
fn why_says_where_a_key_is_and_what_becomes_of_its_packets() -> Result<()> {
    let (_files, one, other) = neighbours()?;
    let (alice, bob) =
        (Client::connect(&one.dial(Start::Fast)?)?, Client::connect(&other.dial(Start::Fast)?)?);
    let why = |key: &str| ask(&one, &["why", key]);
    let here = why(&alice.key().to_string())?;
    assert!(here.contains("this relay, connected from") && here.contains("DERP"), "{here}");
    until("bob to be known", || Ok(why(&bob.key().to_string())?.contains("mesh")))?;
    let there = why(&bob.key().to_string())?;
    let server = mesh(&other)?["places"].as_array().context("places")?.iter().find_map(|place| {
        (place["state"] == "ourselves").then(|| place["server"].as_str().unwrap_or_default().to_owned())
    });
    let server = server.context("the other relay knows itself")?;
    assert!(there.contains(&server) && there.contains("it has no connection to this relay"), "{there}");
    // The first digits are enough, if they are those of one key.
    assert_eq!(why(&bob.key().to_string()["nodekey:".len()..][..16])?, there);
    let nobody = why(&format!("nodekey:{}", "ab".repeat(32)))?;
    assert!(nobody.contains("nowhere") && nobody.contains("drop_unknown_dest"), "{nobody}");
    let disco = why(&format!("discokey:{}", "ab".repeat(32)))?;
    assert!(disco.contains("no UDP session has this key"), "{disco}");
    let wrong = ask(&one, &["why", "bob"]).expect_err("no key");
    assert!(format!("{wrong:#}").contains("nodekey: or discokey:"), "{wrong:#}");
    let bobs = bob.key().to_string();
    drop(bob);
    until("bob to be gone", || Ok(why(&bobs)?.contains("nowhere")))?;
    Ok(())
}

#[test]
fn a_relay_that_cannot_be_linked_says_why() -> Result<()> {
    let (_files, one, mut other) = neighbours()?;
    other.kill()?;
    until("the fault to be shown", || Ok(ask(&one, &["mesh"])?.contains("cannot connect")))?;
    other.restart()?;
    until("the link to be up again", || Ok(link(&mesh(&one)?).is_some()))?;
    // A packet for nobody is told, with the mesh asked too.
    let mut alice = Client::connect(&one.dial(Start::Fast)?)?;
    let stranger = relay_common::key::NodePublic::from_bytes([9; 32]);
    alice.send(&stranger, &[&disco::MAGIC[..], &[0; 64]].concat())?;
    assert_eq!(alice.ping()?.1.len(), 1);
    assert_eq!(one.counter("drop_unknown_dest")?, 1);
    Ok(())
}

#[test]
fn flags_of_the_mesh_are_judged_before_anything_is_written() -> Result<()> {
    let dir = tempdir()?;
    let key = dir.path().join("mesh.key");
    fs::write(&key, format!("{}\n", "0F".repeat(32)))?;
    let key = key.to_string_lossy().into_owned();
    let cases: &[(&[&str], &[&str])] = &[
        (&["-mesh-with=derp.test", "--mesh-pin=derp.test"], &["--mesh-pin", "HOST=sha256-raw:HEX"]),
        (
            &["-mesh-with=derp.test", "--mesh-pin=derp.test=sha256-raw:0"],
            &["--mesh-pin", "derp.test", "64 hex"],
        ),
        (
            &["-mesh-with=derp.test", "--mesh-pin=derp.tset=sha256-raw:0"],
            &["--mesh-pin", "derp.tset", "-mesh-with"],
        ),
    ];
    let more = |words: &[&str]| {
        let mut args = plain(dir.path(), address());
        args.extend(["-mesh-psk-file", key.as_str()].iter().chain(words).map(Into::into));
        args
    };
    for (words, said) in cases {
        let text = refused(&more(words), None)?;
        assert!(said.iter().all(|word| text.contains(word)), "{words:?}: {text}");
    }
    let mut command = Command::new(binary()?);
    command
        .args(more(&["-mesh-with=derp.test"]))
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", "/nowhere");
    let text = refused_command(command)?;
    assert!(text.contains("SSL_CERT_FILE") && text.contains("--mesh-pin"), "{text}");
    assert!(!dir.path().join("derper.key").exists(), "nothing was written");
    Ok(())
}
