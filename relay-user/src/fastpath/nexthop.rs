//! Finds the next hops of sessions' packets: the interface, its MAC, and the MAC of the neighbour that takes
//! the packets on.
//!
//! The kernel is always asked: once for its route to each destination, once for each neighbour. From then on
//! its reports of changes are read. XDP knows neither routes nor ARP, so a session is installed in the BPF
//! map only when both its ways are known; userspace forwards it until then, and whenever a way cannot be
//! taken.
//!
//! ```text
//! bound leg -> route of (local, remote) -> way: interface, neighbour, MTU -> number -> the session's entry
//! neighbour or link changes ----------------> element of NEXTHOPS: one write, however many sessions use it
//! route changes -> walk over the sessions: the legs that it may concern get their numbers anew
//! ```
//!
//! Kernel: `RTM_GETROUTE`, `RTM_GETNEIGH`, `RTM_GETLINK` (rtnetlink(7)). All this runs on a thread of its
//! own: no packet waits for the kernel's routing.

pub mod announce;
pub mod answers;
pub mod ask;
mod backoff;
pub mod changes;
pub mod dirty;
pub mod icmp;
pub mod reports;
pub mod ways;

use std::collections::{HashMap, HashSet};
use std::{io, net::IpAddr};

use self::answers::KernelRoute;
use self::ask::{Ask, Kernel, Question};
use self::changes::Change;
use self::dirty::Dirty;
use self::ways::{NeighbourId, Ways, WriteHops};
use crate::fastpath::next_hop_map::{NextHopMap, NextHopValue};
use crate::route::next_hop::HopNumber;
use crate::route::vocabulary::{BoundLeg, LegPath};

/// Routes remembered. When there are more, all are forgotten, to ask less and to hold little.
const ROUTES: usize = 65_536;

/// Why XDP cannot send packets to an address. All variants but [`NoNextHop::NoNeighbour`] last until a route
/// changes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoNextHop {
    /// The two addresses are of different families.
    #[error("one address is IPv4 and the other IPv6")]
    Families,
    /// The address is loopback, multicast, broadcast or unspecified: no client has such an address.
    #[error("not a unicast address of another host")]
    NotUnicast,
    /// The address belongs to this host.
    #[error("one of this host's own addresses")]
    Own,
    /// The kernel has no route, or a route that refuses (blackhole, unreachable, prohibit).
    #[error("no route")]
    NoRoute,
    /// The route uses a link without Ethernet addresses.
    #[error("interface {ifindex} is not Ethernet")]
    NotEthernet {
        /// The interface.
        ifindex: u32,
    },
    /// The neighbour's link-layer address is not known yet. The kernel has been asked to find it, and the
    /// result will be a report.
    #[error("{neighbour} on interface {ifindex} has not answered yet")]
    NoNeighbour {
        /// The gateway, or the remote itself.
        neighbour: IpAddr,
        /// The neighbour's interface.
        ifindex: u32,
    },
    /// `NEXTHOPS` has no room for one more way.
    #[error("too many ways out ({})", relay_common::fastpath::MAX_NEXT_HOPS)]
    Full,
    /// The kernel could not be asked.
    #[error("netlink: {0}")]
    Netlink(#[from] io::Error),
}

/// What follows from reports: legs to look at again.
#[derive(Debug, Default)]
#[must_use = "the legs have no next hop, or a wrong one"]
pub struct Followed {
    /// Legs that waited for a neighbour.
    pub legs: Vec<BoundLeg>,
    /// Legs whose route may have changed.
    pub dirty: Dirty,
}

/// What is known of the host's routing, as far as sessions need it.
#[derive(Debug)]
pub struct NextHops<A = Kernel, W = NextHopMap> {
    ask: A,
    ways: Ways<W>,
    routes: HashMap<Question, Option<KernelRoute>>,
    /// Routes in use may be missing from [`Self::routes`]: there were too many.
    has_forgotten: bool,
    /// Links that are up, of any kind: each may have the better way.
    up: HashSet<u32>,
    has_policy: bool,
}

impl<W: WriteHops> NextHops<Kernel, W> {
    /// Opens the socket for questions, in the calling thread's network namespace. `mark`: the mark of the
    /// relay's sockets; 0: none.
    ///
    /// # Errors
    /// The system cannot open such a socket.
    pub fn open(map: W, mark: u32) -> io::Result<Self> {
        Ok(Self::new(Kernel::open(mark)?, map))
    }
}

impl WriteHops for NextHopMap {
    fn write(&mut self, number: HopNumber, value: Option<NextHopValue>) {
        if let Err(error) = Self::write(self, number.0, value) {
            tracing::error!(number = number.0, %error, "cannot write a way out: please report this");
        }
    }
}

impl<A: Ask, W: WriteHops> NextHops<A, W> {
    fn new(ask: A, map: W) -> Self {
        let mut hops = Self {
            ask,
            ways: Ways::new(map),
            routes: HashMap::new(),
            has_forgotten: false,
            up: HashSet::new(),
            has_policy: false,
        };
        hops.look_for_policy();
        hops.look_for_links();
        hops
    }

    /// The number of the way from `path.local`, an address of this host, to `path.remote`. An IPv4 address
    /// may be mapped into IPv6.
    ///
    /// This never waits for the neighbour: if it is not known, the kernel is made to look for it.
    ///
    /// # Errors
    /// The reason why XDP cannot send packets there, now or ever.
    pub fn resolve(&mut self, leg: BoundLeg, now_ns: u64) -> Result<HopNumber, NoNextHop> {
        let question = self.question(&leg.path);
        answers::eligible(question.local, question.remote)?;
        let route = self.route(question)?;
        self.know_link(route.ifindex)?;
        let id = (route.ifindex, route.neighbour);
        if !self.ways.neighbours.contains_key(&id) {
            let entry = self.ask.neighbour(id.0, id.1)?.unwrap_or_default();
            let _ = self.ways.neighbour(id, entry);
        }
        if self.ways.neighbours.get(&id).is_some_and(|known| known.entry.mac.is_some()) {
            return self.ways.number(route).ok_or(NoNextHop::Full);
        }
        self.ways.wait(id, leg);
        self.look_for(id, now_ns);
        Err(NoNextHop::NoNeighbour { neighbour: route.neighbour, ifindex: route.ifindex })
    }

    /// How a way is taken now; `None`: it cannot be, and userspace forwards.
    pub fn value(&self, number: HopNumber) -> Option<NextHopValue> {
        self.ways.value(number)
    }

    /// A walk over all sessions begins: it is to name every way that a session has.
    pub fn begin_walk(&mut self) {
        self.ways.begin_walk();
    }

    /// A session has this way.
    pub fn keep(&mut self, number: HopNumber) {
        self.ways.keep(number);
    }

    /// The walk is complete: ways that no session has are forgotten.
    pub fn end_walk(&mut self, now_ns: u64) {
        self.ways.end_walk(now_ns);
    }

    fn route(&mut self, question: Question) -> Result<KernelRoute, NoNextHop> {
        if let Some(known) = self.routes.get(&question) {
            return (*known).ok_or(NoNextHop::NoRoute);
        }
        let found = self.ask.route(&question);
        // What the kernel did not say for certain is asked again.
        let certain = !matches!(found, Err(NoNextHop::Netlink(_)));
        if certain {
            if self.routes.len() >= ROUTES {
                self.routes.clear();
                self.has_forgotten = true;
            }
            self.routes.insert(question, found.as_ref().ok().copied());
        }
        found
    }

    fn know_link(&mut self, ifindex: u32) -> Result<(), NoNextHop> {
        if !self.ways.links.contains_key(&ifindex) {
            let link = self.ask.link(ifindex)?;
            self.ways.link(ifindex, Some(link));
        }
        Ok(())
    }

    /// Makes the kernel look for a neighbour, or confirm it, unless it was made to shortly before or somebody
    /// else looks after the entry.
    fn look_for(&mut self, id: NeighbourId, now_ns: u64) {
        let Some(known) = self.ways.neighbours.get_mut(&id) else { return };
        if known.entry.is_kept || !known.backoff.ask(now_ns) {
            return;
        }
        if let Err(error) = self.ask.use_neighbour(id.0, id.1) {
            tracing::debug!(neighbour = %id.1, ifindex = id.0, %error, "cannot look for the neighbour");
        }
    }

    /// Confirms the neighbours in use that the kernel has not heard lately, and looks again for those that
    /// did not answer. XDP's packets do not pass through the kernel's neighbour table; without this, entries
    /// in use would grow stale. To be called every few seconds.
    pub fn look_for_neighbours(&mut self, now_ns: u64) {
        let quiet = self.ways.neighbours.iter().filter(|(_, known)| !known.entry.is_confirmed);
        let ids: Vec<NeighbourId> = quiet.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.look_for(id, now_ns));
    }

    /// Takes in what the kernel reported.
    pub fn follow(&mut self, changes: Vec<Change>) -> Followed {
        let (mut followed, mut rules) = (Followed::default(), false);
        for change in changes {
            match change {
                Change::Neighbour { ifindex, ip, now } => {
                    // Of the thousands of neighbours that a host may have, only those in use matter.
                    if !self.ways.neighbours.contains_key(&(ifindex, ip)) {
                        continue;
                    }
                    let (legs, more) = self.ways.neighbour((ifindex, ip), now.unwrap_or_default());
                    followed.legs.extend(legs);
                    if more {
                        followed.dirty.add(Dirty::everything());
                    }
                }
                Change::Link { ifindex, is_up, now } => {
                    let was_up = if is_up { !self.up.insert(ifindex) } else { self.up.remove(&ifindex) };
                    if self.ways.links.get(&ifindex).is_some_and(|before| Some(*before) != now) {
                        self.ways.link(ifindex, now);
                    }
                    // The kernel reports neither the IPv4 routes that a link takes with it nor those that it
                    // uses again once there is a carrier.
                    if is_up != was_up {
                        followed.dirty.add(Dirty::everything());
                    }
                }
                Change::Routes { dirty, many } => {
                    if many && !self.has_policy {
                        self.has_policy = true;
                        followed.dirty.add(Dirty::everything());
                    }
                    followed.dirty.add(dirty);
                }
                Change::Rules => {
                    rules = true;
                    followed.dirty.add(Dirty::everything());
                }
            }
        }
        // Once, however many rules have changed: all routes may have to be read.
        if rules {
            self.look_for_policy();
        }
        self.forget_routes(&followed.dirty);
        followed
    }

    /// Reports were lost: everything that is known is asked again.
    pub fn follow_nothing(&mut self) -> Followed {
        self.look_for_links();
        let links: Vec<u32> = self.ways.links.keys().copied().collect();
        for ifindex in links {
            let link = self.ask.link(ifindex).ok();
            self.ways.link(ifindex, link);
        }
        let neighbours: Vec<NeighbourId> = self.ways.neighbours.keys().copied().collect();
        let mut followed = Followed { legs: Vec::new(), dirty: Dirty::everything() };
        for id in neighbours {
            if let Ok(entry) = self.ask.neighbour(id.0, id.1) {
                followed.legs.extend(self.ways.neighbour(id, entry.unwrap_or_default()).0);
            }
        }
        self.look_for_policy();
        self.forget_routes(&followed.dirty);
        followed
    }

    /// A router said that packets of this size are too big for it: the kernel knows by now. Returns the legs
    /// whose route is another one since then. Anybody can send such messages, so each costs one question at
    /// most, and none about a destination that is not in use.
    ///
    /// # Errors
    /// Legs to look at when there is time: the kernel did not answer, or too many routes are in use to know
    /// whether this one is, and what it was.
    pub fn follow_too_big(&mut self, path: &LegPath) -> Result<Dirty, Dirty> {
        let question = self.question(path);
        let dirty = Dirty::destination(question.remote);
        let same = if self.has_forgotten { Err(dirty.clone()) } else { Ok(Dirty::default()) };
        let Some(before) = self.routes.get(&question).copied() else { return same };
        let now = match self.ask.route(&question) {
            Err(NoNextHop::Netlink(_)) => {
                self.routes.remove(&question);
                return Err(dirty);
            }
            now => now.ok(),
        };
        if now == before {
            return same;
        }
        self.routes.insert(question, now);
        // Other questions about the same destination, where there are rules.
        if self.has_policy {
            self.forget_routes(&dirty);
        }
        Ok(dirty)
    }

    fn question(&self, path: &LegPath) -> Question {
        let (local, remote) = (path.local.ip().to_canonical(), path.remote.ip().to_canonical());
        let ports = self.has_policy.then(|| (path.local.port(), path.remote.port()));
        Question { local, remote, ports }
    }

    fn look_for_policy(&mut self) {
        // With ports, the answer is right in either case.
        self.has_policy = self.ask.has_policy().unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot read the rules; each leg is asked for");
            true
        });
    }

    fn look_for_links(&mut self) {
        match self.ask.up() {
            Ok(up) => self.up = up,
            Err(error) => tracing::debug!(%error, "cannot read the links"),
        }
    }

    fn forget_routes(&mut self, dirty: &Dirty) {
        if dirty.is_everything() {
            self.routes.clear();
            // The legs are walked over now.
            self.has_forgotten = false;
        } else if !dirty.is_empty() {
            self.routes.retain(|question, _| !dirty.concerns(question.local, question.remote));
        }
    }
}

#[cfg(test)]
mod tests;
