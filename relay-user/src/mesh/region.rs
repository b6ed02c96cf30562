//! The other relays of the region: which addresses they have, which are dialled, and which link is whose.
//!
//! This module does no I/O, reads no clock and draws no random numbers: the caller looks names up, dials, and
//! reports what came of it. A name may have many addresses, and a relay many names: there is one link for
//! each server key.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use relay_common::key::NodePublic;

use super::target::{self, Answer, DialId, Target};
use crate::route::vocabulary::LinkId;

/// Nanoseconds between two look-ups of a name.
pub const LOOK_UP_EVERY_NS: u64 = 5_000_000_000;

/// Nanoseconds between two look-ups of a name that has no known address.
const LOOK_UP_UNKNOWN_NS: u64 = 1_000_000_000;

/// Look-ups in a row that must leave an address out before its link is closed: a server of names may leave an
/// address out once.
pub const LOOK_UPS_WITHOUT: u8 = 3;

/// The position of a relay's name in `-mesh-with`.
pub type HostIndex = usize;

/// One address of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The name.
    pub host: HostIndex,
    /// The address and port.
    pub addr: SocketAddr,
}

/// What the caller has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the words of the sentence above them")]
pub enum Act {
    /// Look the name up, and call [`Region::looked_up`].
    LookUp { host: HostIndex },
    /// Dial, and call [`Region::answered`] or [`Region::failed`].
    Dial { place: Place, dial: DialId },
    /// Give this dial up.
    Abandon { place: Place, dial: DialId },
    /// Send a Ping over the link.
    Probe { link: LinkId },
    /// End the link: its relay is silent, or its address has vanished. [`Region::ended`] need not be called.
    GiveUp { link: LinkId, place: Place, why: GivenUp },
}

/// Why a link is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GivenUp {
    /// Its relay has said nothing for too long.
    #[error("its relay said nothing for {} s, or answered nothing for {} s",
        target::SILENCE_LIMIT_NS / 1_000_000_000, target::ANSWER_LIMIT_NS / 1_000_000_000)]
    Silent,
    /// Its name has other addresses now.
    #[error("its name no longer has this address")]
    Vanished,
}

/// The state of an address, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is being dialled.
    Down,
    /// There is a link to it.
    Up(LinkId),
    /// There is a link to its relay, by another address.
    Alias,
    /// It is this relay's own.
    Ourselves,
}

/// The region as this relay sees it.
#[derive(Debug)]
pub struct Region {
    me: NodePublic,
    hosts: Vec<Host>,
    links: BTreeMap<LinkId, Place>,
    next_link: u64,
}

#[derive(Debug)]
struct Host {
    /// When the name is looked up next; `None`: it is being looked up, or needs no look-up.
    next_look_up_ns: Option<u64>,
    addresses: BTreeMap<SocketAddr, Address>,
}

#[derive(Debug)]
struct Address {
    target: Target,
    /// The key of the relay that answered last.
    server: Option<NodePublic>,
    link: Option<LinkId>,
    /// Look-ups in a row that left the address out.
    missing: u8,
}

impl Address {
    fn new(now_ns: u64) -> Self {
        Self { target: Target::new(now_ns), server: None, link: None, missing: 0 }
    }
}

impl Region {
    /// The region around the relay with the key `me`. `hosts`: every name of `-mesh-with`, with its address
    /// if it is one.
    pub fn new(me: NodePublic, hosts: impl IntoIterator<Item = Option<SocketAddr>>, now_ns: u64) -> Self {
        let host = |addr: Option<SocketAddr>| Host {
            next_look_up_ns: addr.is_none().then_some(now_ns),
            addresses: addr.map(|addr| (addr, Address::new(now_ns))).into_iter().collect(),
        };
        Self { me, hosts: hosts.into_iter().map(host).collect(), links: BTreeMap::new(), next_link: 1 }
    }

    /// Handles the time; `random` draws a new random number. Appends what is to be done to `out`, and returns
    /// when this must be called again at the latest; `None`: not before something happens.
    pub fn tick(&mut self, now_ns: u64, random: &mut dyn FnMut() -> u64, out: &mut Vec<Act>) -> Option<u64> {
        let mut next_ns: Option<u64> = None;
        let mut over = Vec::new();
        for (host, state) in self.hosts.iter_mut().enumerate() {
            if state.next_look_up_ns.is_some_and(|due| due <= now_ns) {
                state.next_look_up_ns = None;
                out.push(Act::LookUp { host });
            }
            next_ns = earlier(next_ns, state.next_look_up_ns);
            for (&addr, address) in &mut state.addresses {
                let mut acts = Vec::new();
                let due = address.target.tick(now_ns, random(), &mut acts);
                next_ns = earlier(next_ns, due);
                let place = Place { host, addr };
                for act in acts {
                    match (act, address.link) {
                        (target::Act::Dial(dial), _) => out.push(Act::Dial { place, dial }),
                        (target::Act::Abandon(dial), _) => out.push(Act::Abandon { place, dial }),
                        (target::Act::Probe, Some(link)) => out.push(Act::Probe { link }),
                        (target::Act::GiveUp, Some(link)) => {
                            out.push(Act::GiveUp { link, place, why: GivenUp::Silent });
                            over.push(link);
                        }
                        // Only an address with a link is probed or given up.
                        (target::Act::Probe | target::Act::GiveUp, None) => {}
                    }
                }
            }
        }
        if over.is_empty() {
            return next_ns;
        }
        over.into_iter().for_each(|link| self.ended(link, true, now_ns));
        // The other addresses of these relays are dialled now.
        self.tick(now_ns, random, out)
    }

    /// Handles the addresses that a name has now. A look-up that failed says nothing: `None`.
    pub fn looked_up(
        &mut self,
        host: HostIndex,
        found: Option<&[SocketAddr]>,
        now_ns: u64,
        out: &mut Vec<Act>,
    ) {
        let Some(state) = self.hosts.get_mut(host) else { return };
        let is_unknown = state.addresses.is_empty() && found.is_none_or(<[SocketAddr]>::is_empty);
        let pause = if is_unknown { LOOK_UP_UNKNOWN_NS } else { LOOK_UP_EVERY_NS };
        state.next_look_up_ns = Some(now_ns + pause);
        let Some(found) = found else { return };
        for addr in found {
            state.addresses.entry(*addr).or_insert_with(|| Address::new(now_ns)).missing = 0;
        }
        let mut over = Vec::new();
        state.addresses.retain(|addr, address| {
            // An answer without any address of this family says nothing about it: one of two questions may
            // have failed.
            if found.contains(addr) || found.iter().all(|other| other.is_ipv4() != addr.is_ipv4()) {
                return true;
            }
            address.missing += 1;
            if address.missing < LOOK_UPS_WITHOUT {
                return true;
            }
            let place = Place { host, addr: *addr };
            out.extend(address.target.dials().map(|dial| Act::Abandon { place, dial }));
            over.extend(address.link.map(|link| (link, place)));
            false
        });
        for (link, place) in over {
            out.push(Act::GiveUp { link, place, why: GivenUp::Vanished });
            self.ended(link, true, now_ns);
        }
    }

    /// Handles a dial that came to a relay with the key `server`. Returns the name of the link that its
    /// connection becomes; `None`: the caller ends it.
    pub fn answered(
        &mut self,
        place: Place,
        dial: DialId,
        server: NodePublic,
        now_ns: u64,
        out: &mut Vec<Act>,
    ) -> Option<LinkId> {
        let linked = self.link_to(&server).is_some();
        let me = self.me;
        let address = self.address(place)?;
        // Of several dials to one address, a late one may have come to another relay.
        if address.target.dials().any(|other| other == dial) {
            address.server = Some(server);
        }
        let answer = match linked {
            _ if server == me => Answer::Ourselves,
            true => Answer::Linked,
            false => Answer::New,
        };
        let mut acts = Vec::new();
        let is_link = address.target.answered(dial, answer, now_ns, &mut acts);
        for act in acts {
            if let target::Act::Abandon(dial) = act {
                out.push(Act::Abandon { place, dial });
            }
        }
        if !is_link {
            return None;
        }
        let link = LinkId(self.next_link);
        self.next_link += 1;
        self.links.insert(link, place);
        self.address(place)?.link = Some(link);
        Some(link)
    }

    /// Handles a dial that failed.
    pub fn failed(&mut self, place: Place, dial: DialId) {
        if let Some(address) = self.address(place) {
            address.target.failed(dial);
        }
    }

    /// Handles that the link's relay was last heard, and last answered a probe, at these times.
    pub fn heard(&mut self, link: LinkId, heard_ns: u64, answered_ns: u64) {
        let Some(&place) = self.links.get(&link) else { return };
        if let Some(address) = self.address(place) {
            address.target.heard(heard_ns, answered_ns);
        }
    }

    /// Handles the end of a link: its address and all others of its relay are dialled. `joined`: its relay
    /// had told of clients, so it took us for one of the region.
    pub fn ended(&mut self, link: LinkId, joined: bool, now_ns: u64) {
        let Some(place) = self.links.remove(&link) else { return };
        let server = self.address(place).and_then(|address| {
            address.link = None;
            address.target.ended(joined, now_ns);
            address.server
        });
        for address in self.addresses() {
            // If the address has vanished, its relay's key is not known: any alias may be one of this relay.
            if address.link.is_none() && (server.is_none() || address.server == server) {
                address.target.ended(joined, now_ns);
            }
        }
    }

    /// Handles a sign that some relay of the region has just come up: all that have no link are dialled.
    pub fn hint(&mut self, now_ns: u64) {
        self.addresses().for_each(|address| address.target.hint(now_ns));
    }

    /// Whether an address is one of its name.
    pub fn knows(&self, place: Place) -> bool {
        self.hosts.get(place.host).is_some_and(|host| host.addresses.contains_key(&place.addr))
    }

    /// Whether an address is being dialled in vain.
    pub fn is_down(&self, place: Place) -> bool {
        let address = self.hosts.get(place.host).and_then(|host| host.addresses.get(&place.addr));
        address.is_some_and(|address| address.target.answer().is_none())
    }

    /// The address that a link was dialled at.
    pub fn place_of(&self, link: LinkId) -> Option<Place> {
        self.links.get(&link).copied()
    }

    /// The link to the relay with this key.
    pub fn link_to(&self, server: &NodePublic) -> Option<LinkId> {
        let all = self.hosts.iter().flat_map(|host| host.addresses.values());
        all.filter(|address| address.server.as_ref() == Some(server)).find_map(|address| address.link)
    }

    /// Every address, with the key of the relay that answered there last.
    pub fn standings(&self) -> impl Iterator<Item = (Place, Option<NodePublic>, Standing)> + '_ {
        self.hosts.iter().enumerate().flat_map(|(host, state)| {
            state.addresses.iter().map(move |(&addr, address)| {
                let standing = match (address.link, address.target.answer()) {
                    (Some(link), _) => Standing::Up(link),
                    (None, Some(Answer::Ourselves)) => Standing::Ourselves,
                    (None, Some(Answer::Linked)) => Standing::Alias,
                    (None, _) => Standing::Down,
                };
                (Place { host, addr }, address.server, standing)
            })
        })
    }

    fn address(&mut self, place: Place) -> Option<&mut Address> {
        self.hosts.get_mut(place.host)?.addresses.get_mut(&place.addr)
    }

    fn addresses(&mut self) -> impl Iterator<Item = &mut Address> {
        self.hosts.iter_mut().flat_map(|host| host.addresses.values_mut())
    }
}

fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests;
