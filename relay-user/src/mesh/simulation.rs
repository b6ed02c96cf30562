//! A region of relays in one thread, without sockets and clocks: tables, mailboxes, readers, links and the
//! times of dials are the real ones; the network and the clients are simulated, with all that can happen to
//! them.
//!
//! One seed is one history. A failed check names its seed and step.

mod chaos;
mod clients;
mod node;
mod wire;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use self::clients::Client;
use self::node::Node;
use self::wire::Wire;

/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

/// How long a region that nothing happens to any more may take until every relay reaches every client:
/// silence is noticed after three seconds, and dials begin every half second.
const HEALED_WITHIN: u64 = 6_000 * MS;

/// Bugs of the parts around the tables, to see that they are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    /// A packet that came by a link may leave by another.
    ForwardsAgain,
    /// The end of a link leaves its claims in the table.
    KeepsClaims,
    /// A silent link is never given up.
    WaitsForEver,
    /// The news that a key is gone gets lost on the way to a watcher.
    LosesNews,
}

thread_local! {
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
}

fn now_ns() -> u64 {
    NOW_NS.get()
}

/// splitmix64: any seed is good, and all of them are different.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}

/// What happens at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A node looks at its region's times.
    Tick { node: usize, life: u32 },
    /// The first message of a wire arrives, from the dialler's side (0) or from the other (1).
    Arrive { wire: usize, from: usize },
    /// A look-up of a name is answered.
    LookedUp { node: usize, life: u32, host: usize },
}

/// The region and its network.
struct World {
    random: Random,
    planted: Option<Planted>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    wires: BTreeMap<usize, Wire>,
    next_wire: usize,
    agenda: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_event: u64,
    /// Pairs of nodes between which nothing passes, the smaller first.
    cut: Vec<(usize, usize)>,
    /// Nothing happens to the region now.
    is_calm: bool,
    /// For each packet: links it left by, and how often it arrived.
    packets: Vec<Fate>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    links: u32,
    arrivals: u32,
}

impl World {
    fn new(seed: u64, nodes: usize, clients: usize, planted: Option<Planted>) -> Self {
        NOW_NS.set(1_000 * MS);
        let mut world = Self {
            random: Random(seed),
            planted,
            nodes: Vec::new(),
            clients: (0..clients).map(Client::new).collect(),
            wires: BTreeMap::new(),
            next_wire: 0,
            agenda: BinaryHeap::new(),
            next_event: 0,
            cut: Vec::new(),
            is_calm: false,
            packets: Vec::new(),
        };
        for number in 0..nodes {
            world.nodes.push(Node::new(number, nodes, 0));
            world.tick_now(number);
        }
        world
    }

    fn at(&mut self, after_ns: u64, event: Event) {
        self.next_event += 1;
        self.agenda.push(Reverse((now_ns() + after_ns, self.next_event, event)));
    }

    /// Lets everything happen that is due within this time.
    fn run(&mut self, for_ns: u64) {
        let end = now_ns() + for_ns;
        while let Some(Reverse((due, _, event))) = self.agenda.peek().copied()
            && due <= end
        {
            self.agenda.pop();
            NOW_NS.set(due);
            let changed = match event {
                Event::Tick { node, life } => self.tick(node, life),
                Event::Arrive { wire, from } => self.arrive(wire, from),
                Event::LookedUp { node, life, host } => self.looked_up(node, life, host),
            };
            if changed {
                self.pump();
            }
        }
        NOW_NS.set(end);
    }

    fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cut.contains(&(one.min(other), one.max(other)))
    }
}
