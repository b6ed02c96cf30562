//! Keeps the advertised addresses up to date: hears from the kernel when the host's change, and asks STUN
//! servers from the relay's own socket, since another socket would be seen elsewhere.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rand_core::{OsRng, RngCore as _};
use relay_common::stun::{self, TxId};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::endpoints::{Advertised, Endpoints};
use super::gather::{Flow, Piece};
use super::reflexive::{News, Reflexive, Request, next_period};
use super::sender::{Sender, Settled};
use super::socket::SocketPair;
use crate::clock;
use crate::host::addresses::Host;
use crate::host::links::{self, Changes};
use crate::observe::counters::Counter;

/// Changes of the host's addresses within this time are one: many interfaces come and go together.
const QUIET: Duration = Duration::from_millis(250);

/// Time between two looks at the host's addresses if the kernel does not say when they change.
const POLL: Duration = Duration::from_secs(1);

/// Answers that may wait; only those to open questions do.
const WAITING: usize = 64;

/// What packet workers need to hand answers of STUN servers on.
#[derive(Debug)]
pub struct Awaited {
    open: ArcSwap<Vec<Request>>,
    answers: mpsc::Sender<Answer>,
}

/// An answer to an open question.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    from: SocketAddr,
    tx: TxId,
    addr: SocketAddr,
}

impl Awaited {
    /// Hands on a datagram for which [`stun::is_answer`] holds. Never waits. Returns what to count.
    pub fn take(&self, datagram: &[u8], from: SocketAddr) -> Counter {
        let Some((tx, addr)) = stun::parse_binding_response(datagram) else { return Counter::UdpStunDropped };
        // Looked up here, so that nobody who guesses at answers fills the channel.
        if !self.open.load().contains(&Request { to: from, tx }) {
            return Counter::UdpStunDropped;
        }
        match self.answers.try_send(Answer { from, tx, addr }) {
            Ok(()) => Counter::UdpStunAnswers,
            Err(_) => Counter::UdpStunDropped,
        }
    }
}

/// A server, and what is known of its name.
#[derive(Debug)]
struct Server {
    name: Arc<str>,
    /// Whether the name is being looked up: never twice at a time, however long it takes.
    looking: bool,
    /// Whether the last look-up failed.
    lost: bool,
}

/// What a look-up found, by the server's place in the list.
type Found = (usize, std::io::Result<Vec<SocketAddr>>);

/// The task that keeps [`Endpoints`] up to date.
#[derive(Debug)]
pub struct Discovery {
    endpoints: Arc<Endpoints>,
    awaited: Arc<Awaited>,
    answers: mpsc::Receiver<Answer>,
    /// `None`: the kernel does not say when addresses change.
    changes: Option<Changes>,
    host: Host,
    /// Whether the last look at the host failed.
    blind: bool,
    reflexive: Reflexive,
    servers: Vec<Server>,
    sender: Sender,
}

impl Discovery {
    /// Looks at the host's addresses, and says what is advertised at first. `servers`: those of
    /// `--relay-server-stun`.
    pub fn new(endpoints: Arc<Endpoints>, servers: &[Arc<str>], with_v6: bool) -> Self {
        let (answers, receiver) = mpsc::channel(WAITING);
        let watched = endpoints.follows_host() || !servers.is_empty();
        let changes = watched.then(Changes::watch).and_then(|opened| {
            let said =
                |error| tracing::warn!(%error, "changes of the host's addresses are not heard; polling");
            opened.map_err(said).ok()
        });
        let server = |name: &Arc<str>| Server { name: Arc::clone(name), looking: false, lost: false };
        let mut discovery = Self {
            endpoints,
            awaited: Arc::new(Awaited { open: ArcSwap::default(), answers }),
            answers: receiver,
            changes,
            host: Host::default(),
            blind: false,
            reflexive: Reflexive::new(servers, with_v6),
            servers: servers.iter().map(server).collect(),
            sender: Sender::default(),
        };
        discovery.look();
        discovery.endpoints.update(&discovery.host, &[]);
        let advertised = discovery.endpoints.advertised();
        if advertised.is_empty() {
            tracing::warn!("no address to advertise; --advertise names one");
        } else {
            tracing::info!(addresses = %list(&advertised), "advertising");
        }
        discovery
    }

    /// What packet workers need, if servers are asked.
    pub fn awaited(&self) -> Option<Arc<Awaited>> {
        (!self.servers.is_empty()).then(|| Arc::clone(&self.awaited))
    }

    /// Runs for ever. Questions are sent on the sockets of `pair`.
    pub async fn run(mut self, pair: Arc<SocketPair>) {
        if !self.endpoints.follows_host() && self.servers.is_empty() {
            // What the operator named does not change.
            return std::future::pending().await;
        }
        let (found, mut looked_up) = mpsc::channel::<Found>(self.servers.len().max(1));
        let mut refresh = std::pin::pin!(sleep(Duration::ZERO));
        loop {
            let now_ms = clock::monotonic_ms();
            let due = self.reflexive.due_ms().map(|due_ms| due_ms.saturating_sub(now_ms));
            tokio::select! {
                changed = changed(&mut self.changes) => {
                    if let Err(error) = changed {
                        tracing::warn!(%error, "changes of the host's addresses are no longer heard; polling");
                        self.changes = None;
                    }
                    sleep(QUIET).await;
                    self.look();
                }
                () = &mut refresh => {
                    self.look();
                    self.look_up(&found);
                    let again = if self.changes.is_some() { period() } else { POLL };
                    refresh.as_mut().reset(tokio::time::Instant::now() + again);
                }
                Some(answer) = self.answers.recv() => self.answered(answer),
                Some((nth, found)) = looked_up.recv() => self.found(nth, found),
                () = wait(due) => {}
            }
            self.ask(&pair);
            self.publish();
        }
    }

    /// Reads the host's addresses. If that fails, those of the last time stay.
    fn look(&mut self) {
        match links::read() {
            Ok(host) => {
                if host.addresses != self.host.addresses {
                    self.reflexive.hurry(clock::monotonic_ms());
                }
                (self.host, self.blind) = (host, false);
            }
            Err(error) if !self.blind => {
                tracing::warn!(%error, "the host's addresses cannot be read; those of before stay advertised");
                self.blind = true;
            }
            Err(_) => {}
        }
    }

    /// Starts a look-up of each name that is not being looked up, on threads of their own.
    fn look_up(&mut self, found: &mpsc::Sender<Found>) {
        for (nth, server) in self.servers.iter_mut().enumerate() {
            if let Ok(addr) = server.name.parse() {
                self.reflexive.resolved(&server.name, &[addr], clock::monotonic_ms());
            } else if !server.looking {
                server.looking = true;
                let (name, found) = (Arc::clone(&server.name), found.clone());
                tokio::task::spawn_blocking(move || {
                    let addresses = name.to_socket_addrs().map(Iterator::collect);
                    // There is room for one from each server; the other end is gone when the daemon ends.
                    let _ = found.try_send((nth, addresses));
                });
            }
        }
    }

    fn found(&mut self, nth: usize, found: std::io::Result<Vec<SocketAddr>>) {
        let Some(server) = self.servers.get_mut(nth) else { return };
        server.looking = false;
        match found {
            Ok(addresses) => {
                server.lost = false;
                self.reflexive.resolved(&server.name, &addresses, clock::monotonic_ms());
            }
            Err(error) => {
                if !server.lost {
                    tracing::warn!(server = %server.name, %error, "the STUN server's name is not found");
                }
                server.lost = true;
            }
        }
    }

    fn answered(&mut self, Answer { from, tx, addr }: Answer) {
        let now_ms = clock::monotonic_ms();
        let (_, news) = self.reflexive.answer(from, tx, addr, now_ms, |bytes| OsRng.fill_bytes(bytes));
        news.iter().for_each(tell);
    }

    /// Sends what is due.
    fn ask(&mut self, pair: &SocketPair) {
        let draw = |bytes: &mut [u8]| OsRng.fill_bytes(bytes);
        let (requests, news) = self.reflexive.step(clock::monotonic_ms(), draw);
        news.iter().for_each(tell);
        // First the workers know what is awaited, then it is asked.
        self.awaited.open.store(Arc::new(self.reflexive.open()));
        for Request { to, tx } in requests {
            let payload = stun::binding_request(tx);
            let flow = Flow { to, from: None, tos: 0 };
            let question = Piece { flow, len: payload.len(), segment: 0 };
            let mut sent = false;
            if let Some(socket) = pair.of(to) {
                let settle = |_, settled: Settled| sent = settled.loss.is_none();
                let now_ns = clock::monotonic_ns();
                self.sender.send(socket, [(0, question)].into_iter(), |_| &payload[..], now_ns, settle);
            }
            if !sent {
                tracing::debug!(%to, "a question to a STUN server was not sent; it is sent again");
            }
        }
    }

    /// Advertises what is known now, and says what that changes.
    fn publish(&mut self) {
        self.endpoints.set_questions(self.reflexive.questions().to_vec());
        let (came, went) = self.endpoints.update(&self.host, &self.reflexive.seen());
        if came.is_empty() && went.is_empty() {
            return;
        }
        if self.endpoints.advertised().is_empty() {
            tracing::warn!(went = %list(&went), "no address is left to advertise");
        } else {
            tracing::info!(came = %list(&came), went = %list(&went), "advertised addresses changed");
        }
    }
}

fn tell(news: &News) {
    match news {
        News::Answers(server) => tracing::info!(%server, "the STUN server answers"),
        News::Silent(server, to) => tracing::warn!(%server, %to, "the STUN server does not answer"),
        News::Forgotten(server, addr) => {
            tracing::warn!(%server, %addr, "the STUN server has not answered for 5 minutes; what it saw is dropped");
        }
    }
}

fn list(addresses: &[Advertised]) -> String {
    if addresses.is_empty() {
        return "none".to_owned();
    }
    let one = |Advertised { addr, source }: &Advertised| format!("{addr} ({source})");
    addresses.iter().map(one).collect::<Vec<_>>().join(", ")
}

async fn changed(changes: &mut Option<Changes>) -> std::io::Result<()> {
    match changes {
        Some(changes) => changes.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits for some milliseconds; `None`: for ever.
async fn wait(ms: Option<u64>) {
    match ms {
        Some(ms) => sleep(Duration::from_millis(ms)).await,
        None => std::future::pending().await,
    }
}

/// A random time from a refresh to the next, as upstream's.
fn period() -> Duration {
    Duration::from_millis(next_period(0, &mut |bytes: &mut [u8]| OsRng.fill_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_to_open_questions_are_handed_on() {
        let (answers, mut receiver) = mpsc::channel(1);
        let awaited = Awaited { open: ArcSwap::default(), answers };
        let (from, tx) = ("192.0.2.1:3478".parse().expect("an address"), TxId([7; 12]));
        let mut datagram = [0; stun::MAX_RESPONSE_LEN];
        let seen = "203.0.113.9:7777".parse().expect("an address");
        let len = stun::binding_response(tx, seen, &mut datagram);
        let datagram = &datagram[..len];
        assert_eq!(awaited.take(datagram, from), Counter::UdpStunDropped, "nothing was asked");
        awaited.open.store(Arc::new(vec![Request { to: from, tx }]));
        let elsewhere = "192.0.2.2:3478".parse().expect("an address");
        assert_eq!(awaited.take(datagram, elsewhere), Counter::UdpStunDropped);
        assert_eq!(awaited.take(&datagram[..len - 1], from), Counter::UdpStunDropped, "cut short");
        assert_eq!(awaited.take(&stun::binding_request(tx), from), Counter::UdpStunDropped, "no answer");
        assert!(receiver.try_recv().is_err());
        assert_eq!(awaited.take(datagram, from), Counter::UdpStunAnswers);
        assert_eq!(awaited.take(datagram, from), Counter::UdpStunDropped, "the task has not read the first");
        let answer = receiver.try_recv().expect("handed on");
        assert_eq!((answer.from, answer.tx, answer.addr), (from, tx, seen));
    }
}
