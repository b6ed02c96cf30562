//! Prints the admin socket's answers for people: as much as fits a screen, with units, and the totals last.

mod counters;
mod mesh;

use std::fmt::Write;

use self::counters::groups;
pub use self::mesh::{mesh, why};
use super::list::{ClientTotals, SessionTotals};
use super::view::{
    ActiveXdp, AdvertisedView, ClientView, DeniedView, Derp, LegView, SessionView, Status, StunServerView,
    UdpView, Xdp,
};
use crate::columns::Align::{Left, Right};
use crate::columns::{age, bytes, count, plural, table};

/// Hex digits of a shortened key at least; more if keys would look alike.
const DIGITS: usize = 12;

/// Prints `relayd status`. `all`: includes counters at zero.
pub fn status(status: &Status, all: bool) -> String {
    let mut out = String::new();
    let up = status.uptime_seconds;
    line(&mut out, "relayd", format!("{}, up {}", status.version, age(up)));
    let clients = plural(status.derp.clients, "client");
    let Derp { key, workers, workers_in_use, .. } = &status.derp;
    let workers = plural(*workers, "worker");
    line(&mut out, "derp", format!("{clients} on {workers_in_use} of {workers}, key {key}"));
    if status.derp.links > 0 {
        let (links, keys) = (plural(status.derp.links, "link"), plural(status.derp.remote_clients, "key"));
        line(&mut out, "mesh", format!("{links} to other relays, which have {keys} (relayd mesh)"));
    }
    if status.log_lines_dropped > 0 {
        let lines = plural(status.log_lines_dropped, "line");
        line(&mut out, "log", format!("{lines} dropped: standard error was not read fast enough"));
    }
    if let Some(certificate) = &status.certificate {
        let (names, state, days) = (certificate.names.join(", "), &certificate.state, certificate.days_left);
        let text = format!("{state}, {days} days left, for {names}, {}", certificate.file);
        line(&mut out, "certificate", text);
        line(&mut out, "pin", certificate.pin.clone());
        line(&mut out, "map node", certificate.derp_map_node.to_json());
    }
    match &status.udp {
        Some(udp) => {
            let (sessions, most) = (count(udp.sessions as u64), count(udp.max_sessions.into()));
            let text = format!("port {}, {sessions} of at most {most} sessions, key {}", udp.port, udp.key);
            line(&mut out, "udp relay", text);
            addresses(&mut out, udp);
        }
        None => line(&mut out, "udp relay", "off (--relay-server-port)".to_owned()),
    }
    match &status.xdp {
        Xdp::Unavailable { unavailable } => line(&mut out, "xdp", format!("off: {unavailable}")),
        Xdp::Active(xdp) => active(&mut out, xdp, all),
    }
    for (title, counters) in groups(&status.counters, all) {
        let rows = counters.into_iter().map(|(label, n)| {
            let with_unit = if label.contains("bytes") { bytes(n) } else { String::new() };
            [label.to_owned(), count(n), with_unit]
        });
        let _ = write!(out, "\n{}", table(0, [(title, Left), ("", Right), ("", Right)], rows));
    }
    if !all && status.counters.values().any(|n| *n == 0) {
        out.push_str("\ncounters at zero are left out (--all)\n");
    }
    out
}

/// What is advertised, what STUN servers say, and who is denied.
fn addresses(out: &mut String, udp: &UdpView) {
    if udp.advertised.is_empty() {
        line(out, "advertised", "nothing: allocations wait (--advertise names an address)".to_owned());
    }
    for AdvertisedView { addr, from } in &udp.advertised {
        line(out, "advertised", format!("{addr}, {from}"));
    }
    for StunServerView { server, addr, seen, seconds_ago, silent } in &udp.stun_servers {
        let seen = match (seen, seconds_ago) {
            (Some(seen), Some(ago)) => format!("saw {seen} {} ago", age(*ago)),
            _ => "has not answered".to_owned(),
        };
        let silent = if *silent && !seen.starts_with("has") { ", silent since" } else { "" };
        let addr = addr.map_or_else(|| "name not found".to_owned(), |addr| addr.to_string());
        line(out, "stun server", format!("{server} ({addr}) {seen}{silent}"));
    }
    if let Some(DeniedView { file, networks, refused }) = &udp.denied {
        let networks = plural(*networks, "network");
        line(out, "denied", format!("clients of {networks}, {file} (SIGHUP reads it again)"));
        if let Some(why) = refused {
            line(out, "look at", format!("an older list holds: {why}"));
        }
    }
}

fn active(out: &mut String, xdp: &ActiveXdp, all: bool) {
    line(out, "xdp", format!("{}, program {}", state(xdp), xdp.program_id));
    if let Some(hint) = &xdp.hint {
        line(out, "look at", hint.clone());
    }
    if xdp.losses > 0 {
        line(out, "lost", format!("{} times no longer attached", count(xdp.losses)));
    }
    line(out, "maps", xdp.maps.clone().unwrap_or_else(|| "not pinned".to_owned()));
    let sessions = plural(usize::try_from(xdp.installed).unwrap_or(usize::MAX), "session");
    let (drift, failures, audits) = (count(xdp.drift), count(xdp.failures), count(xdp.audits));
    let text = format!("{sessions}; {drift} entries wrong in {audits} audits, {failures} writes failed");
    line(out, "in kernel", text);
    let shown = xdp.reasons.iter().filter(|(_, n)| all || n.packets > 0);
    let rows: Vec<_> = shown.map(|(label, n)| [label.clone(), count(n.packets), bytes(n.bytes)]).collect();
    if !rows.is_empty() {
        let _ =
            write!(out, "\n{}", table(0, [("XDP EXITS", Left), ("PACKETS", Right), ("BYTES", Right)], rows));
    }
}

/// Prints the answer of `relayd xdp on` and `relayd xdp off`.
pub fn switched(xdp: &Xdp) -> String {
    match xdp {
        Xdp::Active(xdp) => format!("XDP: {}\n", state(xdp)),
        Xdp::Unavailable { unavailable } => format!("XDP: off: {unavailable}\n"),
    }
}

fn state(xdp: &ActiveXdp) -> String {
    let since = age(xdp.link_seconds);
    if !xdp.attached {
        return format!("not attached for {since}, userspace carries all sessions: {}", xdp.link);
    }
    let state = match xdp.enabled {
        true if xdp.link == "up" || xdp.link.is_empty() => "forwarding".to_owned(),
        true => format!("nothing to forward, the interface is {} for {since}", xdp.link),
        false => "turned off, userspace carries all sessions (`relayd xdp on` turns it on)".to_owned(),
    };
    format!("{state}; {} mode on {}", xdp.mode, xdp.interface)
}

/// Prints `relayd clients`.
pub fn clients(clients: &[ClientView], totals: &ClientTotals) -> String {
    let keys: Vec<String> = clients.iter().map(|client| client.key.to_string()).collect();
    let digits = digits(&keys);
    let columns = [
        ("KEY", Left),
        ("FROM", Left),
        ("VIA", Left),
        ("UP", Right),
        ("IN", Right),
        ("", Right),
        ("OUT", Right),
        ("", Right),
        ("QUEUED", Right),
        ("STATE", Left),
        ("APP", Left),
    ];
    let rows = clients.iter().zip(&keys).map(|(client, key)| {
        let state = if client.active { "active" } else { "standby" };
        let home = if client.preferred { ", home" } else { "" };
        [
            short(key, digits),
            client.remote.to_string(),
            client.protocol.clone(),
            age(client.connected_seconds),
            packets(client.packets_in),
            bytes(client.bytes_in),
            packets(client.packets_out),
            bytes(client.bytes_out),
            queued(client),
            format!("{state}{home}{}", if client.mesh_peer { ", mesh key" } else { "" }),
            client.app_name.clone(),
        ]
    });
    let mut out = if clients.is_empty() { String::new() } else { table(0, columns, rows) };
    let _ = writeln!(
        out,
        "{}: {} in, {}; {} out, {}{}",
        plural(totals.clients, "client"),
        packets(totals.packets_in),
        bytes(totals.bytes_in),
        packets(totals.packets_out),
        bytes(totals.bytes_out),
        left_out(clients.len(), totals.clients).map_or_else(String::new, |text| format!("; {text}")),
    );
    out
}

fn queued(client: &ClientView) -> String {
    match client.queued_frames {
        0 => "-".to_owned(),
        n => format!("{}, {}", plural(n, "frame"), bytes(client.queued_bytes as u64)),
    }
}

/// Prints `relayd sessions`.
pub fn sessions(sessions: &[SessionView], totals: &SessionTotals) -> String {
    let keys: Vec<String> =
        sessions.iter().flat_map(|session| &session.legs).map(|leg| leg.client.to_string()).collect();
    let digits = digits(&keys);
    let columns = [
        ("VNI", Right),
        ("STATE", Left),
        ("AGE", Right),
        ("CLIENT", Left),
        ("AT", Left),
        ("RELAY AT", Left),
        ("HEARD", Right),
        ("XDP", Right),
        ("", Right),
        ("USERSPACE", Right),
        ("", Right),
    ];
    let rows = sessions.iter().flat_map(|session| {
        let state = match (session.bound, session.installed) {
            (false, _) => "connecting",
            (true, false) => "userspace",
            (true, true) => "XDP",
        };
        let first = [session.vni.to_string(), state.to_owned(), age(session.age_seconds)];
        [(first, &session.legs[0]), (Default::default(), &session.legs[1])]
    });
    let rows = rows.map(|([vni, state, age], leg)| {
        let [client, at, relay, heard, xdp, xdp_bytes, user, user_bytes] = self::leg(leg, digits);
        [vni, state, age, client, at, relay, heard, xdp, xdp_bytes, user, user_bytes]
    });
    let mut out = if sessions.is_empty() { String::new() } else { table(0, columns, rows) };
    let _ = writeln!(
        out,
        "{}, {} bound, {} in the kernel: {}, {} by XDP; {}, {} by userspace{}",
        plural(totals.sessions, "session"),
        count(totals.bound as u64),
        count(totals.installed as u64),
        packets(totals.xdp_packets),
        bytes(totals.xdp_bytes),
        packets(totals.packets),
        bytes(totals.bytes),
        left_out(sessions.len(), totals.sessions).map_or_else(String::new, |text| format!("; {text}")),
    );
    out
}

fn leg(leg: &LegView, digits: usize) -> [String; 8] {
    let addr = |addr: Option<std::net::SocketAddr>| addr.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let heard = leg.last_seen_seconds_ago;
    [
        short(&leg.client.to_string(), digits),
        if leg.remote.is_some() { addr(leg.remote) } else { "no handshake yet".to_owned() },
        addr(leg.local),
        heard.map_or_else(|| "never".to_owned(), |ago| format!("{ago:.1} s ago")),
        packets(leg.xdp_packets),
        bytes(leg.xdp_bytes),
        packets(leg.packets),
        bytes(leg.bytes),
    ]
}

/// The note about the entries of a list that are not shown; `None`: all are shown.
pub(super) fn left_out(shown: usize, matched: usize) -> Option<String> {
    let rest = matched.saturating_sub(shown);
    (rest > 0).then(|| format!("{} not shown (--limit 0 shows all)", count(rest as u64)))
}

fn line(out: &mut String, name: &str, text: String) {
    let _ = writeln!(out, "{name:<12}{text}");
}

fn packets(n: u64) -> String {
    format!("{} pkts", count(n))
}

/// How many hex digits make all these keys distinct.
fn digits(keys: &[String]) -> usize {
    let mut sorted: Vec<&str> = keys.iter().map(|key| hex(key).1).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let alike = |pair: &[&str]| pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count();
    sorted.windows(2).map(|pair| alike(pair) + 1).max().unwrap_or(0).max(DIGITS)
}

/// A key's prefix and first digits, in a form that the filter accepts.
fn short(key: &str, digits: usize) -> String {
    let (prefix, hex) = hex(key);
    match hex.get(..digits) {
        Some(first) if first.len() < hex.len() => format!("{prefix}{first}…"),
        _ => key.to_owned(),
    }
}

fn hex(key: &str) -> (&str, &str) {
    key.split_at(key.find(':').map_or(0, |colon| colon + 1))
}

#[cfg(test)]
mod tests;
