//! `relayd mesh` and `relayd why`.

use std::fmt::Write;

use super::{digits, line, packets, short};
use crate::admin::mesh::{MeshView, PlaceView};
use crate::admin::why::WhyView;
use crate::columns::Align::{Left, Right};
use crate::columns::{age, bytes, count, plural, table};

/// Prints `relayd mesh`.
pub fn mesh(mesh: &MeshView) -> String {
    let mut out = String::new();
    if mesh.places.is_empty() && mesh.unknown_hosts.is_empty() {
        out.push_str("no links: no -mesh-with\n");
    }
    let keys: Vec<String> =
        mesh.places.iter().filter_map(|place| place.server.map(|key| key.to_string())).collect();
    let digits = digits(&keys);
    if !mesh.places.is_empty() {
        let columns = [
            ("HOST", Left),
            ("ADDRESS", Left),
            ("RELAY", Left),
            ("STATE", Left),
            ("KEYS", Right),
            ("ROUND TRIP", Right),
            ("OUT", Right),
            ("", Right),
            ("QUEUED", Right),
            ("DROPPED", Right),
        ];
        out.push_str(&table(0, columns, mesh.places.iter().map(|place| row(place, digits))));
    }
    for place in mesh.places.iter().filter(|place| place.link.is_none()) {
        if let Some(fault) = &place.fault {
            let _ = writeln!(out, "{} ({}): {fault}", place.host, place.addr);
        }
    }
    for (host, error) in &mesh.unknown_hosts {
        let error = error.as_deref().unwrap_or("it is being looked up");
        let _ = writeln!(out, "{host}: no address known: {error}");
    }
    if !mesh.has_key {
        out.push_str("no mesh key (-mesh-psk-file): other relays cannot have links to this one\n");
    }
    for peer in &mesh.incoming {
        let waiting = match peer.queued_bytes {
            0 => String::new(),
            n => format!(", {} waiting", bytes(n as u64)),
        };
        let up = age(peer.connected_seconds);
        let _ = writeln!(out, "linked to us: {} from {} for {up}{waiting}", peer.key, peer.remote);
    }
    out
}

fn row(place: &PlaceView, digits: usize) -> [String; 10] {
    let server = place.server.map_or_else(|| "-".to_owned(), |key| short(&key.to_string(), digits));
    let dash = || "-".to_owned();
    let Some(link) = &place.link else {
        let state = match place.state.as_str() {
            "down" => "down, dialling",
            "alias" => "linked by another address",
            "ourselves" => "this relay",
            other => other,
        };
        let head = [place.host.clone(), place.addr.to_string(), server, state.to_owned()];
        let [host, addr, server, state] = head;
        return [host, addr, server, state, dash(), dash(), dash(), String::new(), dash(), dash()];
    };
    let blocked = link.blocked_ms.map_or_else(String::new, |ms| format!(", blocked {ms} ms"));
    [
        place.host.clone(),
        place.addr.to_string(),
        server,
        format!("up {}", age(link.age_seconds)),
        count(link.clients as u64),
        link.round_trip_ms.map_or_else(dash, |ms| format!("{ms:.1} ms")),
        packets(link.packets_out),
        bytes(link.bytes_out),
        match link.queued_frames {
            0 => dash(),
            n => format!("{}, {}{blocked}", plural(n, "frame"), bytes(link.queued_bytes as u64)),
        },
        packets(link.packets_dropped),
    ]
}

/// Prints `relayd why`.
pub fn why(why: &WhyView) -> String {
    let mut out = String::new();
    line(&mut out, "key", why.key.clone());
    line(&mut out, "admitted", format!("{}: {}", if why.admitted { "yes" } else { "no" }, why.by));
    for place in &why.found {
        let used = if place.used { "" } else { " (not used)" };
        line(&mut out, "where", format!("{}{used}", place.place));
        line(&mut out, "rung", place.rung.clone());
        line(&mut out, "not better", place.why_not_better.clone());
    }
    if let Some(nobody) = &why.nobody {
        line(&mut out, "where", "nowhere".to_owned());
        line(&mut out, "rung", format!("none: {nobody}"));
    }
    out
}
