//! Tables of hosts, and what each of them advertises.

use super::*;

/// Interfaces, one a line: `index name kind [master=N] [lower=N] [down]`; then addresses:
/// `index address/bits [state]`.
fn host(text: &str) -> Host {
    let mut host = Host::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let index = words[0].parse().expect("an index");
        let value = |key: &str| {
            let word = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            word.map(|number| number.parse().expect("a number"))
        };
        if let Some((ip, bits)) = words[1].split_once('/') {
            let state = match words.get(2) {
                None => State::Stable,
                Some(&"temporary") => State::Temporary,
                Some(&"deprecated") => State::Deprecated,
                Some(&"tentative") => State::Tentative,
                Some(other) => panic!("{other}"),
            };
            let (ip, bits) = (ip.parse().expect("an address"), bits.parse().expect("bits"));
            host.addresses.push(Address { interface: index, ip, bits, state });
            continue;
        }
        let kind = match words[2] {
            "bridge" => Kind::Bridge,
            "bond" => Kind::Group,
            "guest" => Kind::Guest,
            _ => Kind::Other,
        };
        host.interfaces.push(Interface {
            index,
            name: words[1].to_owned(),
            up: !words.contains(&"down"),
            loopback: words[2] == "loopback",
            kind,
            master: value("master"),
            lower: value("lower"),
        });
        if words.contains(&"wayout") {
            host.ways_out.push(index);
        }
    }
    host
}

#[track_caller]
fn advertises(text: &str, wanted: &[&str]) {
    let found: Vec<String> = advertised(&host(text), true).iter().map(|one| one.ip.to_string()).collect();
    assert_eq!(found, wanted, "{text}");
}

#[test]
fn ipv4_comes_first_and_what_leads_here_from_nowhere_is_left_out() {
    advertises(
        "1 lo loopback
         2 eth0 hardware
         3 eth1 hardware down
         4 tailscale0 guest
         5 ztabc guest
         1 127.0.0.1/8
         1 ::1/128
         1 203.0.113.77/32
         2 fe80::1/64
         2 2001:db8::1/64
         2 169.254.3.4/16
         2 192.0.2.1/24
         2 192.0.2.2/24
         2 192.0.2.1/24
         2 fd00::1/64
         3 192.0.2.9/24
         4 100.100.1.2/32
         4 fd7a:115c:a1e0::1/128
         5 10.147.17.1/24
         9 192.0.2.77/24",
        &["192.0.2.1", "192.0.2.2", "2001:db8::1"],
    );
}

#[test]
fn tailscales_ranges_end_where_they_end() {
    for (ip, is_advertised) in [
        ("100.63.255.255", true),
        ("100.64.0.0", false),
        ("100.127.255.255", false),
        ("100.128.0.0", true),
        ("100.115.91.255", false),
        ("100.115.92.0", true),
        ("100.115.93.255", true),
        ("100.115.94.0", false),
        ("224.0.0.1", false),
        ("255.255.255.255", false),
        ("10.0.0.1", true),
        ("2001:db8::1", true),
        ("fd7a:115c:a1e0:ffff::1", false),
        ("fd7a:115c:a1e1::1", true),
        ("fe80::1", false),
    ] {
        let wanted: Vec<_> = is_advertised.then_some(ip).into_iter().collect();
        advertises(&format!("2 eth0 hardware\n2 {ip}/24"), &wanted);
    }
}

#[test]
fn what_something_may_translate_is_advertised_where_there_is_nothing_else() {
    let translated = "2 eth0 hardware\n2 169.254.8.1/16\n2 fd00::1/64\n2 fe80::1/64\n2 100.100.0.1/32\n";
    advertises(translated, &["169.254.8.1", "fd00::1"]);
    advertises(&format!("{translated}2 2001:db8::1/64"), &["2001:db8::1"]);
    advertises(&format!("{translated}2 10.0.0.1/8"), &["10.0.0.1"]);
    // An address that cannot be used does not count as one.
    let without = advertised(&host(&format!("{translated}2 2001:db8::1/64")), false);
    assert_eq!(without, [Found { ip: "169.254.8.1".parse().expect("ip"), interface: "eth0".to_owned() }]);
}

#[test]
fn a_bridge_leads_where_its_ports_lead() {
    let bridge = "2 br0 bridge\n2 172.17.0.1/16\n";
    advertises(bridge, &[]);
    advertises(&format!("{bridge}3 veth1 guest master=2\n4 vnet0 guest master=2"), &[]);
    advertises(&format!("{bridge}3 veth1 guest master=2\n4 eth0 hardware master=2"), &["172.17.0.1"]);
    advertises(&format!("{bridge}3 bond0 bond master=2"), &[]);
    advertises(&format!("{bridge}3 bond0 bond master=2\n4 eth0 hardware master=3"), &["172.17.0.1"]);
    advertises(&format!("{bridge}3 eth0.7 vlan master=2 lower=4\n4 eth0 hardware"), &["172.17.0.1"]);
    advertises(&format!("{bridge}3 vxlan0 tunnel master=2"), &["172.17.0.1"]);
    // A VLAN on a bridge leads where the bridge leads.
    let vlan = "2 br0 bridge\n3 br0.7 vlan lower=2\n3 10.7.0.1/24\n";
    advertises(vlan, &[]);
    advertises(&format!("{vlan}4 eth0 hardware master=2"), &["10.7.0.1"]);
    // Two that stand on each other are no endless loop.
    advertises("2 a vlan lower=3\n3 b vlan lower=2\n2 10.7.0.1/24", &["10.7.0.1"]);
}

#[test]
fn in_a_container_the_way_out_is_a_veth_bridged_or_not() {
    advertises("2 eth0 guest\n2 10.0.3.7/24", &["10.0.3.7"]);
    advertises("2 br0 bridge wayout\n3 eth0 guest master=2\n2 10.0.3.7/24", &["10.0.3.7"]);
}

#[test]
fn tunnels_are_advertised_as_upstream_does() {
    advertises("2 wg0 tunnel\n3 tun0 guest\n2 10.8.0.1/24\n3 10.9.0.1/32", &["10.8.0.1", "10.9.0.1"]);
}

#[test]
fn of_a_subnet_the_two_ipv6_addresses_that_last_longest_are_advertised() {
    let eth0 = "2 eth0 hardware\n3 eth1 hardware\n2 192.0.2.1/24\n2 192.0.2.2/24\n2 192.0.2.3/24\n";
    let v4 = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    advertises(
        &format!(
            "{eth0}2 2001:db8:0:1::1/64\n2 2001:db8:0:1::2/64\n2 2001:db8:0:1::3/64\n2 2001:db8:0:2::1/64\n\
             3 2001:db8:0:1::4/64"
        ),
        &[&v4[..], &["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1", "2001:db8:0:1::4"]].concat(),
    );
    advertises(
        &format!(
            "{eth0}2 2001:db8::a/64 tentative\n2 2001:db8::b/64 deprecated\n2 2001:db8::c/64 temporary\n\
             2 2001:db8::d/64"
        ),
        &[&v4[..], &["2001:db8::d"]].concat(),
    );
    advertises(
        &format!("{eth0}2 2001:db8::b/64 deprecated\n2 2001:db8::c/64 temporary"),
        &[&v4[..], &["2001:db8::c"]].concat(),
    );
    advertises(&format!("{eth0}2 2001:db8::b/64 deprecated"), &[&v4[..], &["2001:db8::b"]].concat());
}
