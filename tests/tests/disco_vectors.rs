//! Upstream's own vectors for disco messages, read from its test file in the Go module cache: each parses to
//! the message that it stands for, and is written again byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use relay_common::disco::message::{AllocateRequest, AllocateResponse, Bind, BindKind, Message, Ping, Pong};
use relay_common::endpoint::ServerEndpoint;
use relay_common::geneve::Vni;
use relay_common::key::{DiscoPublic, NodePublic};
use relay_tests::{interop, skip};

/// The file, and the test in it.
const FILE: &str = "disco/disco_test.go";
/// Names of vectors about a message that never concerns a relay.
const FOREIGN: [&str; 2] = ["call_me_maybe", "call_me_maybe_endpoints"];

#[test]
fn upstreams_vectors_are_read_and_written() -> Result<()> {
    let dir = match interop::upstream_dir()? {
        Ok(dir) => dir,
        Err(reason) => {
            skip("upstreams_vectors_are_read_and_written", &reason);
            return Ok(());
        }
    };
    let text = fs::read_to_string(dir.join(FILE)).with_context(|| format!("{FILE} in {}", dir.display()))?;
    let vectors = vectors(&text)?;
    let expected = messages();
    let names: Vec<&str> = expected.iter().map(|(name, _)| *name).chain(FOREIGN).collect();
    for name in vectors.keys() {
        assert!(names.contains(&name.as_str()), "a new vector: {name}");
    }
    for (name, message) in expected {
        let bytes = vectors.get(name).with_context(|| format!("no vector {name}"))?;
        assert_eq!(Message::parse(bytes), Ok(message.clone()), "{name} is read");
        let mut written = Vec::new();
        message.encode(&mut written);
        assert_eq!(written, *bytes, "{name} is written");
    }
    for name in FOREIGN {
        assert!(Message::parse(&vectors[name]).is_err(), "{name}: nothing for a relay");
    }
    Ok(())
}

/// The vectors by name: each `name: "…"` of the file is followed by `want: "01 02 …"`.
fn vectors(text: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let (mut vectors, mut name) = (BTreeMap::new(), None);
    for line in text.lines() {
        let quoted = || Some(line.split_once('"')?.1.rsplit_once('"')?.0);
        if line.trim_start().starts_with("name:") {
            name = quoted().map(str::to_owned);
        } else if line.trim_start().starts_with("want:") {
            let bytes = quoted().context("a vector without quotes")?.split_whitespace();
            let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
            vectors.insert(name.take().context("a vector without a name")?, bytes);
        }
    }
    Ok(vectors)
}

fn messages() -> Vec<(&'static str, Message)> {
    let key = |places: &[u8]| {
        let mut bytes = [0; 32];
        places.iter().for_each(|place| bytes[usize::from(*place)] = *place);
        bytes
    };
    let tx_id = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let server = key(&[1, 2, 30, 31]);
    let client_disco = [key(&[1, 2, 3, 30, 31]), key(&[1, 2, 4, 30, 31])].map(DiscoPublic::from_bytes);
    let ping = |node: bool, padding| {
        let node_key = node.then(|| NodePublic::from_bytes(server));
        Message::Ping(Ping { tx_id, node_key, padding })
    };
    let pong = |src: &str| Message::Pong(Pong { tx_id, src: src.parse().expect("an address") });
    let vni = |number| Vni::new(number).expect("in range");
    let challenge = std::array::from_fn(|at| at as u8);
    let remote_key = DiscoPublic::from_bytes(server);
    let bind = |kind| Message::Bind(kind, Bind { vni: vni(1), generation: 2, remote_key, challenge });
    let endpoint = ServerEndpoint {
        server_disco: remote_key,
        client_disco,
        lamport_id: 123,
        addr_ports: ["1.2.3.4:567", "[2001::3456]:789"].map(|at| at.parse().expect("an address")).into(),
        vni: vni(456),
        bind_lifetime: Duration::from_secs(1),
        steady_state_lifetime: Duration::from_secs(60),
    };
    vec![
        ("ping", ping(false, 0)),
        ("ping_with_nodekey_src", ping(true, 0)),
        ("ping_with_padding", ping(false, 3)),
        ("ping_with_padding_and_nodekey_src", ping(true, 3)),
        ("pong", pong("2.3.4.5:1234")),
        ("pongv6", pong("[fed0::12]:6666")),
        ("bind_udp_relay_endpoint", bind(BindKind::Bind)),
        ("bind_udp_relay_endpoint_challenge", bind(BindKind::Challenge)),
        ("bind_udp_relay_endpoint_answer", bind(BindKind::Answer)),
        ("call_me_maybe_via", Message::CallMeMaybeVia(endpoint.clone())),
        (
            "allocate_udp_relay_endpoint_request",
            Message::AllocateRequest(AllocateRequest { client_disco, generation: 1 }),
        ),
        (
            "allocate_udp_relay_endpoint_response",
            Message::AllocateResponse(AllocateResponse { generation: 1, endpoint }),
        ),
    ]
}
