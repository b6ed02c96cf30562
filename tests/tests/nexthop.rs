//! Next hops with a real kernel: routes, neighbours and links of a private namespace.
#![forbid(unsafe_code)]

use std::time::Duration;

use relay_tests::{
    skip,
    wire::{CLIENT_IP, RELAY, RELAY_IP, Wire, addr},
};
use relay_user::{
    fastpath::nexthop::{NextHops, NoNextHop},
    route::next_hop::NextHop,
};
use tokio::{sync::mpsc, time::timeout};

/// Longer than the kernel takes for any event in these tests.
const DEADLINE: Duration = Duration::from_secs(10);

/// Runs a test on the relay's side of a wire, with its own runtime.
fn lab(name: &str, test: impl AsyncFnOnce(&Wire, NextHops) + Send) {
    let wire = match Wire::new() {
        Ok(wire) => wire,
        Err(reason) => return skip(name, &reason),
    };
    wire.on('r', || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let hops = NextHops::new().await.expect("a netlink socket");
            test(&wire, hops).await;
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

/// Waits until a neighbour that was just requested is resolved.
async fn resolved(hops: &NextHops, changes: &mut mpsc::Receiver<()>, local: &str, remote: &str) -> NextHop {
    let wait = async {
        loop {
            match hops.resolve(addr(local), addr(remote)) {
                Ok(hop) => return hop,
                Err(NoNextHop::NoNeighbour { .. }) => changes.recv().await.expect("the watch goes on"),
                Err(error) => panic!("{remote}: {error}"),
            }
        }
    };
    timeout(DEADLINE, wait).await.expect("the neighbour answers")
}

fn permanent(wire: &Wire) -> bool {
    wire.ip('r', &["neighbour", "show", "nud", "permanent"]).expect("a list").contains(CLIENT_IP)
}

#[test]
fn a_client_on_the_link_is_resolved_by_asking_it() {
    lab("a_client_on_the_link_is_resolved_by_asking_it", async |wire, hops| {
        let mut changes = hops.watch().expect("a watch");
        match hops.resolve(addr(RELAY_IP), addr(CLIENT_IP)) {
            Err(NoNextHop::NoNeighbour { neighbour, ifindex: on }) => {
                assert_eq!((neighbour, on), (addr(CLIENT_IP), ifindex(wire)));
            }
            other => panic!("nobody has asked for it yet, but: {other:?}"),
        }
        let hop = resolved(&hops, &mut changes, RELAY_IP, CLIENT_IP).await;
        let wanted = NextHop {
            ifindex: ifindex(wire),
            egress_mac: wire.mac('r'),
            next_hop_mac: wire.mac('c'),
            mtu: 1500,
        };
        assert_eq!(hop, wanted);
        let mapped = resolved(&hops, &mut changes, "::ffff:10.77.0.1", "::ffff:10.77.0.2").await;
        assert_eq!(mapped, wanted, "IPv4 may come mapped");
    });
}

#[test]
fn a_client_behind_a_gateway_is_reached_by_the_gateways_mac_and_the_routes_mtu() {
    lab("a_client_behind_a_gateway_is_reached_by_the_gateways_mac_and_the_routes_mtu", async |wire, hops| {
        wire.ip('r', &["route", "add", "198.51.100.0/24", "via", CLIENT_IP, "mtu", "1400"]).expect("a route");
        let mut changes = hops.watch().expect("a watch");
        let hop = resolved(&hops, &mut changes, RELAY_IP, "198.51.100.7").await;
        assert_eq!((hop.next_hop_mac, hop.egress_mac, hop.mtu), (wire.mac('c'), wire.mac('r'), 1400));
    });
}

#[test]
fn an_ipv6_client_is_resolved_too() {
    lab("an_ipv6_client_is_resolved_too", async |wire, hops| {
        for (side, iface, address) in [('r', RELAY, "fd77::1/64"), ('c', "client0", "fd77::2/64")] {
            wire.ip(side, &["address", "add", address, "dev", iface, "nodad"]).expect("an address");
        }
        let mut changes = hops.watch().expect("a watch");
        let hop = resolved(&hops, &mut changes, "fd77::1", "fd77::2").await;
        assert_eq!(hop.next_hop_mac, wire.mac('c'));
    });
}

#[test]
fn destinations_that_are_no_client_are_refused() {
    lab("destinations_that_are_no_client_are_refused", async |wire, hops| {
        wire.ip('r', &["route", "add", "blackhole", "203.0.113.0/26"]).expect("a route");
        wire.ip('r', &["route", "add", "unreachable", "203.0.113.64/26"]).expect("a route");
        wire.ip('r', &["route", "add", "prohibit", "203.0.113.128/26"]).expect("a route");
        let refused = |remote: &str| hops.resolve(addr(RELAY_IP), addr(remote)).expect_err("refused");
        assert!(matches!(refused(RELAY_IP), NoNextHop::Own));
        assert!(matches!(refused("10.77.0.255"), NoNextHop::NotUnicast), "the subnet's broadcast address");
        assert!(matches!(refused("127.0.0.1"), NoNextHop::NotUnicast));
        for remote in ["203.0.113.1", "203.0.113.65", "203.0.113.129", "192.0.2.1"] {
            let error = refused(remote);
            assert!(matches!(error, NoNextHop::NoRoute), "{remote}: {error}");
        }
        let foreign = hops.resolve(addr("192.0.2.1"), addr(CLIENT_IP));
        assert!(
            matches!(foreign, Err(NoNextHop::NoRoute)),
            "a local address that is not the host's: {foreign:?}"
        );
    });
}

#[test]
fn a_permanent_neighbour_is_used_and_stays_permanent() {
    lab("a_permanent_neighbour_is_used_and_stays_permanent", async |wire, hops| {
        let neighbour =
            ["neighbour", "add", CLIENT_IP, "lladdr", "02:00:00:00:00:77", "dev", RELAY, "nud", "permanent"];
        wire.ip('r', &neighbour).expect("a neighbour");
        let hop = hops.resolve(addr(RELAY_IP), addr(CLIENT_IP)).expect("known at once");
        assert_eq!(hop.next_hop_mac, [2, 0, 0, 0, 0, 0x77]);
        hops.refresh_neighbour(addr(CLIENT_IP), hop.ifindex).expect("refreshed");
        hops.refresh(addr(RELAY_IP), addr(CLIENT_IP)).expect("refreshed");
        assert!(permanent(wire), "announcing its use must not make it an ordinary entry");
    });
}

#[test]
fn a_stale_neighbour_in_use_is_confirmed_by_the_kernel() {
    lab("a_stale_neighbour_in_use_is_confirmed_by_the_kernel", async |wire, hops| {
        let stale =
            ["neighbour", "add", CLIENT_IP, "lladdr", "02:00:00:00:00:77", "dev", RELAY, "nud", "stale"];
        wire.ip('r', &stale).expect("a neighbour");
        let mut changes = hops.watch().expect("a watch");
        hops.refresh_neighbour(addr(CLIENT_IP), ifindex(wire)).expect("refreshed");
        // The address was wrong; the kernel finds the right one only because it was told that the neighbour
        // is in use.
        let wait = async {
            while hops
                .resolve(addr(RELAY_IP), addr(CLIENT_IP))
                .is_ok_and(|hop| hop.next_hop_mac != wire.mac('c'))
            {
                changes.recv().await.expect("the watch goes on");
            }
        };
        timeout(2 * DEADLINE, wait).await.expect("the kernel probes it");
    });
}

#[test]
fn each_kind_of_change_is_signalled() {
    lab("each_kind_of_change_is_signalled", async |wire, hops| {
        let mut changes = hops.watch().expect("a watch");
        for change in [
            &["route", "add", "198.51.100.0/24", "via", CLIENT_IP][..],
            &["neighbour", "add", "10.77.0.9", "lladdr", "02:00:00:00:00:09", "dev", RELAY],
            &["link", "set", RELAY, "mtu", "1400"],
            &["address", "add", "10.78.0.1/24", "dev", RELAY],
            &["rule", "add", "from", "10.78.0.1", "table", "main"],
        ] {
            // Reads all earlier changes before the test makes its change.
            while timeout(Duration::from_millis(200), changes.recv()).await.is_ok() {}
            wire.ip('r', change).expect("a change");
            timeout(DEADLINE, changes.recv())
                .await
                .unwrap_or_else(|_| panic!("{change:?} was not signalled"));
        }
    });
}

#[test]
fn many_changes_are_few_signals() {
    lab("many_changes_are_few_signals", async |wire, hops| {
        let mut changes = hops.watch().expect("a watch");
        for host in 0..40 {
            wire.ip('r', &["route", "add", &format!("198.51.100.{host}"), "via", CLIENT_IP])
                .expect("a route");
        }
        let mut signals = 0;
        while timeout(Duration::from_millis(500), changes.recv()).await.is_ok() {
            signals += 1;
        }
        assert!((1..20).contains(&signals), "{signals} signals for 40 changes nobody was waiting for");
    });
}
