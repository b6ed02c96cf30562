//! The output of `relayd inspect`: a snapshot of the maps, field by field, under the names of
//! `relay_common::fastpath`.
//!
//! Times are shown relative to now, because CLOCK_MONOTONIC nanoseconds mean nothing to a reader. Interfaces
//! are shown by index, because the reader may be in another network namespace than the daemon.

use std::{
    io::{self, Write},
    net::{Ipv6Addr, SocketAddr},
};

use relay_common::fastpath::{
    Config, HEARTBEAT_LIMIT_NS, LegEntry, LegStats, NextHopEntry, ReasonCount, SessionEntry, SessionStats,
    Tag, reason::XdpReason,
};

use super::alive::Keeper;
use crate::columns::{
    Align::{Left, Right},
    bytes, count, table,
};

/// One session from the maps; next hops and counters are absent if their maps are.
pub(super) struct Session {
    pub(super) vni: u32,
    pub(super) entry: SessionEntry,
    pub(super) hops: [Option<NextHopEntry>; 2],
    pub(super) stats: Option<SessionStats>,
}

pub(super) fn config(out: &mut dyn Write, config: &Config, keeper: Keeper, now_ns: u64) -> io::Result<()> {
    let state = match config.enabled {
        _ if keeper == Keeper::Gone => "the program went with its daemon",
        0 => "passing everything",
        _ if now_ns.saturating_sub(config.heartbeat_ns) > HEARTBEAT_LIMIT_NS => {
            "passing everything: the heartbeat is stale"
        }
        _ => "forwarding",
    };
    writeln!(out, "  CONFIG")?;
    writeln!(out, "    heartbeat_ns    {}", relative(config.heartbeat_ns, now_ns))?;
    writeln!(out, "    enabled         {} ({state})", config.enabled)?;
    writeln!(out, "    udp_port        {}", u16::from_be_bytes(config.udp_port))?;
    let ingress = if config.any_ingress == 0 { "the one that leads to the sender" } else { "any" };
    writeln!(out, "    any_ingress     {} (interface: {ingress})", config.any_ingress)
}

/// Prints one line per next hop.
pub(super) fn next_hops(out: &mut dyn Write, hops: &[(u32, NextHopEntry)]) -> io::Result<()> {
    if hops.is_empty() {
        return Ok(());
    }
    let columns = [("NUMBER", Right), ("INTERFACE", Right), ("FROM", Left), ("TO", Left), ("MTU", Right)];
    let rows = hops.iter().map(|(number, hop)| {
        let [interface, to, mtu] = way(Some(hop));
        let from = if hop.ifindex == 0 { String::new() } else { mac(hop.egress_mac) };
        [number.to_string(), interface, from, to, mtu]
    });
    out.write_all(table(4, columns, rows).as_bytes())
}

/// Interface, neighbour and MTU of a next hop.
fn way(hop: Option<&NextHopEntry>) -> [String; 3] {
    let none = String::new;
    match hop {
        None => ["?".to_owned(), none(), none()],
        Some(hop) if hop.ifindex == 0 => ["-".to_owned(), "no way now".to_owned(), none()],
        Some(hop) => [hop.ifindex.to_string(), mac(hop.next_hop_mac), hop.mtu.to_string()],
    }
}

pub(super) fn reasons(out: &mut dyn Write, reasons: &[(XdpReason, ReasonCount)]) -> io::Result<()> {
    writeln!(out, "  REASONS           {:>14} {:>16}  verdict", "packets", "bytes")?;
    let mut total = ReasonCount::default();
    for (reason, count) in reasons.iter().filter(|(_, count)| *count != ReasonCount::default()) {
        let verdict = format!("{:?}", reason.verdict()).to_lowercase();
        writeln!(out, "    {:<16}{:>14} {:>16}  {verdict}", reason.label(), count.packets, count.bytes)?;
        total.packets += count.packets;
        total.bytes += count.bytes;
    }
    writeln!(out, "    {:<16}{:>14} {:>16}", "(all)", total.packets, total.bytes)
}

/// Prints two lines per session, one for each leg.
pub(super) fn sessions(out: &mut dyn Write, found: &[Session], now_ns: u64) -> io::Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let columns = [
        ("VNI", Right),
        ("EXPIRES", Right),
        ("CLIENT AT", Left),
        ("RELAY AT", Left),
        ("INTERFACE", Right),
        ("NEXT HOP", Left),
        ("MTU", Right),
        ("LAST PACKET", Right),
        ("PACKETS", Right),
        ("BYTES", Right),
    ];
    let rows = found.iter().flat_map(|Session { vni, entry, hops, stats }| {
        let leg = |index: usize| {
            let first = match index {
                0 => [vni.to_string(), relative(entry.expires_ns, now_ns)],
                _ => Default::default(),
            };
            let stats = stats.as_ref().map(|stats| &stats.legs[index]);
            row(first, &entry.legs[index], hops[index].as_ref(), stats, now_ns)
        };
        [leg(0), leg(1)]
    });
    out.write_all(table(4, columns, rows).as_bytes())
}

/// Prints how many sessions were left out.
pub(super) fn left_out(out: &mut dyn Write, shown: usize, matched: usize) -> io::Result<()> {
    match matched.saturating_sub(shown) {
        0 => Ok(()),
        rest => writeln!(out, "    {} not shown (--limit 0 shows all)", count(rest as u64)),
    }
}

fn row(
    [vni, expires]: [String; 2],
    leg: &LegEntry,
    hop: Option<&NextHopEntry>,
    stats: Option<&LegStats>,
    now_ns: u64,
) -> [String; 10] {
    let unknown = || "?".to_owned();
    let [interface, to, mtu] = way(hop);
    [
        vni,
        expires,
        socket((leg.remote_ip, leg.remote_port)).to_string(),
        socket((leg.local_ip, leg.local_port)).to_string(),
        interface,
        to,
        mtu,
        stats.map_or_else(unknown, |stats| last_seen(stats.last_seen_ns, now_ns)),
        stats.map_or_else(unknown, |stats| count(stats.packets)),
        stats.map_or_else(unknown, |stats| bytes(stats.bytes)),
    ]
}

pub(super) fn session(out: &mut dyn Write, found: &Session, now_ns: u64) -> io::Result<()> {
    let Session { vni, entry, hops, stats } = found;
    let Tag { vni: named, generation } = entry.head;
    writeln!(out, "    vni {vni}")?;
    // A program does not use an element whose tags differ or name another session.
    let mark = if entry.head == entry.tail && named == *vni { "" } else { " (its tags do not agree)" };
    writeln!(out, "      generation    {generation}{mark}")?;
    writeln!(out, "      expires_ns    {}", relative(entry.expires_ns, now_ns))?;
    writeln!(out, "      stats_slot    {}", entry.stats_slot)?;
    for (index, leg_entry) in entry.legs.iter().enumerate() {
        writeln!(out, "      leg {index}")?;
        leg(out, leg_entry, hops[index].as_ref())?;
        if let Some(stats) = stats {
            counters(out, &stats.legs[index], now_ns)?;
        }
    }
    Ok(())
}

fn leg(out: &mut dyn Write, leg: &LegEntry, hop: Option<&NextHopEntry>) -> io::Result<()> {
    writeln!(out, "        remote        {}", socket((leg.remote_ip, leg.remote_port)))?;
    writeln!(out, "        local         {}", socket((leg.local_ip, leg.local_port)))?;
    writeln!(out, "        next_hop      {}", leg.next_hop)?;
    match hop {
        None => Ok(()),
        Some(hop) if hop.ifindex == 0 => writeln!(out, "        interface     no way now"),
        Some(hop) => {
            writeln!(out, "        interface     {}", hop.ifindex)?;
            writeln!(out, "        egress_mac    {}", mac(hop.egress_mac))?;
            writeln!(out, "        next_hop_mac  {}", mac(hop.next_hop_mac))?;
            writeln!(out, "        mtu           {}", hop.mtu)
        }
    }
}

fn counters(out: &mut dyn Write, stats: &LegStats, now_ns: u64) -> io::Result<()> {
    writeln!(out, "        last_seen_ns  {}", last_seen(stats.last_seen_ns, now_ns))?;
    writeln!(out, "        packets       {}", stats.packets)?;
    writeln!(out, "        bytes         {}", stats.bytes)
}

fn last_seen(then_ns: u64, now_ns: u64) -> String {
    if then_ns == 0 { "never".to_owned() } else { relative(then_ns, now_ns) }
}

/// Converts an address and a port from their form in the maps.
pub(super) fn socket((ip, port): ([u8; 16], [u8; 2])) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes(port))
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn relative(then_ns: u64, now_ns: u64) -> String {
    let text = |ns: u64| format!("{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1000);
    if then_ns >= now_ns {
        format!("in {}", text(then_ns - now_ns))
    } else {
        format!("{} ago", text(now_ns - then_ns))
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    const NOW: u64 = 100_000_000_000;

    fn printed(print: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).expect("memory takes everything");
        String::from_utf8(out).expect("text")
    }

    fn sample() -> Session {
        let mut entry = SessionEntry {
            head: Tag { vni: 7, generation: 3 },
            tail: Tag { vni: 7, generation: 3 },
            expires_ns: NOW + 29_500_000_000,
            stats_slot: 9,
            ..Zeroable::zeroed()
        };
        entry.legs[0] = LegEntry {
            remote_ip: std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets(),
            local_ip: std::net::Ipv4Addr::new(192, 0, 2, 9).to_ipv6_mapped().octets(),
            remote_port: 41641u16.to_be_bytes(),
            local_port: 3478u16.to_be_bytes(),
            next_hop: 5,
        };
        entry.legs[1].remote_ip = std::net::Ipv6Addr::LOCALHOST.octets();
        let mut stats = SessionStats::zeroed();
        stats.legs[0] =
            LegStats { last_seen_ns: NOW - 4_000_000, packets: 10, bytes: 1200, reserved: [0; 5] };
        Session { vni: 7, entry, hops: [Some(hop()), Some(NextHopEntry::zeroed())], stats: Some(stats) }
    }

    fn hop() -> NextHopEntry {
        NextHopEntry {
            version: 8,
            ifindex: 2,
            mtu: 1500,
            egress_mac: [2, 0, 0, 0, 0, 0x1b],
            next_hop_mac: [2, 0, 0, 0, 0, 0x1a],
            ..NextHopEntry::zeroed()
        }
    }

    #[test]
    fn a_next_hop_is_one_line_and_says_when_there_is_no_way() {
        let hops = [(5, hop()), (9, NextHopEntry { version: 2, ..NextHopEntry::zeroed() })];
        let text = printed(|out| next_hops(out, &hops));
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1..], ["5 2 02:00:00:00:00:1b 02:00:00:00:00:1a 1500", "9 - no way now"]);
        assert_eq!(printed(|out| next_hops(out, &[])), "");
    }

    #[test]
    fn an_element_whose_tags_do_not_agree_is_shown_as_such() {
        let mut session_of_another = sample();
        session_of_another.entry.tail.vni = 8;
        let text = printed(|out| session(out, &session_of_another, NOW));
        assert!(text.contains("generation    3 (its tags do not agree)"), "{text}");
    }

    #[test]
    fn a_session_is_two_lines() {
        let text = printed(|out| sessions(out, &[sample()], NOW));
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let one =
            "7 in 29.500 s 192.0.2.1:41641 192.0.2.9:3478 2 02:00:00:00:00:1a 1500 0.004 s ago 10 1.20 kB";
        let two = "[::1]:0 [::]:0 - no way now never 0 0 B";
        assert_eq!(words[1..].iter().map(|line| line.join(" ")).collect::<Vec<_>>(), [one, two]);
        assert_eq!(printed(|out| sessions(out, &[], NOW)), "");
        assert_eq!(printed(|out| left_out(out, 2, 2)), "");
        assert_eq!(printed(|out| left_out(out, 2, 3)), "    1 not shown (--limit 0 shows all)\n");
    }

    #[test]
    fn a_session_is_printed_by_field_name() {
        let text = printed(|out| session(out, &sample(), NOW));
        let wanted = "    vni 7
      generation    3
      expires_ns    in 29.500 s
      stats_slot    9
      leg 0
        remote        192.0.2.1:41641
        local         192.0.2.9:3478
        next_hop      5
        interface     2
        egress_mac    02:00:00:00:00:1b
        next_hop_mac  02:00:00:00:00:1a
        mtu           1500
        last_seen_ns  0.004 s ago
        packets       10
        bytes         1200
      leg 1
        remote        [::1]:0
        local         [::]:0
        next_hop      0
        interface     no way now
        last_seen_ns  never
        packets       0
        bytes         0
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_stale_heartbeat_is_said_to_stop_the_program() {
        let fresh = Config {
            heartbeat_ns: NOW - 1_000_000_000,
            enabled: 1,
            udp_port: 3478u16.to_be_bytes(),
            any_ingress: 0,
            reserved: 0,
        };
        let text = printed(|out| config(out, &fresh, Keeper::Runs(None), NOW));
        assert!(
            text.contains("1.000 s ago") && text.contains("(forwarding)") && text.contains("3478"),
            "{text}"
        );
        let stale = Config { heartbeat_ns: NOW - HEARTBEAT_LIMIT_NS - 1, ..fresh };
        assert!(printed(|out| config(out, &stale, Keeper::Runs(None), NOW)).contains("stale"));
        let off = Config { enabled: 0, ..fresh };
        assert!(printed(|out| config(out, &off, Keeper::Runs(None), NOW)).contains("0 (passing everything)"));
        assert!(!printed(|out| config(out, &fresh, Keeper::Gone, NOW)).contains("forwarding"));
    }

    #[test]
    fn reasons_that_never_happened_are_left_out_and_the_sum_is_given() {
        let counts = [
            (XdpReason::Forwarded, ReasonCount { packets: 2, bytes: 200 }),
            (XdpReason::Disabled, ReasonCount::default()),
            (XdpReason::TtlExpired, ReasonCount { packets: 1, bytes: 60 }),
        ];
        let text = printed(|out| reasons(out, &counts));
        assert!(!text.contains("disabled"), "{text}");
        let words: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [
                vec!["forwarded", "2", "200", "tx"],
                vec!["ttl_expired", "1", "60", "drop"],
                vec!["(all)", "3", "260"]
            ]
        );
    }
}
