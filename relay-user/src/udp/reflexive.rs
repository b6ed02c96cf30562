//! Asks STUN servers at which address they see the relay (RFC 8489: its server-reflexive address). This
//! module uses no socket; the caller passes the time and what is random.
//!
//! Each server is asked once over each family that it has an address of. A question is sent up to five times,
//! at growing distances, and asked anew 20 to 26 seconds after the last, as upstream does: many NATs forget
//! after 30. An answer counts only from the address that was asked, with the transaction that was sent. What
//! a server saw is forgotten when it has not answered for five minutes.

use std::net::SocketAddr;
use std::sync::Arc;

use relay_common::stun::TxId;

/// Milliseconds after which a question is sent again for the first time; each next time twice as many.
const FIRST_WAIT_MS: u64 = 250;

/// How often a question is sent: at 0, 0.25, 0.75, 1.75 and 3.75 seconds. After 7.75 it has no answer.
const TRIES: u32 = 5;

/// Milliseconds from a question to the next, at least and at most.
const PERIOD_MS: (u64, u64) = (20_000, 26_000);

/// Milliseconds between two questions if the host's addresses change, at least.
const HURRY_MS: u64 = 5_000;

/// Milliseconds for which the word of a server that has stopped answering counts.
const KEEP_MS: u64 = 300_000;

/// An address at which a server sees the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The server, as the operator named it.
    pub server: Arc<str>,
    /// Where it sees the relay.
    pub addr: SocketAddr,
}

/// A question to a server over one family.
#[derive(Clone, Debug)]
pub struct Question {
    /// The server, as the operator named it.
    pub server: Arc<str>,
    /// Whether it is asked over IPv4.
    pub v4: bool,
    /// The server's address; `None`: it has none of this family, or its name has not been found yet.
    pub to: Option<SocketAddr>,
    /// Where it saw the relay, and when, in milliseconds.
    pub seen: Option<(SocketAddr, u64)>,
    /// Whether the last question was given up.
    pub silent: bool,
    tx: Option<TxId>,
    tries: u32,
    /// When the present question was first asked.
    asked_ms: u64,
    /// When there is something to do about it.
    due_ms: u64,
}

/// A request to send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The server.
    pub to: SocketAddr,
    /// The transaction.
    pub tx: TxId,
}

/// News of a server, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It answers, for the first time or again.
    Answers(Arc<str>),
    /// It has stopped answering, or never has.
    Silent(Arc<str>, SocketAddr),
    /// It has not answered for so long that what it saw is forgotten.
    Forgotten(Arc<str>, SocketAddr),
}

/// All questions.
#[derive(Debug, Default)]
pub struct Reflexive {
    questions: Vec<Question>,
}

impl Reflexive {
    /// Asks these servers, as soon as their addresses are known.
    pub fn new(servers: &[Arc<str>], with_v6: bool) -> Self {
        let of = |server: &Arc<str>| {
            let (first, second) = (Question::new(server, true), Question::new(server, false));
            std::iter::once(first).chain(with_v6.then_some(second))
        };
        Self { questions: servers.iter().flat_map(of).collect() }
    }

    /// Sets the addresses of a server; of each family, the first is asked.
    pub fn resolved(&mut self, server: &str, addresses: &[SocketAddr], now_ms: u64) {
        for question in self.questions.iter_mut().filter(|question| *question.server == *server) {
            let to = addresses.iter().find(|addr| addr.is_ipv4() == question.v4).copied();
            if to != question.to {
                (question.to, question.tx, question.due_ms) = (to, None, now_ms);
            }
        }
    }

    /// Asks anew soon, since the host's addresses have changed.
    pub fn hurry(&mut self, now_ms: u64) {
        for question in self.questions.iter_mut().filter(|question| question.tx.is_none()) {
            question.due_ms = question.due_ms.min(now_ms.max(question.asked_ms + HURRY_MS));
        }
    }

    /// Does what is due. `draw` fills in random bytes.
    pub fn step(&mut self, now_ms: u64, mut draw: impl FnMut(&mut [u8])) -> (Vec<Request>, Vec<News>) {
        let (mut requests, mut news) = (Vec::new(), Vec::new());
        for question in &mut self.questions {
            question.step(now_ms, &mut draw, &mut requests, &mut news);
        }
        (requests, news)
    }

    /// When [`Self::step`] has something to do; `None`: not before something happens.
    pub fn due_ms(&self) -> Option<u64> {
        self.questions.iter().filter_map(Question::next_ms).min()
    }

    /// Handles an answer from `from` that saw the relay at `addr`. Returns whether it was to an open
    /// question.
    pub fn answer(
        &mut self,
        from: SocketAddr,
        tx: TxId,
        addr: SocketAddr,
        now_ms: u64,
        mut draw: impl FnMut(&mut [u8]),
    ) -> (bool, Option<News>) {
        let mut questions = self.questions.iter_mut();
        let Some(question) = questions.find(|open| open.to == Some(from) && open.tx == Some(tx)) else {
            return (false, None);
        };
        if addr.is_ipv4() != question.v4 || !is_plausible(addr) {
            return (false, None);
        }
        let is_news = question.silent || question.seen.is_none();
        (question.seen, question.silent, question.tx) = (Some((addr, now_ms)), false, None);
        question.due_ms = next_period(now_ms, &mut draw);
        (true, is_news.then(|| News::Answers(Arc::clone(&question.server))))
    }

    /// Where the servers see the relay, in the order in which they were named.
    pub fn seen(&self) -> Vec<Seen> {
        let seen =
            |question: &Question| Some(Seen { server: question.server.clone(), addr: question.seen?.0 });
        self.questions.iter().filter_map(seen).collect()
    }

    /// The open questions: whose answers are awaited, and to which transaction.
    pub fn open(&self) -> Vec<Request> {
        let open = |question: &Question| Some(Request { to: question.to?, tx: question.tx? });
        self.questions.iter().filter_map(open).collect()
    }

    /// All questions, for the status.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }
}

impl Question {
    fn new(server: &Arc<str>, v4: bool) -> Self {
        let server = Arc::clone(server);
        Self { server, v4, to: None, seen: None, silent: false, tx: None, tries: 0, asked_ms: 0, due_ms: 0 }
    }

    fn next_ms(&self) -> Option<u64> {
        let expires_ms = self.seen.map(|(_, at_ms)| at_ms + KEEP_MS);
        let due_ms = self.to.map(|_| self.due_ms);
        [due_ms, expires_ms].into_iter().flatten().min()
    }

    fn step(
        &mut self,
        now_ms: u64,
        draw: &mut impl FnMut(&mut [u8]),
        requests: &mut Vec<Request>,
        news: &mut Vec<News>,
    ) {
        if let Some((addr, at_ms)) = self.seen
            && now_ms >= at_ms + KEEP_MS
        {
            self.seen = None;
            news.push(News::Forgotten(Arc::clone(&self.server), addr));
        }
        let Some(to) = self.to.filter(|_| now_ms >= self.due_ms) else { return };
        let tx = match self.tx {
            Some(_) if self.tries >= TRIES => {
                if !self.silent {
                    news.push(News::Silent(Arc::clone(&self.server), to));
                }
                (self.silent, self.tx) = (true, None);
                self.due_ms = next_period(self.asked_ms, draw).max(now_ms);
                return;
            }
            Some(tx) => tx,
            None => {
                let mut tx = [0; 12];
                draw(&mut tx);
                (self.tries, self.asked_ms) = (0, now_ms);
                TxId(tx)
            }
        };
        requests.push(Request { to, tx });
        self.due_ms = now_ms + (FIRST_WAIT_MS << self.tries);
        (self.tx, self.tries) = (Some(tx), self.tries + 1);
    }
}

/// Whether a server can see a relay at this address. One that tells less is broken, or not what it says it
/// is.
fn is_plausible(addr: SocketAddr) -> bool {
    let ip = addr.ip();
    let nowhere = match ip {
        std::net::IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    addr.port() != 0 && !nowhere && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// A random time in the period after `now_ms`.
pub(super) fn next_period(now_ms: u64, draw: &mut impl FnMut(&mut [u8])) -> u64 {
    let (least, most) = PERIOD_MS;
    let mut random = [0; 8];
    draw(&mut random);
    now_ms + least + u64::from_ne_bytes(random) % (most - least + 1)
}

#[cfg(test)]
mod tests;
