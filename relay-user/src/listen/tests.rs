//! How long a client can hold a place at the door, on a clock that the test controls.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::task::{Context, Poll};

use rand_core::OsRng;
use relay_common::key::{DiscoPrivate, NodePrivate};
use tokio::time::Sleep;

use super::door::{Caps, DoorRefusal};
use super::*;
use crate::observe::counters::Counters;
use crate::route::Router;
use crate::route::sessions::Limits;
use crate::transport::ReadResult;
use crate::workers::Workers;

const REMOTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// A client that sends several texts, each after a delay.
struct Client {
    says: VecDeque<(Duration, &'static str)>,
    waiting: Option<std::pin::Pin<Box<Sleep>>>,
    /// Whether it reads what it is sent.
    listens: bool,
    unsent: usize,
}

impl Client {
    fn new(says: impl IntoIterator<Item = (u64, &'static str)>) -> Self {
        let says = says.into_iter().map(|(after, text)| (Duration::from_secs(after), text)).collect();
        Self { says, waiting: None, listens: true, unsent: 0 }
    }
}

impl Stream for Client {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Poll<io::Result<ReadResult>> {
        let Some((after, text)) = self.says.front() else { return Poll::Pending };
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(*after)));
        std::task::ready!(waiting.as_mut().poll(cx));
        let _ = sink(text.as_bytes());
        self.waiting = None;
        self.says.pop_front();
        Poll::Ready(Ok(ReadResult::Bytes))
    }

    fn send(
        &mut self,
        _cx: &mut Context<'_>,
        plaintext: &mut dyn Iterator<Item = &[u8]>,
        _more: bool,
    ) -> io::Result<()> {
        self.unsent = if self.listens { 0 } else { plaintext.map(<[u8]>::len).sum() };
        Ok(())
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn unsent(&self) -> usize {
        self.unsent
    }

    fn unsent_plaintext(&self) -> usize {
        self.unsent
    }

    fn close(&mut self, _cx: &mut Context<'_>) {}

    fn poll_part(&mut self, _cx: &mut Context<'_>, _left: &mut usize) -> Poll<()> {
        Poll::Ready(())
    }

    fn rehome(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn protocol(&self) -> &'static str {
        "test"
    }
}

/// Serves a client to its end; returns the seconds that this took, and the counters.
async fn served(client: Client) -> (u64, Counters) {
    let limits = Limits {
        max_sessions: 1,
        bind_lifetime_ns: 1,
        steady_lifetime_ns: 1,
        server: DiscoPrivate::generate(&mut OsRng).public(),
    };
    let key = NodePrivate::generate(&mut OsRng);
    let relay = Relay::new(Router::new(limits, None), Counters::default(), key, Duration::ZERO, u64::MAX);
    let (relay, door) = (Arc::new(relay), Arc::new(Door::new(Caps { pending: 1, per_source: 1 })));
    let mut workers = Workers::default();
    let pool = workers.start(1, Duration::ZERO).expect("a thread");
    let admit = || door.admit(5, Limit::UNKNOWN, REMOTE);
    let (place, start) = (admit().expect("the first"), Instant::now());
    assert_eq!(admit().expect_err("the place is taken"), DoorRefusal::Pending);
    requests(client, (REMOTE, 1).into(), true, place, Arc::clone(&relay), pool).await;
    admit().expect("the place is free");
    let seconds = start.elapsed().as_secs();
    tokio::task::spawn_blocking(|| drop(workers)).await.expect("no panic");
    (seconds, Arc::into_inner(relay).expect("nobody else has it").counters)
}

const PROBE: &str = "GET /derp/probe HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_cut_at_the_deadline() {
    let (seconds, counters) = served(Client::new([])).await;
    assert_eq!((seconds, counters.get(Counter::HttpTimeout)), (30, 1));
    assert_eq!(counters.get(Counter::HttpMalformed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_a_byte_now_and_then_gains_nothing_by_it() {
    let (seconds, counters) = served(Client::new((0..100).map(|_| (1, "G")))).await;
    assert_eq!((seconds, counters.get(Counter::HttpTimeout)), (30, 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_kept_alive_ends_quietly() {
    let (seconds, counters) = served(Client::new([(5, PROBE)])).await;
    assert_eq!((seconds, counters.get(Counter::HttpRequests)), (35, 1));
    for failure in [Counter::HttpTimeout, Counter::HttpMalformed, Counter::HttpTransport] {
        assert_eq!(counters.get(failure), 0, "{}", failure.label());
    }
}

#[tokio::test(start_paused = true)]
async fn requests_in_time_do_not_hold_a_place_for_ever() {
    let (seconds, counters) = served(Client::new((0..100).map(|_| (20, PROBE)))).await;
    assert_eq!(seconds, 60);
    assert!((2..=3).contains(&counters.get(Counter::HttpRequests)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_answer_is_cut_at_the_deadline() {
    let client = Client { listens: false, ..Client::new([(5, PROBE)]) };
    let (seconds, counters) = served(client).await;
    assert_eq!((seconds, counters.get(Counter::HttpTimeout)), (35, 1));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_does_not_come_is_cut_at_its_deadline() {
    let upgrade = "GET /derp HTTP/1.1\r\nHost: a\r\nUpgrade: derp\r\n\r\n";
    let (seconds, counters) = served(Client::new([(5, upgrade)])).await;
    assert_eq!((seconds, counters.get(Counter::LoginTimeout)), (15, 1));
}
