//! The thread on which next hops are found: the kernel answers in about ten microseconds, and there may be a
//! million destinations.
//!
//! Legs that were just bound, what the kernel reports and a walk over all sessions take turns; the walk goes
//! on a few sessions at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::ticks;
use crate::clock;
use crate::fastpath::next_hop_map::NextHopMap;
use crate::fastpath::nexthop::announce::{Announce, Announced};
use crate::fastpath::nexthop::dirty::Dirty;
use crate::fastpath::nexthop::icmp::Icmp;
use crate::fastpath::nexthop::reports::{Reported, Reports};
use crate::fastpath::nexthop::{Followed, NextHops, NoNextHop};
use crate::relay::Relay;
use crate::route::sessions::Session;
use crate::route::vocabulary::{BoundLeg, LegPath};
use crate::threads::event_loop::EventLoop;

/// Bound legs that may wait for the thread. If there are more, it walks over all sessions.
const WAITING_LEGS: usize = 4096;

/// Least time between two times that everything is asked again because reports were lost, while routes change
/// faster than they are read.
const ASK_ALL: Duration = Duration::from_secs(1);

/// Messages of routers that cannot be judged, and are taken in, between two looks at what was left.
const DOUBTS: usize = 64;

/// Messages of routers that may wait.
const SETTLING: usize = 256;

/// Time between two looks for neighbours that the kernel has not heard lately.
const CONFIRM: Duration = Duration::from_secs(2);

/// Time between two walks over all sessions that look up every route again. Changes are reported, but a path
/// MTU that has expired is not; and numbers of ways that nobody uses become free.
const REFRESH: Duration = Duration::from_secs(600);

/// Least time from one walk's end to the next one's start, while routes change all the time.
const BREATH: Duration = Duration::from_millis(50);

/// Time that the kernel gets to take in an ICMP message before it is asked.
const SETTLE: Duration = Duration::from_millis(20);

/// What the thread needs to know.
#[derive(Debug)]
pub struct Setup {
    /// The map of ways out.
    pub map: NextHopMap,
    /// The relay's UDP port.
    pub port: u16,
    /// `SO_MARK` of the relay's sockets; 0: none.
    pub mark: u32,
}

/// Starts the thread in the calling thread's network namespace. Returns it, where bound legs are announced to
/// it, and a future that is done when it has ended.
///
/// # Errors
/// There is no thread to be had, or the kernel's routing cannot be read.
pub fn start(
    setup: Setup,
    relay: Arc<Relay>,
) -> io::Result<(EventLoop, Announce, impl Future<Output = ()> + Send + 'static)> {
    let (bound, announced) = Announce::new(WAITING_LEGS);
    let open = || Worker::open(setup, relay, announced);
    let (thread, ended) = EventLoop::start("relayd-nexthop", open, async |mut worker: Worker| {
        let error = worker.run().await;
        tracing::error!(%error, "the kernel's routing is no longer followed");
    })?;
    Ok((thread, bound, ended))
}

/// A walk over all sessions.
#[derive(Debug)]
struct Walk {
    dirty: Dirty,
    /// The last VNI looked at.
    after: u32,
}

struct Worker {
    relay: Arc<Relay>,
    hops: NextHops,
    reports: Reports,
    icmp: Option<Icmp>,
    announced: Announced,
    walk: Option<Walk>,
    /// The legs that the next walk is for.
    next: Dirty,
    not_before: Instant,
    /// Messages of routers that the kernel is still taking in.
    settling: VecDeque<(Instant, LegPath)>,
    /// Legs whose route could not be told for the moment.
    unanswered: Dirty,
    /// Messages of routers in it.
    doubts: usize,
    /// Reports were lost.
    lost: bool,
    ask_all_at: Instant,
}

impl Worker {
    fn open(setup: Setup, relay: Arc<Relay>, announced: Announced) -> io::Result<Self> {
        // First the reports, then the first question: no change is missed.
        let reports = Reports::open()?;
        let hops = NextHops::open(setup.map, setup.mark)?;
        let icmp = Icmp::open(setup.port).inspect_err(|error| {
            tracing::warn!(%error, "cannot read ICMP (CAP_NET_RAW): a path MTU that shrinks is noticed only later");
        });
        Ok(Self {
            relay,
            hops,
            reports,
            icmp: icmp.ok(),
            announced,
            walk: None,
            next: Dirty::default(),
            not_before: Instant::now(),
            settling: VecDeque::new(),
            unanswered: Dirty::default(),
            doubts: 0,
            lost: false,
            ask_all_at: Instant::now(),
        })
    }

    /// Runs until the kernel's reports cannot be read.
    async fn run(&mut self) -> io::Error {
        let (mut confirm, mut refresh) = (ticks(CONFIRM), ticks(REFRESH));
        loop {
            self.begin_walk();
            let settled = self.settling.front().map(|(at, _)| *at);
            // In no order: neither many binds nor many reports keep the others waiting.
            tokio::select! {
                Some(leg) = self.announced.legs.recv() => self.resolve(leg),
                () = self.announced.missed.notified() => self.next.add(Dirty::everything()),
                reported = self.reports.next() => match reported {
                    Ok(Reported::Changes(changes)) => {
                        let followed = self.hops.follow(changes);
                        self.take(followed);
                    }
                    Ok(Reported::Lost) => self.lost = true,
                    Err(error) => return error,
                },
                () = sleep_until(self.ask_all_at), if self.lost => {
                    tracing::debug!("the kernel has dropped reports of its routing; asking for everything");
                    self.ask_all();
                }
                found = next_icmp(&mut self.icmp) => self.settle(found),
                () = until(settled) => self.take_settled(),
                _ = confirm.tick() => {
                    self.hops.look_for_neighbours(clock::monotonic_ns());
                    self.next.add(std::mem::take(&mut self.unanswered));
                    self.doubts = 0;
                }
                _ = refresh.tick() => self.ask_all(),
                () = std::future::ready(()), if self.walk.is_some() => self.walk_on(),
                () = sleep_until(self.not_before), if self.walk.is_none() && !self.next.is_empty() => {}
            }
            // One of these may always have something to do. Without a pause the event loop would not look at
            // its sockets, and nobody could end this.
            tokio::task::yield_now().await;
        }
    }

    fn ask_all(&mut self) {
        (self.lost, self.ask_all_at) = (false, Instant::now() + ASK_ALL);
        let followed = self.hops.follow_nothing();
        self.take(followed);
    }

    fn take(&mut self, followed: Followed) {
        for leg in followed.legs {
            self.resolve(leg);
        }
        self.next.add(followed.dirty);
    }

    fn settle(&mut self, found: Vec<LegPath>) {
        let at = Instant::now() + SETTLE;
        for one in found {
            // Whoever sends more than this makes the relay look later, and not more often.
            if self.settling.len() < SETTLING && !self.settling.iter().any(|(_, other)| *other == one) {
                self.settling.push_back((at, one));
            }
        }
    }

    fn take_settled(&mut self) {
        let now = Instant::now();
        while let Some((_, path)) = self.settling.pop_front_if(|(at, _)| *at <= now) {
            match self.hops.follow_too_big(&path) {
                Ok(dirty) => self.next.add(dirty),
                // Routers say it again; whoever sends more than this does not make the relay look more often.
                Err(doubtful) if self.doubts < DOUBTS => {
                    self.doubts += 1;
                    self.unanswered.add(doubtful);
                }
                Err(_) => {}
            }
        }
    }

    fn begin_walk(&mut self) {
        if self.walk.is_none() && !self.next.is_empty() && Instant::now() >= self.not_before {
            let dirty = std::mem::take(&mut self.next);
            if dirty.is_everything() {
                self.hops.begin_walk();
            }
            self.walk = Some(Walk { dirty, after: 0 });
        }
    }

    /// Looks at the next few sessions.
    fn walk_on(&mut self) {
        let Some(walk) = &mut self.walk else { return };
        let mut found = Vec::new();
        let visit = |session: &Session| {
            for (leg, path, hop) in session.ways() {
                if let Some(number) = hop {
                    self.hops.keep(number);
                }
                if walk.dirty.contains(&path) {
                    found.push(BoundLeg { vni: session.vni(), leg, path });
                }
            }
        };
        let relay = &self.relay;
        let end = relay.control.next_hops.note(|| relay.router.ways_after(walk.after, visit));
        if let Some(last) = end {
            walk.after = last;
        }
        found.into_iter().for_each(|leg| self.resolve(leg));
        // Only now: the last legs may have got ways that nobody else has.
        if end.is_none()
            && let Some(walk) = self.walk.take()
        {
            if walk.dirty.is_everything() {
                self.hops.end_walk(clock::monotonic_ns());
            }
            self.relay.control.next_hops.pass();
            self.not_before = Instant::now() + BREATH;
        }
    }

    fn resolve(&mut self, leg: BoundLeg) {
        let BoundLeg { vni, leg: index, path } = leg;
        let now_ns = clock::monotonic_ns();
        let hop = self.hops.resolve(leg, now_ns);
        match &hop {
            Ok(_) | Err(NoNextHop::NoNeighbour { .. }) => {}
            Err(error @ NoNextHop::Netlink(_)) => {
                tracing::debug!(vni, leg = index, %error, "the kernel did not tell the next hop; asking again");
                self.unanswered.add(Dirty::destination(path.remote.ip().to_canonical()));
            }
            Err(error) => {
                let remote = path.remote;
                tracing::debug!(vni, leg = index, %remote, %error, "no next hop; userspace carries the session");
            }
        }
        self.relay.router.next_hop(vni, index, path, hop.ok(), now_ns);
    }
}

async fn next_icmp(icmp: &mut Option<Icmp>) -> Vec<LegPath> {
    let Some(socket) = icmp else { return std::future::pending().await };
    match socket.next().await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "cannot read ICMP any more");
            *icmp = None;
            Vec::new()
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
