//! `GET /v1/clients` and `GET /v1/sessions`. The daemon filters and limits the lists itself. It works in
//! slices: between two slices other threads can use the table, and other questions can use this thread.
//!
//! | parameter | meaning |
//! |---|---|
//! | `filter` | see [`Filter`]; absent: all |
//! | `limit` | how many to list; absent or 0: all |
//!
//! The body has the list; a header [`TOTALS`] has the totals of all matches, listed or not.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::filter::{Filter, FilterError};
use super::view::{ClientView, SessionView};
use super::{Failure, Parts};
use crate::clock;
use crate::relay::Relay;

/// The header that holds [`ClientTotals`] or [`SessionTotals`] as JSON.
pub const TOTALS: &str = "relayd-totals";

/// Clients handled before other questions are served.
const SLICE: usize = 128;

/// Totals of the clients that pass the filter, listed or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTotals {
    /// Number of clients.
    pub clients: usize,
    /// Packets that they sent.
    pub packets_in: u64,
    /// Payload bytes of the packets that they sent.
    pub bytes_in: u64,
    /// Packets written to them.
    pub packets_out: u64,
    /// Payload bytes of the packets written to them.
    pub bytes_out: u64,
}

/// Totals of the sessions that pass the filter, listed or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTotals {
    /// Number of sessions.
    pub sessions: usize,
    /// Sessions with both legs bound.
    pub bound: usize,
    /// Sessions that the kernel forwards.
    pub installed: usize,
    /// Packets that userspace forwarded.
    pub packets: u64,
    /// UDP payload bytes that userspace forwarded.
    pub bytes: u64,
    /// Packets that XDP forwarded.
    pub xdp_packets: u64,
    /// UDP payload bytes that XDP forwarded.
    pub xdp_bytes: u64,
}

/// The query of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Query {
    filter: Filter,
    limit: usize,
}

/// A JSON array that grows slice by slice. Writing a long one at the end would block the thread for a long
/// time.
struct List {
    json: Vec<u8>,
    len: usize,
    limit: usize,
}

type ListAnswer = Result<([(HeaderName, String); 2], Vec<u8>), Failure>;

pub(super) async fn clients(State(daemon): State<Arc<Parts>>, RawQuery(query): RawQuery) -> ListAnswer {
    let query = Query::parse(query.as_deref(), Filter::of_clients)?;
    let now_ms = clock::monotonic_ms();
    let (json, totals) = list_clients(&daemon.relay, &query, now_ms).await.map_err(internal)?;
    Ok((headers(&totals)?, json))
}

pub(super) async fn sessions(State(daemon): State<Arc<Parts>>, RawQuery(query): RawQuery) -> ListAnswer {
    let query = Query::parse(query.as_deref(), Filter::of_sessions)?;
    let now_ns = clock::monotonic_ns();
    let (json, totals) = list_sessions(&daemon.relay, &query, now_ns).await.map_err(internal)?;
    Ok((headers(&totals)?, json))
}

async fn list_clients(
    relay: &Relay,
    query: &Query,
    now_ms: u64,
) -> serde_json::Result<(Vec<u8>, ClientTotals)> {
    // Only handles are collected under the map's locks: a login does not wait for the text about a client.
    let mut peers = Vec::with_capacity(relay.router.client_count());
    relay.router.for_each_peer(|peer| peers.push(Arc::clone(peer)));
    peers.sort_unstable_by_key(|peer| (peer.key, peer.remote));
    let (mut list, mut totals) = (List::new(query.limit), ClientTotals::default());
    for slice in peers.chunks(SLICE) {
        for peer in slice.iter().filter(|peer| query.filter.client(peer)) {
            let client = ClientView::of(peer, now_ms);
            totals.clients += 1;
            totals.packets_in += client.packets_in;
            totals.bytes_in += client.bytes_in;
            totals.packets_out += client.packets_out;
            totals.bytes_out += client.bytes_out;
            list.push(&client)?;
        }
        tokio::task::yield_now().await;
    }
    Ok((list.end(), totals))
}

async fn list_sessions(
    relay: &Relay,
    query: &Query,
    now_ns: u64,
) -> serde_json::Result<(Vec<u8>, SessionTotals)> {
    let (mut list, mut totals) = (List::new(query.limit), SessionTotals::default());
    let (mut slice, mut last) = (Vec::new(), 0);
    loop {
        let wanted = |session: &_| query.filter.session(session);
        let end = relay.router.sessions_after(last, wanted, |session, kernel| {
            slice.push(SessionView::of(session, kernel.as_ref(), now_ns));
        });
        // Done after the table's lock is released.
        for session in slice.drain(..) {
            totals.sessions += 1;
            totals.bound += usize::from(session.bound);
            totals.installed += usize::from(session.installed);
            for leg in &session.legs {
                totals.packets += leg.packets;
                totals.bytes += leg.bytes;
                totals.xdp_packets += leg.xdp_packets;
                totals.xdp_bytes += leg.xdp_bytes;
            }
            list.push(&session)?;
        }
        let Some(end) = end else { return Ok((list.end(), totals)) };
        last = end;
        tokio::task::yield_now().await;
    }
}

impl List {
    fn new(limit: usize) -> Self {
        Self { json: b"[".to_vec(), len: 0, limit }
    }

    /// Appends `item`, unless the list is full; limit 0: the list is never full.
    fn push(&mut self, item: &impl Serialize) -> serde_json::Result<()> {
        if self.limit > 0 && self.len >= self.limit {
            return Ok(());
        }
        if self.len > 0 {
            self.json.push(b',');
        }
        self.len += 1;
        serde_json::to_writer(&mut self.json, item)
    }

    fn end(mut self) -> Vec<u8> {
        self.json.push(b']');
        self.json
    }
}

impl Query {
    fn parse(
        text: Option<&str>,
        filter: impl Fn(&str) -> Result<Filter, FilterError>,
    ) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::new(StatusCode::BAD_REQUEST, why);
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            match &*name {
                "filter" => query.filter = filter(&value).map_err(|error| wrong(error.to_string()))?,
                "limit" => {
                    let limit = value.parse();
                    query.limit = limit.map_err(|_| wrong(format!("limit={value} is no number; 0: all")))?;
                }
                other => return Err(wrong(format!("no parameter {other:?}; there are filter and limit"))),
            }
        }
        Ok(query)
    }
}

/// The path and query that ask `path` for the entries that match `filter`, at most `limit`; 0: all.
pub fn path(path: &str, filter: Option<&str>, limit: usize) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(filter) = filter {
        query.append_pair("filter", filter);
    }
    query.append_pair("limit", &limit.to_string());
    format!("{path}?{}", query.finish())
}

fn headers(totals: &impl Serialize) -> Result<[(HeaderName, String); 2], Failure> {
    let totals = serde_json::to_string(totals).map_err(internal)?;
    let json = (header::CONTENT_TYPE, "application/json".to_owned());
    Ok([json, (HeaderName::from_static(TOTALS), totals)])
}

fn internal(error: serde_json::Error) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use relay_common::key::{DiscoPublic, NodePrivate};

    use super::*;
    use crate::observe::counters::Counters;
    use crate::route::Router;
    use crate::route::sessions::Limits;

    #[test]
    fn what_the_command_line_asks_is_what_the_daemon_reads() {
        let asked = path("/v1/clients", Some("app:a b&c=ä"), 5);
        let (path, query) = asked.split_once('?').expect("a query");
        assert_eq!(path, "/v1/clients");
        let read = Query::parse(Some(query), Filter::of_clients).ok().expect("a query of ours");
        assert_eq!(read, Query { filter: Filter::App("a b&c=ä".to_owned()), limit: 5 });
        assert_eq!(Query::parse(None, Filter::of_clients).ok(), Some(Query::default()));
    }

    #[test]
    fn what_is_no_parameter_is_refused() {
        for wrong in ["limit=-1", "limit=", "limits=3", "filter=vni:7"] {
            assert!(Query::parse(Some(wrong), Filter::of_clients).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_list_is_cut_here_its_totals_are_whole_and_others_get_their_turn() {
        const SESSIONS: u32 = 300;
        let server = NodePrivate::from_bytes([1; 32]);
        let limits = Limits { max_sessions: SESSIONS, bind_lifetime_ns: 1, ..Limits::default() };
        let router = Router::new(limits, None);
        let relay = Relay::new(router, Counters::default(), server, Duration::ZERO, u64::MAX);
        for n in 1..=SESSIONS {
            let mut key = [9; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            let pair = [key, key.map(|byte| !byte)].map(DiscoPublic::from_bytes);
            relay.router.allocate(pair, 1).expect("there is room");
        }
        let turns = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let query = Query { filter: Filter::All, limit: 2 };
        let (list, totals) = listed(&relay, &query).await;
        other.abort();
        assert_eq!((list.len(), totals.sessions), (2, 300));
        assert!(turns.load(Ordering::Relaxed) >= 3, "a turn for each slice");
        let query = Query { filter: Filter::Vni(299), limit: 0 };
        let (list, totals) = listed(&relay, &query).await;
        assert_eq!((list[0].vni, list.len(), totals.sessions), (299, 1, 1));
        assert_eq!(listed(&relay, &Query::default()).await.0.len(), 300);
        assert_eq!(listed(&relay, &Query { filter: Filter::Vni(999), limit: 0 }).await.0.len(), 0);
    }

    async fn listed(relay: &Relay, query: &Query) -> (Vec<SessionView>, SessionTotals) {
        let (json, totals) = list_sessions(relay, query, 1).await.expect("JSON");
        (serde_json::from_slice(&json).expect("a list"), totals)
    }
}
