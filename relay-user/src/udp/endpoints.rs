//! The addresses that an allocation advertises: a value that a task keeps up to date, so that an allocation
//! only copies it.
//!
//! What an operator names replaces what is found: static endpoints and `--advertise` stand for the host's own
//! addresses. What STUN servers see is added, because it was asked for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::reflexive::{Question, Seen};
use crate::host::addresses::{self, Host};

/// What decides about the addresses for the life of the daemon.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// `--relay-server-static-endpoints`, in the order given.
    pub fixed: Vec<SocketAddr>,
    /// `--advertise`, in the order given; without a port, the bound one.
    pub given: Vec<(IpAddr, Option<u16>)>,
    /// The bound port, of both families.
    pub port: u16,
    /// Whether the IPv6 socket is bound.
    pub with_v6: bool,
}

/// An address at which the UDP relay can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Where clients send to.
    pub addr: SocketAddr,
    /// Who says so.
    pub source: Source,
}

/// Where an advertised address comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `--relay-server-static-endpoints`.
    Static,
    /// `--advertise`.
    Given,
    /// This interface has it.
    Interface(String),
    /// This STUN server sees the relay there.
    Stun(Arc<str>),
    /// This STUN server sees the relay at this IP, and another server at another port; the port is the
    /// relay's own, in case the NAT has it forwarded.
    Guess(Arc<str>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static => f.write_str("--relay-server-static-endpoints"),
            Self::Given => f.write_str("--advertise"),
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Stun(server) => write!(f, "seen by {server}"),
            Self::Guess(server) => {
                write!(f, "a guess: the IP that {server} sees, the relay's own port, since the NAT varies it")
            }
        }
    }
}

/// The addresses at which the UDP relay can be reached now.
#[derive(Debug)]
pub struct Endpoints {
    /// The bound port.
    pub port: u16,
    named: Named,
    current: ArcSwap<Vec<Advertised>>,
    questions: ArcSwap<Vec<Question>>,
}

impl Endpoints {
    /// Nothing but what the operator named, until the first [`Self::update`].
    pub fn new(named: Named) -> Self {
        let current = ArcSwap::from_pointee(assemble(&named, &Host::default(), &[]));
        Self { port: named.port, named, current, questions: ArcSwap::default() }
    }

    /// The addresses for an allocation.
    pub fn current(&self) -> Vec<SocketAddr> {
        self.current.load().iter().map(|advertised| advertised.addr).collect()
    }

    /// The addresses with their sources.
    pub fn advertised(&self) -> Arc<Vec<Advertised>> {
        self.current.load_full()
    }

    /// What is asked of STUN servers, and what they have answered.
    pub fn questions(&self) -> Arc<Vec<Question>> {
        self.questions.load_full()
    }

    /// Sets what is told of the STUN servers.
    pub fn set_questions(&self, questions: Vec<Question>) {
        self.questions.store(Arc::new(questions));
    }

    /// Whether the host's own addresses are advertised.
    pub fn follows_host(&self) -> bool {
        self.named.fixed.is_empty() && self.named.given.is_empty()
    }

    /// Advertises what is true now. Returns what came and what went.
    pub fn update(&self, host: &Host, seen: &[Seen]) -> (Vec<Advertised>, Vec<Advertised>) {
        let (new, old) = (assemble(&self.named, host, seen), self.current.load_full());
        let changes = (without(&new, &old), without(&old, &new));
        if *old != new {
            self.current.store(Arc::new(new));
        }
        changes
    }
}

/// Those of `these` whose addresses are not among `those`.
fn without(these: &[Advertised], those: &[Advertised]) -> Vec<Advertised> {
    let other = |one: &&Advertised| those.iter().all(|other| other.addr != one.addr);
    these.iter().filter(other).cloned().collect()
}

/// All that is to be advertised, each address once, under the first source that has it.
fn assemble(named: &Named, host: &Host, seen: &[Seen]) -> Vec<Advertised> {
    let mut all = Vec::<Advertised>::new();
    let mut add = |addr: SocketAddr, source: Source| {
        if all.iter().all(|other| other.addr != addr) {
            all.push(Advertised { addr, source });
        }
    };
    named.fixed.iter().for_each(|addr| add(*addr, Source::Static));
    for (ip, port) in &named.given {
        add(SocketAddr::new(*ip, port.unwrap_or(named.port)), Source::Given);
    }
    if named.fixed.is_empty() && named.given.is_empty() {
        for found in addresses::advertised(host, named.with_v6) {
            add(SocketAddr::new(found.ip, named.port), Source::Interface(found.interface));
        }
    }
    for v4 in [true, false] {
        let of_family: Vec<_> = seen.iter().filter(|seen| seen.addr.is_ipv4() == v4).collect();
        let Some(first) = of_family.first() else { continue };
        // As upstream: the first server's word, and what two servers agree about.
        add(first.addr, Source::Stun(Arc::clone(&first.server)));
        for (at, one) in of_family.iter().enumerate() {
            if of_family[..at].iter().any(|other| other.addr == one.addr) {
                add(one.addr, Source::Stun(Arc::clone(&one.server)));
            }
        }
        // Behind a NAT that gives each destination another port, only a port that it forwards on purpose
        // leads here, and that is likely the relay's own.
        if v4 && of_family.iter().any(|other| other.addr != first.addr) {
            add(SocketAddr::new(first.addr.ip(), named.port), Source::Guess(Arc::clone(&first.server)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::addresses::{Address, Interface, Kind, State};

    fn host() -> Host {
        let interface = Interface {
            index: 2,
            name: "eth0".to_owned(),
            up: true,
            loopback: false,
            kind: Kind::Other,
            master: None,
            lower: None,
        };
        let ips = ["10.0.0.5", "2001:db8::5"].map(|ip| ip.parse().expect("an address"));
        let address = |ip| Address { interface: 2, ip, bits: 24, state: State::Stable };
        Host { interfaces: vec![interface], addresses: ips.map(address).into(), ways_out: vec![2] }
    }

    fn seen(list: &[(&str, &str)]) -> Vec<Seen> {
        let one = |(server, addr): &(&str, &str)| Seen { server: (*server).into(), addr: parse(addr) };
        list.iter().map(one).collect()
    }

    fn parse(addr: &str) -> SocketAddr {
        addr.parse().expect("an address")
    }

    fn named() -> Named {
        Named { port: 7777, with_v6: true, ..Named::default() }
    }

    #[track_caller]
    fn advertises(named: &Named, seen: &[Seen], wanted: &[&str]) {
        let all = assemble(named, &host(), seen);
        let all: Vec<_> = all.iter().map(|one| format!("{} {}", one.addr, one.source)).collect();
        assert!(
            all.len() == wanted.len() && all.iter().zip(wanted).all(|(a, b)| a.starts_with(b)),
            "{all:?}"
        );
    }

    #[test]
    fn the_hosts_own_addresses_with_the_bound_port_of_families_that_are_bound() {
        let both = ["10.0.0.5:7777 interface eth0", "[2001:db8::5]:7777 interface eth0"];
        advertises(&named(), &[], &both);
        advertises(&Named { with_v6: false, ..named() }, &[], &both[..1]);
    }

    #[test]
    fn what_is_named_stands_for_the_hosts_own() {
        let fixed = vec![parse("203.0.113.1:9"), parse("[2001:db8::1]:9")];
        let given = vec![(parse("198.51.100.1:0").ip(), None), (parse("203.0.113.1:0").ip(), Some(9))];
        let only_fixed = Named { fixed: fixed.clone(), ..named() };
        advertises(&only_fixed, &[], &["203.0.113.1:9 --relay-server-s", "[2001:db8::1]:9 --relay-server-s"]);
        let only_given = Named { given: given.clone(), ..named() };
        advertises(&only_given, &[], &["198.51.100.1:7777 --advertise", "203.0.113.1:9 --advertise"]);
        let wanted = ["203.0.113.1:9 --relay", "[2001:db8::1]:9 --relay", "198.51.100.1:7777 --advertise"];
        advertises(&Named { fixed, given, ..named() }, &[], &wanted);
    }

    #[test]
    fn what_servers_see_comes_last_and_where_they_disagree_the_own_port_is_guessed() {
        let own = ["10.0.0.5:7777 i", "[2001:db8::5]:7777 i"];
        let with = |more: &[&'static str]| [&own[..], more].concat();
        // No NAT: nothing new.
        advertises(&named(), &seen(&[("a:1", "10.0.0.5:7777"), ("a:1", "[2001:db8::5]:7777")]), &own);
        // A NAT one to one.
        let agreed = [("a:1", "203.0.113.5:7777"), ("b:1", "203.0.113.5:7777")];
        advertises(&named(), &seen(&agreed), &with(&["203.0.113.5:7777 seen by a:1"]));
        // A NAT that varies the port by destination: of three servers, two that agree count beside the first.
        let varied = [("a:1", "203.0.113.5:1001"), ("b:1", "203.0.113.5:1002"), ("c:1", "203.0.113.5:1002")];
        let first = "203.0.113.5:1001 seen by a:1";
        let guess = "203.0.113.5:7777 a guess: the IP that a:1 sees";
        advertises(&named(), &seen(&varied), &with(&[first, "203.0.113.5:1002 seen by c:1", guess]));
        advertises(&named(), &seen(&varied[..2]), &with(&[first, guess]));
        // IPv6 is not translated this way.
        let v6 = [("a:1", "[2001:db8::9]:1"), ("b:1", "[2001:db8::9]:2")];
        advertises(&named(), &seen(&v6), &with(&["[2001:db8::9]:1 seen by a:1"]));
        // Beside static endpoints, what was asked for is added.
        let fixed = Named { fixed: vec![parse("192.0.2.1:9")], ..named() };
        advertises(&fixed, &seen(&agreed), &["192.0.2.1:9 --relay", "203.0.113.5:7777 seen by a:1"]);
    }

    #[test]
    fn an_update_tells_what_came_and_what_went() {
        let endpoints = Endpoints::new(named());
        assert_eq!(endpoints.current(), [], "until the host has been looked at");
        let (came, went) = endpoints.update(&host(), &seen(&[("a:1", "203.0.113.5:7777")]));
        assert_eq!((came.len(), went.len()), (3, 0));
        let (came, went) = endpoints.update(&host(), &seen(&[("b:1", "203.0.113.5:7777")]));
        assert_eq!((came, went), (vec![], vec![]), "another server says the same");
        assert_eq!(endpoints.advertised()[2].source, Source::Stun("b:1".into()));
        let (came, went) = endpoints.update(&Host::default(), &seen(&[("b:1", "203.0.113.5:8888")]));
        assert_eq!(came.iter().map(|one| one.addr).collect::<Vec<_>>(), [parse("203.0.113.5:8888")]);
        assert_eq!((went.len(), endpoints.current()), (3, vec![parse("203.0.113.5:8888")]));
    }
}
