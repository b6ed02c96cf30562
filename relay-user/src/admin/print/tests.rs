//! The printed answers: units, totals, keys that can be pasted, and no more than fits a screen.

use std::collections::BTreeMap;

use relay_common::key::{DiscoPublic, KEY_LEN, NodePublic};

use super::*;
use crate::admin::view::Derp;

fn client(byte: u8) -> ClientView {
    ClientView {
        key: NodePublic::from_bytes([byte; KEY_LEN]),
        remote: "192.0.2.7:1234".parse().expect("an address"),
        active: true,
        preferred: true,
        mesh_peer: false,
        protocol: "tls1.3".to_owned(),
        app_name: "probe".to_owned(),
        connected_seconds: 7300,
        packets_in: 12_345,
        bytes_in: 1_234_567,
        packets_out: 1,
        bytes_out: 10,
        queued_frames: 0,
        queued_bytes: 0,
    }
}

#[test]
fn a_client_has_units_protocol_app_and_a_key_to_paste() {
    let totals =
        ClientTotals { clients: 3, packets_in: 20_000, bytes_in: 2_000_000, packets_out: 7, bytes_out: 70 };
    let text = clients(&[client(0xab)], &totals);
    let lines: Vec<&str> = text.lines().collect();
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    let wanted = "nodekey:abababababab… 192.0.2.7:1234 tls1.3 2 h 12,345 pkts 1.23 MB 1 pkts 10 B - active, home \
                  probe";
    assert_eq!(words.join(" "), wanted);
    let total = "3 clients: 20,000 pkts in, 2.00 MB; 7 pkts out, 70 B; 2 not shown (--limit 0 shows all)";
    assert_eq!(lines[2..], [total]);
    assert_eq!(clients(&[], &ClientTotals::default()), "0 clients: 0 pkts in, 0 B; 0 pkts out, 0 B\n");
}

#[test]
fn keys_that_look_alike_get_the_digits_that_tell_them_apart() {
    let (one, mut other) = ([7; KEY_LEN], [7; KEY_LEN]);
    other[10] = 8;
    let keys = [one, other].map(|bytes| NodePublic::from_bytes(bytes).to_string());
    let digits = digits(&keys);
    assert_eq!(digits, 22);
    assert_ne!(short(&keys[0], digits), short(&keys[1], digits));
    assert_eq!(super::digits(&keys[..1]), DIGITS);
    assert_eq!(short("nodekey:ab", 12), "nodekey:ab", "nothing was cut");
}

#[test]
fn a_session_is_two_lines_and_the_totals_one() {
    let leg = |byte, remote: Option<&str>| LegView {
        client: DiscoPublic::from_bytes([byte; KEY_LEN]),
        remote: remote.map(|addr| addr.parse().expect("an address")),
        local: remote.map(|_| "198.51.100.1:7777".parse().expect("an address")),
        packets: 2,
        bytes: 2000,
        xdp_packets: 1000,
        xdp_bytes: 1_000_000,
        last_seen_seconds_ago: remote.map(|_| 0.26),
    };
    let session = SessionView {
        vni: 7,
        generation: 2,
        bound: true,
        installed: true,
        age_seconds: 61,
        legs: [leg(1, Some("192.0.2.7:41641")), leg(2, None)],
    };
    let text = sessions(&[session], &SessionTotals { sessions: 1, bound: 1, ..SessionTotals::default() });
    let words: Vec<String> =
        text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let first = "7 XDP 61 s discokey:010101010101… 192.0.2.7:41641 198.51.100.1:7777 0.3 s ago 1,000 pkts 1.00 MB \
                 2 pkts 2.00 kB";
    let second = "discokey:020202020202… no handshake yet - never 1,000 pkts 1.00 MB 2 pkts 2.00 kB";
    let total = "1 session, 1 bound, 0 in the kernel: 0 pkts, 0 B by XDP; 0 pkts, 0 B by userspace";
    assert_eq!(words, [first, second, total]);
}

#[test]
fn status_shows_what_was_counted_and_all_when_asked() {
    let counters = [("bytes_sent", 1_500_000), ("logins", 3), ("pings", 0), ("udp_drop_short", 1)];
    let counters: BTreeMap<String, u64> = counters.map(|(label, n)| (label.to_owned(), n)).into();
    let key = NodePublic::from_bytes([1; KEY_LEN]);
    let queue_memory_bytes = 1 << 20;
    let derp = Derp {
        key,
        clients: 1,
        remote_clients: 0,
        links: 0,
        queued_bytes: 0,
        queue_memory_bytes,
        workers: 4,
        workers_in_use: 1,
    };
    let xdp = Xdp::Unavailable { unavailable: "no --xdp".to_owned() };
    let state = Status {
        version: "1".to_owned(),
        uptime_seconds: 5,
        derp,
        certificate: None,
        udp: None,
        xdp,
        log_lines_dropped: 3,
        counters,
    };
    let text = status(&state, false);
    for part in [
        "1 client on 1 of 4 workers, key",
        "3 lines dropped",
        "LOGINS\nlogins  3\n",
        "bytes_sent  1,500,000  1.50 MB",
        "UDP DROPS",
        "--all",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    assert!(!text.contains("pings"), "{text}");
    let text = status(&state, true);
    assert!(text.contains("pings") && !text.contains("--all"), "{text}");
}

fn active_xdp() -> ActiveXdp {
    ActiveXdp {
        interface: "eth0".to_owned(),
        mode: "native".to_owned(),
        enabled: true,
        attached: true,
        link: "up".to_owned(),
        link_seconds: 90,
        losses: 0,
        hint: None,
        program_id: 1,
        maps: None,
        installed: 0,
        drift: 0,
        failures: 0,
        audits: 0,
        reasons: BTreeMap::new(),
    }
}

#[test]
fn status_says_where_each_advertised_address_comes_from() {
    let addr = |text: &str| text.parse().expect("an address");
    let mut udp = UdpView {
        key: DiscoPublic::from_bytes([1; KEY_LEN]),
        port: 7777,
        sessions: 0,
        max_sessions: 4,
        advertised: vec![AdvertisedView { addr: addr("192.0.2.1:7777"), from: "interface eth0".to_owned() }],
        stun_servers: vec![
            StunServerView {
                server: "a.example:3478".to_owned(),
                addr: Some(addr("198.51.100.1:3478")),
                seen: Some(addr("203.0.113.9:7777")),
                seconds_ago: Some(61),
                silent: true,
            },
            StunServerView {
                server: "b.example:1".to_owned(),
                addr: None,
                seen: None,
                seconds_ago: None,
                silent: true,
            },
        ],
        denied: Some(DeniedView {
            file: "/etc/deny".to_owned(),
            networks: 2,
            refused: Some("/etc/deny:2: nonsense".to_owned()),
        }),
        control: Default::default(),
    };
    let mut text = String::new();
    addresses(&mut text, &udp);
    for part in [
        "192.0.2.1:7777, interface eth0",
        "a.example:3478 (198.51.100.1:3478) saw 203.0.113.9:7777 61 s ago, silent since",
        "b.example:1 (name not found) has not answered\n",
        "2 networks, /etc/deny",
        "an older list holds: /etc/deny:2: nonsense",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    udp.advertised.clear();
    text.clear();
    addresses(&mut text, &udp);
    assert!(text.contains("nothing: allocations wait"), "{text}");
}

#[test]
fn the_switch_says_what_is_the_case_now() {
    let said = |change: &dyn Fn(&mut ActiveXdp)| {
        let mut xdp = active_xdp();
        change(&mut xdp);
        switched(&Xdp::Active(Box::new(xdp)))
    };
    assert_eq!(said(&|_| ()), "XDP: forwarding; native mode on eth0\n");
    assert!(said(&|xdp| xdp.enabled = false).contains("turned off"));
    let down = said(&|xdp| xdp.link = "no carrier".to_owned());
    assert!(down.contains("no carrier for 90 s") && !down.contains("forwarding;"), "{down}");
    let lost = said(&|xdp| {
        xdp.attached = false;
        xdp.link = "there is no such interface".to_owned();
    });
    assert!(lost.contains("not attached for 90 s") && lost.contains("no such interface"), "{lost}");
    assert!(!lost.contains("forwarding"), "{lost}");
}

#[test]
fn a_hint_and_losses_are_shown_only_when_there_are_some() {
    let mut out = String::new();
    active(&mut out, &active_xdp(), false);
    assert!(!out.contains("look at") && !out.contains("lost"), "{out}");
    let xdp = ActiveXdp { losses: 2, hint: Some("the routes".to_owned()), ..active_xdp() };
    active(&mut out, &xdp, false);
    assert!(out.contains("the routes") && out.contains("2 times no longer attached"), "{out}");
}
