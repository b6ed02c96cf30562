//! The admin socket's answers, for people.

use std::fmt::Write;

use super::view::{Client, Leg, Session, Status, Xdp};

/// `relayd status`.
pub fn status(status: &Status) -> String {
    let mut out = String::new();
    let up = status.uptime_seconds;
    line(&mut out, "relayd", format!("{}, up {}", status.version, age(up)));
    line(&mut out, "derp", format!("{} clients, key {}", status.derp.clients, status.derp.key));
    if let Some(certificate) = &status.certificate {
        let (names, state, days) = (certificate.names.join(", "), &certificate.state, certificate.days_left);
        let text = format!("{state}, {days} days left, for {names}, {}", certificate.file);
        line(&mut out, "certificate", text);
        line(&mut out, "pin", certificate.pin.clone());
        line(&mut out, "map node", certificate.derp_map_node.to_json());
    }
    match &status.udp {
        Some(udp) => {
            let text = format!("port {}, {} of {} sessions", udp.port, udp.sessions, udp.max_sessions);
            line(&mut out, "udp relay", text);
        }
        None => line(&mut out, "udp relay", "off (--relay-server-port)".to_owned()),
    }
    match &status.xdp {
        Xdp::Unavailable { unavailable } => line(&mut out, "xdp", format!("off: {unavailable}")),
        Xdp::Active(xdp) => {
            let maps = xdp.maps.as_deref().unwrap_or("not pinned");
            let state = if xdp.enabled { "forwarding" } else { "turned off (`relayd xdp on`)" };
            let text = format!("{state}, {} on {}, program {}", xdp.mode, xdp.interface, xdp.program_id);
            line(&mut out, "xdp", text);
            line(&mut out, "maps", maps.to_owned());
            let text = format!("{} sessions, drift {}, failures {}", xdp.installed, xdp.drift, xdp.failures);
            line(&mut out, "in kernel", text);
            out.push_str("\nXDP exits:\n");
            let seen = xdp.reasons.iter().filter(|(_, count)| count.packets > 0);
            seen.for_each(|(label, count)| {
                let _ = writeln!(out, "  {label:<28}{:>14} packets {:>16} bytes", count.packets, count.bytes);
            });
        }
    }
    out.push_str("\nuserspace counters:\n");
    for (label, n) in status.counters.iter().filter(|(_, n)| **n > 0) {
        let _ = writeln!(out, "  {label:<28}{n:>14}");
    }
    out
}

/// `relayd clients`.
pub fn clients(clients: &[Client]) -> String {
    if clients.is_empty() {
        return "no clients\n".to_owned();
    }
    let mut out = format!(
        "{:<20} {:<24} {:>8} {:>12} {:>12} {:>8}  {}\n",
        "KEY", "FROM", "UP", "IN", "OUT", "QUEUED", "STATE"
    );
    for client in clients {
        let state = if client.active { "active" } else { "duplicate, standing by" };
        let home = if client.preferred { ", home" } else { "" };
        let _ = writeln!(
            out,
            "{:<20} {:<24} {:>8} {:>12} {:>12} {:>8}  {state}{home}",
            short(&client.key.to_string()),
            client.remote.to_string(),
            age(client.connected_seconds),
            client.packets_in,
            client.packets_out,
            client.queued_frames,
        );
    }
    out
}

/// `relayd sessions`.
pub fn sessions(sessions: &[Session]) -> String {
    if sessions.is_empty() {
        return "no sessions\n".to_owned();
    }
    let mut out = String::new();
    for session in sessions {
        let state = match (session.bound, session.installed) {
            (false, _) => "connecting",
            (true, false) => "bound, carried by userspace",
            (true, true) => "bound, carried by XDP",
        };
        let _ = writeln!(out, "VNI {}: {state}, {} old", session.vni, age(session.age_seconds));
        session.legs.iter().for_each(|each| out.push_str(&leg(each)));
    }
    out
}

fn leg(leg: &Leg) -> String {
    let client = short(&leg.client.to_string());
    let Some((remote, local)) = leg.remote.zip(leg.local) else {
        return format!("  {client:<20} no handshake yet\n");
    };
    let seen = leg.last_seen_seconds_ago.map_or_else(|| "never".to_owned(), |ago| format!("{ago:.1} s ago"));
    format!(
        "  {client:<20} {remote} at {local}, heard {seen}; packets: XDP {}, userspace {}\n",
        leg.xdp_packets, leg.packets
    )
}

fn line(out: &mut String, name: &str, text: String) {
    let _ = writeln!(out, "{name:<12}{text}");
}

/// A key's prefix and first digits, as upstream's logs write keys.
fn short(key: &str) -> String {
    match key.split_once(':') {
        Some((prefix, hex)) => format!("{prefix}:{}…", hex.get(..8).unwrap_or(hex)),
        None => key.to_owned(),
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
