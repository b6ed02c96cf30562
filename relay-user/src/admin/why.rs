//! `GET /v1/why?key=`: where a key is, what admits it, on which rung its packets travel, and why not on a
//! better one. One form of answer for every kind of key.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use relay_common::key::{DiscoPublic, NodePublic};
use serde::{Deserialize, Serialize};

use super::view::Xdp;
use super::{Failure, Parts};
use crate::route::links::Whereabouts;
use crate::route::sessions::Session;

/// Shortest beginning of a key that is looked for.
const LEAST_DIGITS: usize = 4;

/// `GET /v1/why`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhyView {
    /// The key.
    pub key: String,
    /// Whether it may use this relay.
    pub admitted: bool,
    /// The rule that says so.
    pub by: String,
    /// Every place where the key is, the one that packets go to first. Empty: nobody has it.
    pub found: Vec<PlaceFound>,
    /// If nobody has it: what becomes of its packets.
    pub nobody: Option<String>,
}

/// One place where a key is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlaceFound {
    /// Whether packets for the key go there.
    pub used: bool,
    /// This relay or another one, and the address.
    pub place: String,
    /// The rung: `XDP`, `userspace`, `DERP` or `mesh`.
    pub rung: String,
    /// Why its packets are not on a better rung.
    pub why_not_better: String,
}

/// A key in the question.
enum Key {
    Node(NodePublic),
    Disco(DiscoPublic),
}

/// Answers where a key is.
pub(super) async fn why(
    State(daemon): State<Arc<Parts>>,
    RawQuery(query): RawQuery,
) -> Result<Json<WhyView>, Failure> {
    let query = query.unwrap_or_default();
    let key = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "key");
    let text = key.map(|(_, value)| value.trim().to_owned()).unwrap_or_default();
    let view = match find(&daemon, &text)? {
        Key::Node(key) => of_node(&daemon, &key),
        Key::Disco(key) => of_disco(&daemon, &key),
    };
    Ok(Json(view))
}

/// The path of the question.
pub fn path(key: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("key", key).finish();
    format!("/v1/why?{query}")
}

/// The key in `text`: whole, or the beginning of one that the relay knows.
fn find(daemon: &Parts, text: &str) -> Result<Key, Failure> {
    if let Ok(key) = text.parse() {
        return Ok(Key::Node(key));
    }
    if let Ok(key) = text.parse() {
        return Ok(Key::Disco(key));
    }
    let digits = text.rsplit(':').next().unwrap_or_default().trim_end_matches('…').to_ascii_lowercase();
    let wrong = |why: &str| {
        let form = "give a nodekey: or discokey: with 64 hex digits, or the first digits of a key in use";
        Failure::new(StatusCode::BAD_REQUEST, format!("{text:?} {why}; {form}"))
    };
    if digits.len() < LEAST_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wrong("is no key"));
    }
    let (of_node, of_disco) = (!text.starts_with("discokey:"), !text.starts_with("nodekey:"));
    let (mut nodes, mut discos) = (Vec::new(), Vec::new());
    if of_node {
        daemon.relay.router.for_each_key(|key| {
            if key.hex().starts_with(&digits) && !nodes.contains(key) {
                nodes.push(*key);
            }
        });
    }
    if of_disco {
        for_each_session(daemon, |session| {
            for client in &session.route.clients {
                if client.hex().starts_with(&digits) && !discos.contains(client) {
                    discos.push(*client);
                }
            }
        });
    }
    match (nodes.as_slice(), discos.as_slice()) {
        ([key], []) => Ok(Key::Node(*key)),
        ([], [key]) => Ok(Key::Disco(*key)),
        ([], []) if digits.len() == 64 && of_node => {
            format!("{}{digits}", NodePublic::PREFIX).parse().map(Key::Node).map_err(|_| wrong("is no key"))
        }
        ([], []) => Err(wrong("is the beginning of no key that is here, at another relay or in a session")),
        _ => Err(wrong("is the beginning of several keys")),
    }
}

fn of_node(daemon: &Parts, key: &NodePublic) -> WhyView {
    let Whereabouts { here, links } = daemon.relay.router.whereabouts(key);
    let mut found = Vec::new();
    let is_here = !here.is_empty();
    for peer in here {
        let standby =
            if peer.is_active() { "" } else { ", on standby: another connection of the key spoke last" };
        found.push(PlaceFound {
            used: peer.is_active(),
            place: format!("this relay, connected from {} by {}{standby}", peer.remote, peer.about.protocol),
            rung: "DERP".to_owned(),
            why_not_better: "UDP sessions are between disco keys, which the relay does not know for a node; \
                             ask with the discokey"
                .to_owned(),
        });
    }
    for (nth, link) in links.iter().rev().enumerate() {
        let why_not_better = match (is_here, nth) {
            (true, _) => "a connection here goes before every other relay",
            (false, 0) => "it has no connection to this relay",
            (false, _) => "another relay has said so later",
        };
        found.push(PlaceFound {
            used: !is_here && nth == 0,
            place: format!("relay {} at {}", link.server, link.remote),
            rung: "mesh".to_owned(),
            why_not_better: why_not_better.to_owned(),
        });
    }
    found.sort_by_key(|place| !place.used);
    let links = match &daemon.mesh {
        None => "no -mesh-with: no other relay is asked",
        Some(_) => "no relay of -mesh-with with a link that is up has it",
    };
    let nobody = found.is_empty().then(|| {
        format!("its packets are dropped (drop_unknown_dest): it is not connected here, and {links}")
    });
    WhyView { key: key.to_string(), admitted: true, by: every_key(daemon), found, nobody }
}

fn of_disco(daemon: &Parts, key: &DiscoPublic) -> WhyView {
    let mut found = Vec::new();
    let xdp = Xdp::of(daemon, daemon.relay.router.session_counts().1);
    for_each_session(daemon, |session| {
        let Some(leg) = session.route.clients.iter().position(|client| client == key) else { return };
        let in_kernel = session.is_installed();
        let why_not_better = match (&xdp, in_kernel) {
            (_, _) if !session.route.is_bound() => {
                "one of its two clients has not finished its handshake".to_owned()
            }
            (Xdp::Unavailable { unavailable }, _) => unavailable.clone(),
            (Xdp::Active(active), true) if !active.enabled => "turned off (`relayd xdp on`)".to_owned(),
            (Xdp::Active(_), true) => "there is none".to_owned(),
            (Xdp::Active(active), false) => {
                format!("a leg has no next hop in Ethernet through {} now", active.interface)
            }
        };
        let by_kernel = in_kernel && matches!(&xdp, Xdp::Active(active) if active.enabled);
        let at = session.route.legs[leg]
            .map_or_else(|| "no address yet".to_owned(), |path| path.remote.to_string());
        found.push(PlaceFound {
            used: session.route.is_bound(),
            place: format!("session {} of this relay, at {at}", session.vni()),
            rung: if by_kernel { "XDP" } else { "userspace" }.to_owned(),
            why_not_better,
        });
    });
    let nobody = found.is_empty().then(|| match &daemon.udp {
        Some(_) => "no UDP session has this key; its clients have not asked for one".to_owned(),
        None => "there is no UDP relay (--relay-server-port)".to_owned(),
    });
    WhyView { key: key.to_string(), admitted: true, by: every_key(daemon), found, nobody }
}

fn every_key(daemon: &Parts) -> String {
    let every = "no access rules: every key may use this relay";
    match daemon.udp.as_ref().and_then(|udp| udp.relay.denied().file()) {
        Some(file) => format!("{every}, but no UDP session from the networks in {}", file.display()),
        None => every.to_owned(),
    }
}

fn for_each_session(daemon: &Parts, mut visit: impl FnMut(&Session)) {
    let mut last = 0;
    let everything = |_: &Session| true;
    while let Some(end) = daemon.relay.router.sessions_after(last, everything, |session, _| visit(session)) {
        last = end;
    }
}
