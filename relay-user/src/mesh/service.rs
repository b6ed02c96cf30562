//! Runs the region: looks names up, dials, starts links, and ends them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rand_core::{OsRng, RngCore};
use relay_common::key::NodePublic;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::dial::{self, DialError, Peer, Reached};
use super::incoming::{Incoming, probe};
use super::region::{Act, HostIndex, Place, Region, Standing};
use super::target::DialId;
use super::task::{LinkEnd, LinkTask};
use crate::clock;
use crate::conn::outgoing::Receiver;
use crate::relay::Relay;
use crate::route::link::Link;
use crate::route::vocabulary::LinkId;
use crate::workers::Pool;

/// What is said of an address that is not one of this host's and answers with our own key.
const OWN_KEY: &str = "it answers with this relay's own key: it is this relay by another way, or another one with a \
                       copy of the key file (-c), which needs a key of its own";

/// Events that wait for the service.
const EVENTS: usize = 1024;

/// The links of this relay to the others of its region.
#[derive(Debug)]
pub struct Mesh {
    peers: Vec<Peer>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    region: Region,
    links: BTreeMap<LinkId, Arc<Link>>,
    dials: BTreeMap<(Place, DialId), AbortHandle>,
    /// Why the last dial or link of a place failed.
    faults: BTreeMap<Place, String>,
    /// Why the last look-up of a name failed.
    unknown: BTreeMap<HostIndex, String>,
}

/// One address of another relay, for operators.
#[derive(Clone, Debug)]
pub struct PlaceStatus {
    /// The entry of `-mesh-with`.
    pub host: String,
    /// The address.
    pub addr: SocketAddr,
    /// The key of the relay that answered there last.
    pub server: Option<NodePublic>,
    /// Whether there is a link.
    pub standing: Standing,
    /// The link.
    pub link: Option<Arc<Link>>,
    /// Why the last dial or link failed, while there is no link.
    pub fault: Option<String>,
}

enum Event {
    LookedUp(HostIndex, Result<Vec<SocketAddr>, String>),
    /// A dial came to a relay with this key. It is told whether it is the link.
    Answered(Place, DialId, NodePublic, oneshot::Sender<Arc<Link>>),
    Failed(Place, DialId, DialError),
    Ended(LinkId, LinkEnd),
}

impl Mesh {
    /// The mesh of `relay` with these peers; nothing is dialled yet.
    pub fn new(peers: Vec<Peer>, relay: &Relay) -> Self {
        let literal =
            |peer: &Peer| peer.host.dial.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, peer.host.port));
        let region = Region::new(relay.public, peers.iter().map(literal), clock::monotonic_ns());
        let state = State {
            region,
            links: BTreeMap::new(),
            dials: BTreeMap::new(),
            faults: BTreeMap::new(),
            unknown: BTreeMap::new(),
        };
        Self { peers, state: Mutex::new(state) }
    }

    /// Every address of every name, in the order of `-mesh-with`; names without an address are not in it.
    pub fn places(&self) -> Vec<PlaceStatus> {
        let state = self.lock();
        let status = |(place, server, standing): (Place, Option<NodePublic>, Standing)| PlaceStatus {
            host: self.peers.get(place.host).map(|peer| peer.host.to_string()).unwrap_or_default(),
            addr: place.addr,
            server,
            standing,
            link: match standing {
                Standing::Up(link) => state.links.get(&link).cloned(),
                _ => None,
            },
            fault: state.faults.get(&place).cloned(),
        };
        state.region.standings().map(status).collect()
    }

    /// The names of `-mesh-with`, and why their last look-up failed.
    pub fn hosts(&self) -> Vec<(String, Option<String>)> {
        let state = self.lock();
        let host = |(at, peer): (usize, &Peer)| (peer.host.to_string(), state.unknown.get(&at).cloned());
        self.peers.iter().enumerate().map(host).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Keeps the links up for ever. Dials and links run on the workers of `pool`.
pub async fn serve(mesh: Arc<Mesh>, relay: Arc<Relay>, pool: Arc<Pool>) {
    let (tell, mut events) = mpsc::channel(EVENTS);
    let service = Service { mesh, relay, pool, tell };
    loop {
        let next_ns = service.tick();
        let pause = next_ns.map(|next| Duration::from_nanos(next.saturating_sub(clock::monotonic_ns())));
        let timer = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => service.handle(event),
                // The service holds a sender itself.
                None => return,
            },
            () = service.relay.mesh.came.notified() => {
                service.mesh.lock().region.hint(clock::monotonic_ns());
            }
            () = timer => {}
        }
    }
}

struct Service {
    mesh: Arc<Mesh>,
    relay: Arc<Relay>,
    pool: Arc<Pool>,
    tell: mpsc::Sender<Event>,
}

impl Service {
    fn tick(&self) -> Option<u64> {
        let mut out = Vec::new();
        let mut state = self.mesh.lock();
        let State { region, links, .. } = &mut *state;
        for (id, link) in links.iter() {
            let [heard_ns, answered_ns] =
                [&link.times.heard_ns, &link.times.answered_ns].map(|time| time.load(Ordering::Relaxed));
            region.heard(*id, heard_ns, answered_ns);
        }
        let next_ns = region.tick(clock::monotonic_ns(), &mut || OsRng.next_u64(), &mut out);
        self.act(&mut state, out);
        next_ns
    }

    fn handle(&self, event: Event) {
        let mut out = Vec::new();
        let now_ns = clock::monotonic_ns();
        let mut state = self.mesh.lock();
        match event {
            Event::LookedUp(host, found) => {
                self.note_look_up(&mut state, host, found.as_ref().err());
                state.region.looked_up(host, found.ok().as_deref(), now_ns, &mut out);
                let State { region, faults, .. } = &mut *state;
                faults.retain(|place, _| region.knows(*place));
            }
            Event::Answered(place, dial, server, reply) => {
                state.dials.remove(&(place, dial));
                if let Some(id) = state.region.answered(place, dial, server, now_ns, &mut out) {
                    let link = Arc::new(Link::new(id, server, place.addr));
                    link.times.heard_ns.store(now_ns, Ordering::Relaxed);
                    link.times.answered_ns.store(now_ns, Ordering::Relaxed);
                    link.times.up_ms.store(clock::monotonic_ms(), Ordering::Relaxed);
                    state.links.insert(id, Arc::clone(&link));
                    if reply.send(link).is_err() {
                        // The dial was given up in this moment.
                        state.links.remove(&id);
                        state.region.ended(id, true, now_ns);
                    }
                } else {
                    state.faults.remove(&place);
                    if server == self.relay.public && !is_of_this_host(place.addr.ip()) {
                        self.note(&mut state, place, OWN_KEY);
                    }
                }
            }
            Event::Failed(place, dial, error) => {
                state.dials.remove(&(place, dial));
                state.region.failed(place, dial);
                if state.region.knows(place) {
                    self.note(&mut state, place, &error.to_string());
                }
            }
            Event::Ended(id, end) => {
                let place = state.region.place_of(id);
                let link = state.links.remove(&id);
                state.region.ended(id, end.is_of_the_region(), now_ns);
                match (link, place) {
                    // This does not heal by itself: it is told once, as a fault.
                    (Some(_), Some(place)) if !end.is_of_the_region() => {
                        self.note(&mut state, place, &end.to_string());
                    }
                    (Some(link), place) => {
                        tracing::info!(server = %link.server, remote = %link.remote, %end, "a link has ended");
                        state.faults.extend(place.map(|place| (place, end.to_string())));
                    }
                    (None, _) => {}
                }
            }
        }
        self.act(&mut state, out);
    }

    /// Notes why a name has no address, and logs it once as long as it stays the same.
    fn note_look_up(&self, state: &mut State, host: HostIndex, error: Option<&String>) {
        let Some(error) = error else {
            state.unknown.remove(&host);
            return;
        };
        let before = state.unknown.insert(host, error.clone());
        if before.as_ref() != Some(error)
            && let Some(peer) = self.mesh.peers.get(host)
        {
            tracing::warn!(host = %peer.host, error, "cannot look a relay of -mesh-with up; still trying");
        }
    }

    /// Notes why a place cannot be reached, and logs it once as long as it stays the same.
    fn note(&self, state: &mut State, place: Place, fault: &str) {
        let before = state.faults.insert(place, fault.to_owned());
        if before.as_deref() != Some(fault) {
            let host = self.mesh.peers.get(place.host).map(|peer| peer.host.to_string());
            let host = host.unwrap_or_default();
            tracing::warn!(host, addr = %place.addr, fault, "no link to a relay of -mesh-with; still trying");
        }
    }

    fn act(&self, state: &mut State, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::LookUp { host } => self.look_up(host),
                Act::Dial { place, dial } => self.dial(state, place, dial),
                Act::Abandon { place, dial } => {
                    if let Some(task) = state.dials.remove(&(place, dial)) {
                        task.abort();
                        if state.region.is_down(place) {
                            self.note(state, place, "no answer in time");
                        }
                    }
                }
                Act::Probe { link } => {
                    if let Some(link) = state.links.get(&link) {
                        probe(link, &self.relay, clock::monotonic_ns());
                    }
                }
                Act::GiveUp { link, place, why } => {
                    if let Some(link) = state.links.remove(&link) {
                        tracing::info!(server = %link.server, remote = %link.remote, %why, "gave a link up");
                        if state.region.knows(place) {
                            state.faults.insert(place, why.to_string());
                        }
                        link.end();
                        // Its task may hang in a full queue of its worker: packets must find no way at once.
                        self.relay.link_down(link.id, clock::monotonic_ns());
                    }
                }
            }
        }
    }

    fn look_up(&self, host: HostIndex) {
        let Some(peer) = self.mesh.peers.get(host) else { return };
        let (name, port, tell) = (peer.host.dial.clone(), peer.host.port, self.tell.clone());
        tokio::spawn(async move {
            let found = tokio::net::lookup_host((name.as_str(), port)).await;
            let found = found.map(Iterator::collect).map_err(|error| error.to_string());
            // The service is gone only when the daemon ends.
            let _ = tell.send(Event::LookedUp(host, found)).await;
        });
    }

    fn dial(&self, state: &mut State, place: Place, id: DialId) {
        let Some(peer) = self.mesh.peers.get(place.host).cloned() else { return };
        let (relay, tell) = (Arc::clone(&self.relay), self.tell.clone());
        let task = self.pool.least().spawn(async move {
            match dial::dial(&peer, place.addr).await {
                Ok(reached) => {
                    let (reply, answer) = oneshot::channel();
                    let _ = tell.send(Event::Answered(place, id, reached.server, reply)).await;
                    // No answer: this is not the link.
                    if let Ok(link) = answer.await {
                        run(reached, link, relay, tell).await;
                    }
                }
                Err(error) => _ = tell.send(Event::Failed(place, id, error)).await,
            }
        });
        state.dials.insert((place, id), task.abort_handle());
    }
}

/// Whether a socket of this host can have the address.
fn is_of_this_host(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

/// Runs a link to its end, and always tells of it.
async fn run(mut reached: Reached, link: Arc<Link>, relay: Arc<Relay>, tell: mpsc::Sender<Event>) {
    let id = link.id;
    let end = match dial::log_in(&mut reached, &relay).await {
        Ok(()) => {
            let Reached { stream, deframer, rest, .. } = reached;
            match LinkTask::start(stream, Incoming::new(deframer), &rest, link, relay) {
                Ok(task) => task.await,
                Err(end) => end,
            }
        }
        Err(error) => {
            Receiver::link(&link).close(&relay);
            error.into()
        }
    };
    let _ = tell.send(Event::Ended(id, end)).await;
}
