//! Next hops with a kernel that answers what the test says, and counts the questions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::answers::{Link, Neighbour};
use super::*;
use crate::route::vocabulary::LegPath;

const SECOND: u64 = 1_000_000_000;
const GATEWAY: [u8; 4] = [192, 0, 2, 254];
const LINK: Link = Link { mac: [9; 6], mtu: 1500, is_up: true };

/// The host's routing.
#[derive(Clone, Debug, Default)]
struct Host {
    /// The gateway of each destination; absent: no route.
    gateways: BTreeMap<IpAddr, IpAddr>,
    neighbours: BTreeMap<IpAddr, Neighbour>,
    link: Option<Link>,
    mtu: Option<u32>,
    has_policy: bool,
    /// Routes cannot be asked for.
    is_mute: bool,
    up: HashSet<u32>,
    /// Looks at rules and routes.
    looks: usize,
    /// Questions by kind: route, link, neighbour.
    asked: [usize; 3],
    used: Vec<IpAddr>,
    last: Option<Question>,
}

#[derive(Clone, Debug, Default)]
struct Asked(Rc<RefCell<Host>>);

impl Asked {
    fn with<T>(&self, look: impl FnOnce(&mut Host) -> T) -> T {
        look(&mut self.0.borrow_mut())
    }
}

impl Ask for Asked {
    fn route(&mut self, question: &Question) -> Result<KernelRoute, NoNextHop> {
        self.with(|host| {
            host.asked[0] += 1;
            host.last = Some(*question);
            if host.is_mute {
                return Err(NoNextHop::Netlink(io::ErrorKind::WouldBlock.into()));
            }
            let neighbour = host.gateways.get(&question.remote).copied().ok_or(NoNextHop::NoRoute)?;
            Ok(KernelRoute { ifindex: 3, neighbour, mtu: host.mtu })
        })
    }
    fn link(&mut self, ifindex: u32) -> Result<Link, NoNextHop> {
        self.with(|host| {
            host.asked[1] += 1;
            host.link.ok_or(NoNextHop::NotEthernet { ifindex })
        })
    }
    fn up(&mut self) -> io::Result<HashSet<u32>> {
        Ok(self.with(|host| host.up.clone()))
    }
    fn neighbour(&mut self, _: u32, ip: IpAddr) -> io::Result<Option<Neighbour>> {
        self.with(|host| {
            host.asked[2] += 1;
            Ok(host.neighbours.get(&ip).copied())
        })
    }
    fn use_neighbour(&mut self, _: u32, ip: IpAddr) -> io::Result<()> {
        self.with(|host| host.used.push(ip));
        Ok(())
    }
    fn has_policy(&mut self) -> io::Result<bool> {
        Ok(self.with(|host| {
            host.looks += 1;
            host.has_policy
        }))
    }
}

/// The map: how many elements were written, and how each is now.
#[derive(Debug, Default)]
struct Map(Rc<RefCell<Written>>);

/// Writes, and the elements as they are now.
type Written = (usize, BTreeMap<u32, Option<NextHopValue>>);

impl WriteHops for Map {
    fn write(&mut self, number: HopNumber, value: Option<NextHopValue>) {
        let (writes, elements) = &mut *self.0.borrow_mut();
        *writes += 1;
        elements.insert(number.0, value);
    }
}

fn leg(vni: u32, remote: [u8; 4]) -> BoundLeg {
    let path = LegPath { remote: (remote, 1000 + vni as u16).into(), local: ([192, 0, 2, 1], 7777).into() };
    BoundLeg { vni, leg: 0, path }
}

fn heard(mac: u8) -> Neighbour {
    Neighbour { mac: Some([mac; 6]), is_confirmed: true, is_kept: false }
}

/// A host with two clients behind one gateway.
fn host() -> (NextHops<Asked, Map>, Asked, Rc<RefCell<Written>>) {
    let asked = Asked::default();
    asked.with(|host| {
        host.link = Some(LINK);
        host.up.insert(3);
        host.neighbours.insert(GATEWAY.into(), heard(1));
        for client in [1, 2] {
            host.gateways.insert([10, 0, 0, client].into(), GATEWAY.into());
        }
    });
    let map = Map::default();
    let written = Rc::clone(&map.0);
    (NextHops::new(asked.clone(), map), asked, written)
}

fn neighbour_is(ip: [u8; 4], now: Option<Neighbour>) -> Vec<Change> {
    vec![Change::Neighbour { ifindex: 3, ip: ip.into(), now }]
}

#[test]
fn a_destination_a_neighbour_and_a_link_are_asked_for_once() {
    let (mut hops, asked, written) = host();
    for vni in 1..=100 {
        let number = hops.resolve(leg(vni, [10, 0, 0, 1 + (vni % 2) as u8]), 0).expect("a way");
        assert_eq!(number, HopNumber(0), "one gateway, one way");
    }
    assert_eq!(asked.with(|host| host.asked), [2, 1, 1]);
    assert_eq!(written.borrow().0, 1);
    assert_eq!(asked.with(|host| host.last.and_then(|question| question.ports)), None);
}

#[test]
fn a_neighbour_that_flaps_costs_one_write_each_time_and_no_question() {
    let (mut hops, asked, written) = host();
    (1..=100).for_each(|vni| drop(hops.resolve(leg(vni, [10, 0, 0, 1]), 0)));
    let before = asked.with(|host| host.asked);
    for mac in 2..=10 {
        let followed = hops.follow(neighbour_is(GATEWAY, Some(heard(mac))));
        assert!(followed.legs.is_empty() && followed.dirty.is_empty());
        assert_eq!(hops.value(HopNumber(0)).map(|value| value.next_hop_mac), Some([mac; 6]));
    }
    assert_eq!(asked.with(|host| host.asked), before);
    assert_eq!(written.borrow().0, 10);
}

#[test]
fn a_leg_waits_for_its_neighbour_and_is_named_when_that_is_heard() {
    let (mut hops, asked, written) = host();
    asked.with(|host| host.neighbours.clear());
    let waiting = leg(1, [10, 0, 0, 1]);
    for now_ns in [0, SECOND] {
        let error = hops.resolve(waiting, now_ns).expect_err("not known");
        assert!(matches!(error, NoNextHop::NoNeighbour { ifindex: 3, .. }), "{error}");
    }
    assert_eq!(asked.with(|host| host.used.len()), 1, "looked for once");
    assert_eq!(written.borrow().0, 0);
    let followed = hops.follow(neighbour_is(GATEWAY, Some(heard(4))));
    assert_eq!(followed.legs[0], waiting);
    assert_eq!(hops.resolve(waiting, SECOND).expect("a way"), HopNumber(0));
}

#[test]
fn a_dead_neighbour_is_looked_for_less_and_less_and_what_it_causes_is_no_change() {
    let (mut hops, asked, written) = host();
    hops.resolve(leg(1, [10, 0, 0, 1]), 0).expect("a way");
    let dead = hops.follow(neighbour_is(GATEWAY, Some(Neighbour::default())));
    assert!(dead.dirty.is_empty() && dead.legs.is_empty());
    assert_eq!(written.borrow().1[&0], None, "userspace forwards");
    for second in 0..300 {
        hops.look_for_neighbours(second * SECOND);
        // What the kernel reports when it was made to look: incomplete, then failed.
        let followed = hops.follow(neighbour_is(GATEWAY, Some(Neighbour::default())));
        assert!(followed.dirty.is_empty() && followed.legs.is_empty());
    }
    assert_eq!(asked.with(|host| host.used.len()), 8);
    assert_eq!(written.borrow().0, 2);
    let _ = hops.follow(neighbour_is(GATEWAY, Some(heard(1))));
    assert!(hops.value(HopNumber(0)).is_some(), "it is back, and so is the way");
}

#[test]
fn entries_that_somebody_looks_after_are_never_touched_and_confirmed_ones_not_now() {
    for (is_kept, is_confirmed, used) in [(true, false, 0), (false, true, 0), (false, false, 1)] {
        let (mut hops, asked, _) = host();
        let entry = Neighbour { is_kept, is_confirmed, ..heard(1) };
        asked.with(|host| host.neighbours.insert(GATEWAY.into(), entry));
        hops.resolve(leg(1, [10, 0, 0, 1]), 0).expect("a way");
        hops.look_for_neighbours(SECOND);
        assert_eq!(asked.with(|host| host.used.len()), used, "{entry:?}");
    }
}

#[test]
fn a_route_change_concerns_its_own_network_only() {
    let (mut hops, asked, _) = host();
    (1..=2).for_each(|n| drop(hops.resolve(leg(n.into(), [10, 0, 0, n]), 0)));
    let dirty = Dirty::remote([10, 0, 0, 2].into(), 32);
    let followed = hops.follow(vec![Change::Routes { dirty, many: false }]);
    assert!(followed.dirty.contains(&leg(1, [10, 0, 0, 2]).path));
    assert!(!followed.dirty.contains(&leg(1, [10, 0, 0, 1]).path));
    asked.with(|host| host.gateways.remove(&[10, 0, 0, 2].into()));
    assert!(matches!(hops.resolve(leg(2, [10, 0, 0, 2]), 0), Err(NoNextHop::NoRoute)));
    hops.resolve(leg(1, [10, 0, 0, 1]), 0).expect("still a way");
    assert_eq!(asked.with(|host| host.asked[0]), 3, "the other one was not asked for again");
}

#[test]
fn where_packets_to_one_client_may_go_several_ways_each_leg_is_asked_for_as_its_socket_would() {
    let (mut hops, asked, _) = host();
    let dirty = Dirty::remote([10, 0, 0, 1].into(), 32);
    let followed = hops.follow(vec![Change::Routes { dirty, many: true }]);
    assert!(followed.dirty.is_everything(), "all are asked for again");
    (1..=3).for_each(|vni| drop(hops.resolve(leg(vni, [10, 0, 0, 1]), 0)));
    assert_eq!(
        asked.with(|host| (host.asked[0], host.last.and_then(|last| last.ports))),
        (3, Some((7777, 1003)))
    );
    let followed = hops.follow(vec![Change::Rules]);
    assert!(followed.dirty.is_everything());
    (1..=3).for_each(|vni| drop(hops.resolve(leg(vni, [10, 0, 0, 1]), 0)));
    assert_eq!(asked.with(|host| host.asked[0]), 4, "the rules are gone: one question");
}

#[test]
fn a_link_that_goes_down_makes_all_routes_doubtful_since_the_kernel_does_not_report_them() {
    let (mut hops, _, written) = host();
    hops.resolve(leg(1, [10, 0, 0, 1]), 0).expect("a way");
    let link = |ifindex, now: Option<Link>| {
        vec![Change::Link { ifindex, is_up: now.is_some_and(|link| link.is_up), now }]
    };
    let changed = |hops: &mut NextHops<Asked, Map>, now| hops.follow(link(3, now));
    let larger = Link { mtu: 9000, ..LINK };
    assert!(changed(&mut hops, Some(larger)).dirty.is_empty());
    assert_eq!(hops.value(HopNumber(0)).map(|value| value.mtu), Some(9000));
    assert!(changed(&mut hops, Some(Link { is_up: false, ..larger })).dirty.is_everything());
    assert_eq!(written.borrow().1[&0], None);
    let other = |hops: &mut NextHops<Asked, Map>, now| hops.follow(link(4, now)).dirty;
    assert!(other(&mut hops, None).is_empty(), "a link that no way uses");
    assert!(other(&mut hops, Some(LINK)).is_everything(), "it is up: it may be the better way");
    assert!(other(&mut hops, Some(larger)).is_empty());
    assert!(other(&mut hops, None).is_everything());
}

#[test]
fn a_tunnel_that_comes_up_or_goes_down_makes_all_routes_doubtful_and_lost_reports_hide_neither() {
    let (mut hops, asked, _) = host();
    let tunnel = |is_up| vec![Change::Link { ifindex: 9, is_up, now: None }];
    assert!(hops.follow(tunnel(true)).dirty.is_everything());
    assert!(hops.follow(tunnel(true)).dirty.is_empty(), "it was up");
    assert!(hops.follow(tunnel(false)).dirty.is_everything());
    assert!(hops.follow(vec![Change::Link { ifindex: 3, is_up: true, now: Some(LINK) }]).dirty.is_empty());
    // The report that the link went down is lost; the next one says that it is up again.
    asked.with(|host| host.up.clear());
    assert!(hops.follow_nothing().dirty.is_everything());
    let again = hops.follow(vec![Change::Link { ifindex: 3, is_up: true, now: Some(LINK) }]);
    assert!(again.dirty.is_everything());
}

#[test]
fn however_many_rules_change_at_once_they_are_looked_at_once() {
    let (mut hops, asked, _) = host();
    let before = asked.with(|host| host.looks);
    assert!(hops.follow(vec![Change::Rules; 10]).dirty.is_everything());
    assert_eq!(asked.with(|host| host.looks), before + 1);
}

#[test]
fn a_router_that_wants_smaller_packets_is_believed_about_destinations_in_use() {
    let (mut hops, asked, _) = host();
    hops.resolve(leg(1, [10, 0, 0, 1]), 0).expect("a way");
    let nothing = Ok(Dirty::default());
    assert_eq!(hops.follow_too_big(&leg(1, [10, 0, 0, 9]).path), nothing);
    assert_eq!(asked.with(|host| host.asked[0]), 1, "nobody sends there");
    assert_eq!(hops.follow_too_big(&leg(1, [10, 0, 0, 1]).path), nothing, "the kernel does not believe it");
    asked.with(|host| host.mtu = Some(1280));
    let client = Dirty::destination([10, 0, 0, 1].into());
    assert_eq!(hops.follow_too_big(&leg(1, [10, 0, 0, 1]).path), Ok(client));
    let number = hops.resolve(leg(1, [10, 0, 0, 1]), 0).expect("a way");
    assert_eq!(hops.value(number).map(|value| value.mtu), Some(1280));
    assert_eq!(asked.with(|host| host.asked[0]), 3, "one question each");
}

#[test]
fn where_it_cannot_be_told_whether_a_destination_is_in_use_its_legs_are_looked_at_later() {
    let (mut hops, asked, _) = host();
    let (one, client) = (leg(1, [10, 0, 0, 1]), Dirty::destination([10, 0, 0, 1].into()));
    hops.resolve(one, 0).expect("a way");
    // The kernel does not answer: neither "no route" nor the old one.
    asked.with(|host| host.is_mute = true);
    assert_eq!(hops.follow_too_big(&one.path), Err(client.clone()));
    asked.with(|host| host.is_mute = false);
    hops.resolve(one, 0).expect("it is asked again");

    // One destination more than are remembered.
    for n in 0..ROUTES as u32 {
        let [_, b, c, d] = n.to_be_bytes();
        assert!(hops.resolve(leg(1, [20 + b, c, d, 1]), 0).is_err(), "no route");
    }
    assert_eq!(hops.follow_too_big(&one.path), Err(client.clone()), "it was forgotten");
    asked.with(|host| host.mtu = Some(1280));
    hops.resolve(one, 0).expect("a new leg");
    assert_eq!(hops.follow_too_big(&one.path), Err(client), "older legs may have the old MTU");
    assert!(hops.follow(vec![Change::Rules]).dirty.is_everything());
    assert_eq!(hops.follow_too_big(&one.path), Ok(Dirty::default()), "all legs are looked at now");
}

#[test]
fn lost_reports_mean_to_ask_for_everything_that_is_known() {
    let (mut hops, asked, _) = host();
    hops.resolve(leg(1, [10, 0, 0, 1]), 0).expect("a way");
    asked.with(|host| {
        host.neighbours.insert(GATEWAY.into(), heard(7));
        host.link = Some(Link { mtu: 1400, ..LINK });
    });
    assert!(hops.follow_nothing().dirty.is_everything());
    let value = hops.value(HopNumber(0)).expect("a way");
    assert_eq!((value.next_hop_mac, value.mtu), ([7; 6], 1400));
}
