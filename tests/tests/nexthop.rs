//! Next hops with a real kernel: routes, neighbours and links of a private namespace.
#![forbid(unsafe_code)]

use std::{net::SocketAddr, time::Duration};

use relay_tests::{
    skip,
    wire::{CLIENT_IP, RELAY, RELAY_IP, Wire, addr},
};
use relay_user::{
    clock,
    fastpath::{
        next_hop_map::NextHopValue,
        nexthop::{
            NextHops, NoNextHop,
            ask::Kernel,
            icmp::Icmp,
            reports::{Reported, Reports},
            ways::WriteHops,
        },
    },
    route::{
        next_hop::HopNumber,
        vocabulary::{BoundLeg, LegPath},
    },
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::timeout;

/// Longer than the kernel takes for any report in these tests.
const DEADLINE: Duration = Duration::from_secs(10);

/// The map of ways out is tested elsewhere.
struct NoMap;

impl WriteHops for NoMap {
    fn write(&mut self, _: HopNumber, _: Option<NextHopValue>) {}
}

/// The relay's host: what is known of its routing, and the kernel's reports.
struct Host {
    hops: NextHops<Kernel, NoMap>,
    reports: Reports,
}

fn leg(local: &str, remote: &str) -> BoundLeg {
    let at = |ip: &str, port| SocketAddr::new(addr(ip), port);
    BoundLeg { vni: 1, leg: 0, path: LegPath { remote: at(remote, 41_641), local: at(local, 7777) } }
}

impl Host {
    fn ask(&mut self, local: &str, remote: &str) -> Result<NextHopValue, NoNextHop> {
        let number = self.hops.resolve(leg(local, remote), clock::monotonic_ns())?;
        Ok(self.hops.value(number).expect("its neighbour and link are known"))
    }

    /// Takes in the next reports; returns the legs that waited, and whether `path` may have another route.
    async fn follow(&mut self, path: &LegPath) -> (Vec<BoundLeg>, bool) {
        let reported = timeout(DEADLINE, self.reports.next()).await.expect("a report").expect("the socket");
        let Reported::Changes(changes) = reported else { panic!("reports were lost") };
        let followed = self.hops.follow(changes);
        (followed.legs, followed.dirty.contains(path))
    }

    /// Takes in what has been reported so far.
    async fn settle(&mut self) {
        while let Ok(reported) = timeout(Duration::from_millis(200), self.reports.next()).await {
            if let Reported::Changes(changes) = reported.expect("the socket") {
                let _ = self.hops.follow(changes);
            }
        }
    }

    /// The next hop, after the kernel has found the neighbour.
    async fn found(&mut self, local: &str, remote: &str) -> NextHopValue {
        let wanted = leg(local, remote);
        loop {
            match self.ask(local, remote) {
                Ok(hop) => return hop,
                Err(NoNextHop::NoNeighbour { .. }) => while self.follow(&wanted.path).await.0.is_empty() {},
                Err(error) => panic!("{remote}: {error}"),
            }
        }
    }
}

/// Runs a test on the relay's side of a wire, with its own runtime.
fn lab(name: &str, test: impl AsyncFnOnce(&Wire, Host) + Send) {
    let wire = match Wire::new() {
        Ok(wire) => wire,
        Err(reason) => return skip(name, &reason),
    };
    wire.on('r', || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let reports = Reports::open().expect("a netlink socket");
            let hops = NextHops::open(NoMap, 0).expect("a netlink socket");
            test(&wire, Host { hops, reports }).await;
        });
    });
}

/// The index of the relay's interface, from `ip`.
fn ifindex(wire: &Wire) -> u32 {
    let text = wire.ip('r', &["-o", "link", "show", RELAY]).expect("the link");
    text.split(':')
        .next()
        .and_then(|index| index.trim().parse().ok())
        .expect("an index before the first colon")
}

/// What `ip` prints about the neighbour.
fn neighbour(wire: &Wire) -> String {
    wire.ip('r', &["neighbour", "show", CLIENT_IP]).expect("a list")
}

#[test]
fn a_client_on_the_link_is_resolved_by_asking_it() {
    lab("a_client_on_the_link_is_resolved_by_asking_it", async |wire, mut host| {
        match host.ask(RELAY_IP, CLIENT_IP) {
            Err(NoNextHop::NoNeighbour { neighbour, ifindex: on }) => {
                assert_eq!((neighbour, on), (addr(CLIENT_IP), ifindex(wire)));
            }
            other => panic!("nobody has asked for it yet, but: {other:?}"),
        }
        let hop = host.found(RELAY_IP, CLIENT_IP).await;
        let wanted = NextHopValue {
            ifindex: ifindex(wire),
            egress_mac: wire.mac('r'),
            next_hop_mac: wire.mac('c'),
            mtu: 1500,
        };
        assert_eq!(hop, wanted);
        let mapped = host.found("::ffff:10.77.0.1", "::ffff:10.77.0.2").await;
        assert_eq!(mapped, wanted, "IPv4 may come mapped");
    });
}

#[test]
fn a_client_behind_a_gateway_is_reached_by_the_gateways_mac_and_the_routes_mtu() {
    lab(
        "a_client_behind_a_gateway_is_reached_by_the_gateways_mac_and_the_routes_mtu",
        async |wire, mut host| {
            wire.ip('r', &["route", "add", "198.51.100.0/24", "via", CLIENT_IP, "mtu", "1400"])
                .expect("a route");
            let hop = host.found(RELAY_IP, "198.51.100.7").await;
            assert_eq!((hop.next_hop_mac, hop.egress_mac, hop.mtu), (wire.mac('c'), wire.mac('r'), 1400));
        },
    );
}

#[test]
fn an_ipv6_client_is_resolved_too() {
    lab("an_ipv6_client_is_resolved_too", async |wire, mut host| {
        for (side, iface, address) in [('r', RELAY, "fd77::1/64"), ('c', "client0", "fd77::2/64")] {
            wire.ip(side, &["address", "add", address, "dev", iface, "nodad"]).expect("an address");
        }
        let hop = host.found("fd77::1", "fd77::2").await;
        assert_eq!(hop.next_hop_mac, wire.mac('c'));
    });
}

#[test]
fn destinations_that_are_no_client_are_refused() {
    lab("destinations_that_are_no_client_are_refused", async |wire, mut host| {
        wire.ip('r', &["route", "add", "blackhole", "203.0.113.0/26"]).expect("a route");
        wire.ip('r', &["route", "add", "unreachable", "203.0.113.64/26"]).expect("a route");
        wire.ip('r', &["route", "add", "prohibit", "203.0.113.128/26"]).expect("a route");
        let mut refused = |remote: &str| host.ask(RELAY_IP, remote).expect_err("refused");
        assert!(matches!(refused(RELAY_IP), NoNextHop::Own));
        assert!(matches!(refused("10.77.0.255"), NoNextHop::NotUnicast), "the subnet's broadcast address");
        assert!(matches!(refused("127.0.0.1"), NoNextHop::NotUnicast));
        for remote in ["203.0.113.1", "203.0.113.65", "203.0.113.129", "192.0.2.1"] {
            let error = refused(remote);
            assert!(matches!(error, NoNextHop::NoRoute), "{remote}: {error}");
        }
        let foreign = host.ask("192.0.2.1", CLIENT_IP);
        assert!(
            matches!(foreign, Err(NoNextHop::NoRoute)),
            "a local address that is not the host's: {foreign:?}"
        );
    });
}

/// An operator's entry, a routing daemon's, and one that the kernel looks after by itself.
#[test]
fn an_entry_that_somebody_looks_after_is_used_and_stays_theirs() {
    lab("an_entry_that_somebody_looks_after_is_used_and_stays_theirs", async |wire, mut host| {
        for kind in [&["nud", "permanent"][..], &["nud", "stale", "extern_learn"]] {
            let entry = ["neighbour", "replace", CLIENT_IP, "lladdr", "02:00:00:00:00:77", "dev", RELAY];
            wire.ip('r', &[&entry[..], kind].concat()).expect("a neighbour");
            host.settle().await;
            let hop = host.ask(RELAY_IP, CLIENT_IP).expect("known at once");
            assert_eq!(hop.next_hop_mac, [2, 0, 0, 0, 0, 0x77]);
            host.hops.look_for_neighbours(u64::MAX / 2);
            host.settle().await;
            let shown = neighbour(wire).to_lowercase();
            assert!(kind.iter().skip(1).all(|word| shown.contains(word)), "{kind:?} became {shown}");
            wire.ip('r', &["neighbour", "del", CLIENT_IP, "dev", RELAY]).expect("removed");
        }
    });
}

#[test]
fn a_stale_neighbour_in_use_is_confirmed_by_the_kernel() {
    lab("a_stale_neighbour_in_use_is_confirmed_by_the_kernel", async |wire, mut host| {
        let stale =
            ["neighbour", "add", CLIENT_IP, "lladdr", "02:00:00:00:00:77", "dev", RELAY, "nud", "stale"];
        wire.ip('r', &stale).expect("a neighbour");
        assert_eq!(host.ask(RELAY_IP, CLIENT_IP).expect("stale is known").next_hop_mac[5], 0x77);
        host.hops.look_for_neighbours(clock::monotonic_ns());
        // The address was wrong; the kernel finds the right one only because it was told that the neighbour
        // is in use. Before that, the way cannot be taken for a while.
        let wanted = leg(RELAY_IP, CLIENT_IP);
        let wait = async {
            while host.ask_if_known().is_none_or(|hop| hop.next_hop_mac != wire.mac('c')) {
                let (_, concerned) = host.follow(&wanted.path).await;
                assert!(!concerned, "a neighbour's states are no change of routing");
            }
        };
        timeout(2 * DEADLINE, wait).await.expect("the kernel probes it");
    });
}

impl Host {
    fn ask_if_known(&mut self) -> Option<NextHopValue> {
        let number = self.hops.resolve(leg(RELAY_IP, CLIENT_IP), clock::monotonic_ns()).ok()?;
        self.hops.value(number)
    }
}

#[test]
fn a_change_of_routing_names_the_legs_that_it_concerns() {
    lab("a_change_of_routing_names_the_legs_that_it_concerns", async |wire, mut host| {
        let (near, far) = (leg(RELAY_IP, CLIENT_IP).path, leg(RELAY_IP, "198.51.100.7").path);
        host.found(RELAY_IP, CLIENT_IP).await;
        for (change, concerns_near, concerns_far) in [
            (&["route", "add", "198.51.100.0/24", "via", CLIENT_IP][..], false, true),
            (&["route", "replace", "198.51.100.0/24", "via", CLIENT_IP, "mtu", "1300"], false, true),
            (&["route", "del", "198.51.100.0/24"], false, true),
            (&["route", "add", "default", "via", CLIENT_IP], true, true),
            (&["rule", "add", "from", "10.78.0.1", "table", "main"], true, true),
            (&["link", "set", RELAY, "mtu", "1400"], false, false),
        ] {
            host.settle().await;
            wire.ip('r', change).expect("a change");
            let reported = timeout(DEADLINE, host.reports.next()).await.expect("a report").expect("read");
            let Reported::Changes(changes) = reported else { panic!("lost") };
            let dirty = host.hops.follow(changes).dirty;
            assert_eq!(
                (dirty.contains(&near), dirty.contains(&far)),
                (concerns_near, concerns_far),
                "{change:?}"
            );
        }
        host.settle().await;
        assert_eq!(host.ask(RELAY_IP, CLIENT_IP).expect("still there").mtu, 1400, "the link's new MTU");
        wire.ip('r', &["address", "del", &format!("{RELAY_IP}/24"), "dev", RELAY]).expect("removed");
        assert!(host.follow(&near).await.1, "the address that the client talks to has gone");
    });
}

#[test]
fn a_router_that_wants_smaller_packets_lowers_the_mtu() {
    lab("a_router_that_wants_smaller_packets_lowers_the_mtu", async |wire, mut host| {
        wire.ip('r', &["route", "add", "198.51.100.0/24", "via", CLIENT_IP]).expect("a route");
        let far = ["route", "add", "198.51.100.0/24", "via", "10.77.0.9", "mtu", "lock", "1280"];
        wire.ip('c', &far).expect("a route");
        wire.on('c', || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("forwarding");
        assert_eq!(host.found(RELAY_IP, "198.51.100.7").await.mtu, 1500);
        let icmp = Icmp::open(7777).expect("root may read ICMP");
        let socket = std::net::UdpSocket::bind((RELAY_IP, 7777)).expect("the relay's port");
        socket.send_to(&[0; 1400], "198.51.100.7:41641").expect("sent");
        let found = timeout(DEADLINE, icmp.next()).await.expect("an answer").expect("read");
        let far = leg(RELAY_IP, "198.51.100.7").path;
        assert_eq!(found, [far]);
        let wait = async {
            // The kernel may still be taking the message in.
            while !host.hops.follow_too_big(&far).is_ok_and(|dirty| dirty.contains(&far)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, wait).await.expect("the kernel has taken it in");
        assert_eq!(host.ask(RELAY_IP, "198.51.100.7").expect("a way").mtu, 1280);
    });
}

#[test]
fn of_all_icmp_only_what_may_be_about_too_big_packets_is_read_and_none_of_it_is_waited_out() {
    /// An echo request, and "fragmentation needed" about nothing, with their checksums.
    const ECHO: [u8; 8] = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    const TOO_BIG: [u8; 8] = [3, 4, 0xfc, 0xfb, 0, 0, 0, 0];
    let name = "of_all_icmp_only_what_may_be_about_too_big_packets_is_read_and_none_of_it_is_waited_out";
    lab(name, async |wire, _| {
        let icmp = Icmp::open(7777).expect("root may read ICMP");
        let sender = wire.on('c', || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)));
        let sender = sender.expect("root may send ICMP");
        let send = |message: &[u8]| {
            let relay = SocketAddr::new(addr(RELAY_IP), 0);
            sender.send_to(message, &relay.into()).expect("sent");
        };
        send(&ECHO);
        assert!(timeout(Duration::from_millis(200), icmp.next()).await.is_err(), "nobody is woken by a ping");
        send(&TOO_BIG);
        let found = timeout(DEADLINE, icmp.next()).await.expect("others get a turn").expect("read");
        assert_eq!(found, []);
    });
}
