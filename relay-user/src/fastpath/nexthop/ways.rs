//! The numbered ways out, and the neighbours behind them.
//!
//! A way is an interface, a neighbour on it, and the MTU of the routes that lead there. It has a number,
//! which sessions hold, and an element of `NEXTHOPS`, which says at any time how the way is taken, or that it
//! cannot be. A number is used again only when a walk over all sessions has found none with it, and some time
//! later.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use relay_common::fastpath::MAX_NEXT_HOPS;

use super::answers::{KernelRoute, Link, Neighbour};
use super::backoff::Backoff;
use crate::fastpath::next_hop_map::NextHopValue;
use crate::route::next_hop::HopNumber;
use crate::route::vocabulary::BoundLeg;

/// How long a number rests, in nanoseconds: longer than an audit takes to find an entry of the session map
/// that could not be replaced.
const REST_NS: u64 = 120_000_000_000;

/// Who takes the elements of `NEXTHOPS`.
pub trait WriteHops {
    /// Sets an element; `None`: the way cannot be taken now.
    fn write(&mut self, number: HopNumber, value: Option<NextHopValue>);
}

/// A neighbour, by the interface that it is on.
pub type NeighbourId = (u32, IpAddr);

/// What is known of a neighbour.
#[derive(Debug, Default)]
pub struct Known {
    /// The kernel's entry.
    pub entry: Neighbour,
    pub(super) backoff: Backoff,
    /// The ways that lead through it.
    ways: Vec<HopNumber>,
    waiting: Waiting,
}

/// Legs that were bound before the neighbour's address was known.
#[derive(Debug, Default)]
struct Waiting {
    legs: Vec<BoundLeg>,
    /// There are more, which only a walk over all sessions finds.
    more: bool,
}

/// Legs remembered per neighbour.
const WAITING: usize = 64;

impl Waiting {
    fn push(&mut self, leg: BoundLeg) {
        if self.legs.len() < WAITING {
            self.legs.push(leg);
        } else {
            self.more = true;
        }
    }

    fn is_empty(&self) -> bool {
        self.legs.is_empty() && !self.more
    }
}

#[derive(Debug)]
struct Way {
    route: KernelRoute,
    value: Option<NextHopValue>,
    /// Whether the walk that is under way has found a session with it, or it is newer than the walk.
    in_use: bool,
}

/// All ways.
#[derive(Debug)]
pub struct Ways<W> {
    map: W,
    numbers: HashMap<KernelRoute, HopNumber>,
    ways: Vec<Option<Way>>,
    /// The neighbours in use, and those that legs wait for.
    pub neighbours: HashMap<NeighbourId, Known>,
    /// The links in use.
    pub links: HashMap<u32, Link>,
    free: Vec<HopNumber>,
    /// Not used by any session, and free from then on, in CLOCK_MONOTONIC nanoseconds.
    resting: VecDeque<(u64, HopNumber)>,
}

impl<W: WriteHops> Ways<W> {
    /// No ways yet; their elements are written to `map`.
    pub fn new(map: W) -> Self {
        Self {
            map,
            numbers: HashMap::new(),
            ways: Vec::new(),
            neighbours: HashMap::new(),
            links: HashMap::new(),
            free: Vec::new(),
            resting: VecDeque::new(),
        }
    }

    /// The number of a way whose link and neighbour are known; `None`: there is no room for one more.
    pub fn number(&mut self, route: KernelRoute) -> Option<HopNumber> {
        if let Some(number) = self.numbers.get(&route).copied() {
            // Whoever asked is about to use it, perhaps behind the place that a walk has reached.
            self.keep(number);
            return Some(number);
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.ways.len() < MAX_NEXT_HOPS as usize => {
                self.ways.push(None);
                HopNumber(self.ways.len() as u32 - 1)
            }
            None => return None,
        };
        self.ways[number.0 as usize] = Some(Way { route, value: None, in_use: true });
        self.numbers.insert(route, number);
        self.neighbours.entry((route.ifindex, route.neighbour)).or_default().ways.push(number);
        self.refresh(number);
        Some(number)
    }

    /// How a way is taken now; `None`: it cannot be.
    pub fn value(&self, number: HopNumber) -> Option<NextHopValue> {
        self.ways.get(number.0 as usize)?.as_ref()?.value
    }

    /// A neighbour is now like this. Returns the legs that waited for it, if its address is now known, and
    /// whether there are more of them.
    pub fn neighbour(&mut self, id: NeighbourId, now: Neighbour) -> (Vec<BoundLeg>, bool) {
        let known = self.neighbours.entry(id).or_default();
        let before = std::mem::replace(&mut known.entry, now);
        if now.is_confirmed {
            known.backoff.over();
        }
        let waited = if now.mac.is_some() { std::mem::take(&mut known.waiting) } else { Waiting::default() };
        if before.mac != now.mac {
            for number in known.ways.clone() {
                self.refresh(number);
            }
        }
        (waited.legs, waited.more)
    }

    /// The leg's way leads through a neighbour whose address is not known.
    pub fn wait(&mut self, id: NeighbourId, leg: BoundLeg) {
        self.neighbours.entry(id).or_default().waiting.push(leg);
    }

    /// A link is now like this.
    pub fn link(&mut self, ifindex: u32, now: Option<Link>) {
        match now {
            Some(link) => self.links.insert(ifindex, link),
            None => self.links.remove(&ifindex),
        };
        for number in (0..self.ways.len() as u32).map(HopNumber) {
            if self.ways[number.0 as usize].as_ref().is_some_and(|way| way.route.ifindex == ifindex) {
                self.refresh(number);
            }
        }
    }

    /// A walk over all sessions begins: it is to name every way that a session has.
    pub fn begin_walk(&mut self) {
        self.ways.iter_mut().flatten().for_each(|way| way.in_use = false);
        self.neighbours.values_mut().for_each(|known| known.waiting = Waiting::default());
    }

    /// A session has this way.
    pub fn keep(&mut self, number: HopNumber) {
        if let Some(Some(way)) = self.ways.get_mut(number.0 as usize) {
            way.in_use = true;
        }
    }

    /// The walk is complete: ways that no session has are forgotten.
    pub fn end_walk(&mut self, now_ns: u64) {
        while let Some((_, number)) = self.resting.pop_front_if(|(from_ns, _)| *from_ns <= now_ns) {
            self.free.push(number);
        }
        for number in (0..self.ways.len() as u32).map(HopNumber) {
            let Some(way) = self.ways[number.0 as usize].take_if(|way| !way.in_use) else { continue };
            self.map.write(number, None);
            self.numbers.remove(&way.route);
            let id = (way.route.ifindex, way.route.neighbour);
            if let Some(known) = self.neighbours.get_mut(&id) {
                known.ways.retain(|other| *other != number);
            }
            self.resting.push_back((now_ns.saturating_add(REST_NS), number));
        }
        self.neighbours.retain(|_, known| !known.ways.is_empty() || !known.waiting.is_empty());
    }

    /// Writes the element of a way, if it has changed.
    fn refresh(&mut self, number: HopNumber) {
        let Some(way) = self.ways.get_mut(number.0 as usize).and_then(Option::as_mut) else { return };
        let KernelRoute { ifindex, neighbour, mtu } = way.route;
        let link = self.links.get(&ifindex).filter(|link| link.is_up);
        let mac = self.neighbours.get(&(ifindex, neighbour)).and_then(|known| known.entry.mac);
        let value = link.zip(mac).map(|(link, next_hop_mac)| NextHopValue {
            ifindex,
            mtu: mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            egress_mac: link.mac,
            next_hop_mac,
        });
        if way.value != value {
            way.value = value;
            self.map.write(number, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::vocabulary::LegPath;

    /// What was written, in order.
    #[derive(Debug, Default)]
    struct Written(Vec<(u32, Option<u8>)>);

    impl WriteHops for Written {
        fn write(&mut self, number: HopNumber, value: Option<NextHopValue>) {
            self.0.push((number.0, value.map(|value| value.next_hop_mac[0])));
        }
    }

    fn route(neighbour: u8, mtu: Option<u32>) -> KernelRoute {
        KernelRoute { ifindex: 3, neighbour: [192, 0, 2, neighbour].into(), mtu }
    }

    fn heard(mac: u8) -> Neighbour {
        Neighbour { mac: Some([mac; 6]), is_confirmed: true, is_kept: false }
    }

    const LINK: Link = Link { mac: [9; 6], mtu: 1500, is_up: true };

    fn ways() -> Ways<Written> {
        let mut ways = Ways::new(Written::default());
        ways.link(3, Some(LINK));
        for neighbour in [1, 2] {
            ways.neighbour((3, [192, 0, 2, neighbour].into()), heard(neighbour));
        }
        ways
    }

    #[test]
    fn a_neighbour_that_changes_costs_one_write_for_each_of_its_ways_and_none_for_others() {
        let mut ways = ways();
        let (one, small) = (ways.number(route(1, None)), ways.number(route(1, Some(1400))));
        let other = ways.number(route(2, None));
        assert_eq!((one, small, other), (Some(HopNumber(0)), Some(HopNumber(1)), Some(HopNumber(2))));
        assert_eq!(ways.number(route(1, None)), one, "the same way has the same number");
        assert_eq!(ways.value(HopNumber(1)).map(|value| value.mtu), Some(1400));
        ways.map.0.clear();
        ways.neighbour((3, [192, 0, 2, 1].into()), heard(7));
        assert_eq!(ways.map.0, [(0, Some(7)), (1, Some(7))]);
        let stale = Neighbour { is_confirmed: false, ..heard(7) };
        ways.neighbour((3, [192, 0, 2, 1].into()), stale);
        assert_eq!(ways.map.0.len(), 2, "the kernel still sends there, and so do we");
        ways.neighbour((3, [192, 0, 2, 1].into()), Neighbour::default());
        assert_eq!(ways.map.0[2..], [(0, None), (1, None)]);
        ways.neighbour((3, [192, 0, 2, 1].into()), heard(7));
        assert_eq!(ways.map.0[4..], [(0, Some(7)), (1, Some(7))], "it is back");
    }

    #[test]
    fn a_link_that_goes_down_takes_its_ways_with_it_and_brings_them_back() {
        let mut ways = ways();
        ways.number(route(1, None));
        ways.link(4, Some(LINK));
        assert_eq!(ways.map.0.len(), 1, "another link");
        ways.link(3, Some(Link { is_up: false, ..LINK }));
        assert_eq!(ways.value(HopNumber(0)), None);
        ways.link(3, Some(Link { mtu: 1300, ..LINK }));
        assert_eq!(ways.value(HopNumber(0)).map(|value| value.mtu), Some(1300));
        ways.link(3, None);
        assert_eq!(ways.map.0.last(), Some(&(0, None)));
    }

    #[test]
    fn a_number_rests_before_it_names_another_way() {
        let mut ways = ways();
        ways.number(route(1, None));
        ways.number(route(2, None));
        ways.begin_walk();
        ways.keep(HopNumber(1));
        let newer = ways.number(route(2, Some(1400)));
        assert_eq!(newer, Some(HopNumber(2)));
        ways.end_walk(1);
        assert_eq!((ways.value(HopNumber(0)), ways.numbers.len()), (None, 2));
        assert!(
            !ways.neighbours.contains_key(&(3, [192, 0, 2, 1].into())),
            "nobody is asked about it any more"
        );
        assert_eq!(ways.number(route(2, Some(1300))), Some(HopNumber(3)), "0 rests");
        ways.begin_walk();
        ways.end_walk(REST_NS);
        ways.neighbour((3, [192, 0, 2, 5].into()), heard(5));
        assert_eq!(ways.number(route(5, None)), Some(HopNumber(4)), "and rests");
        ways.begin_walk();
        ways.end_walk(REST_NS + 1);
        ways.neighbour((3, [192, 0, 2, 6].into()), heard(6));
        assert_eq!(ways.number(route(6, None)), Some(HopNumber(0)));
    }

    #[test]
    fn a_way_that_is_given_out_during_a_walk_outlives_it() {
        let mut ways = ways();
        ways.number(route(1, None));
        ways.begin_walk();
        // The leg had another way, or none, when the walk came by; now it gets this one.
        assert_eq!(ways.number(route(1, None)), Some(HopNumber(0)));
        ways.end_walk(1);
        assert!(ways.value(HopNumber(0)).is_some());
    }

    #[test]
    fn legs_that_wait_for_a_neighbour_are_named_once_it_is_known() {
        let mut ways = ways();
        let id = (3, [192, 0, 2, 8].into());
        let path = LegPath { remote: ([192, 0, 2, 8], 1).into(), local: ([192, 0, 2, 9], 7777).into() };
        let leg = |vni| BoundLeg { vni, leg: 0, path };
        ways.wait(id, leg(1));
        assert_eq!(ways.neighbour(id, Neighbour::default()), (Vec::new(), false), "not known yet");
        ways.wait(id, leg(2));
        assert_eq!(ways.neighbour(id, heard(8)), (vec![leg(1), leg(2)], false));
        assert_eq!(ways.neighbour(id, heard(8)), (Vec::new(), false));
        (0..100).for_each(|vni| ways.wait(id, leg(vni)));
        let (legs, more) = ways.neighbour(id, heard(8));
        assert_eq!((legs.len(), more), (WAITING, true));
    }
}
