//! From an accepted socket to a login: transport, first request, and the answer to it.

pub mod door;
pub mod http;
pub mod pages;
pub mod tcp;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

use self::door::{Door, PendingPlace};
use self::http::{Head, HeadError};
use self::pages::PageRoute;
use crate::clock;
use crate::conn::login::{Greeting, login};
use crate::conn::task::Task;
use crate::files::Limit;
use crate::host::unmapped;
use crate::log::brief;
use crate::observe::counters::Counter;
use crate::observe::seldom::Seldom;
use crate::relay::Relay;
use crate::transport::parting::part;
use crate::transport::plain::PlainStream;
use crate::transport::tls::stream::TlsStream;
use crate::transport::{Stream, recv_into, send_all};
use crate::workers::{Pool, here};

/// How long a client may take for its TLS handshake and first request, for each further request, and to take
/// an answer (upstream's HTTP read and write timeouts).
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// How long all of a connection's requests may take together: its place at the door is meant for logins.
const PENDING_DEADLINE: Duration = Duration::from_secs(60);

/// Requests on one connection before it is closed: probes send only a few.
const REQUESTS_PER_CONNECTION: usize = 16;

/// Pause after a failed accept: the usual cause is that all file descriptors are taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The service of a listener.
#[derive(Clone, Debug)]
pub enum Service {
    /// DERP and its pages over TLS.
    Tls(Arc<ServerConfig>),
    /// DERP and its pages over plain TCP, as derper's `-dev`.
    Plain,
    /// The plain companion of a TLS listener: captive-portal checks and a redirect, no DERP.
    Companion,
}

/// Accepts connections for ever; each connection that the door admits gets its own task. Run this on a
/// worker: as long as this worker is enough for the load, no connection changes its thread.
pub async fn serve(
    listener: std::net::TcpListener,
    service: Service,
    door: Arc<Door>,
    relay: Arc<Relay>,
    pool: Arc<Pool>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot wait for connections"),
    };
    let failures = Seldom::default();
    loop {
        match listener.accept().await {
            Ok((tcp, remote)) => admit(tcp, unmapped(remote), &service, &door, &relay, &pool),
            Err(error) => {
                relay.counters.add(Counter::AcceptFailed, 1);
                if is_of_one_connection(&error) {
                    tracing::debug!(%error, "a connection went away before it was accepted");
                    continue;
                }
                if let Some(left_out) = failures.note(clock::monotonic_ms()) {
                    let remedy = "if files are short, raise LimitNOFILE= of the service or fs.file-max";
                    tracing::warn!(%error, left_out, "cannot accept connections; {remedy}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether an accept failed because of that one connection, so that the next one may be accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    // A firewall rule causes "not permitted".
    let kinds = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset, ErrorKind::PermissionDenied];
    kinds.contains(&error.kind())
}

fn admit(
    tcp: TcpStream,
    remote: SocketAddr,
    service: &Service,
    door: &Arc<Door>,
    relay: &Arc<Relay>,
    pool: &Arc<Pool>,
) {
    relay.counters.add(Counter::Accepts, 1);
    let limit = Limit::get().unwrap_or(Limit::UNKNOWN);
    match door.admit(tcp.as_raw_fd(), limit, remote.ip()) {
        Ok(place) => {
            let accepted = Accepted { tcp, on: here(), remote };
            let (relay, served) = (Arc::clone(relay), Arc::clone(pool));
            pool.least().spawn(connection(accepted, service.clone(), place, relay, served));
        }
        Err(refusal) => door.tell(refusal, remote.ip(), &relay.counters, clock::monotonic_ms()),
    }
}

/// An accepted connection, and the worker that accepted it.
struct Accepted {
    tcp: TcpStream,
    on: Option<usize>,
    remote: SocketAddr,
}

async fn connection(
    Accepted { tcp, on, remote }: Accepted,
    service: Service,
    place: PendingPlace,
    relay: Arc<Relay>,
    pool: Arc<Pool>,
) {
    let tcp = match tcp::take_over(tcp, on) {
        Ok(tcp) => tcp,
        Err(error) => {
            relay.counters.add(Counter::AcceptFailed, 1);
            return tracing::debug!(%remote, %error, "cannot take a connection over; it is closed");
        }
    };
    match service {
        Service::Tls(config) => match TlsStream::new(tcp, config) {
            Ok(stream) => requests(stream, remote, true, place, relay, pool).await,
            Err(error) => {
                relay.counters.add(Counter::HttpTransport, 1);
                tracing::debug!(%remote, %error, "TLS cannot serve");
            }
        },
        Service::Plain => requests(PlainStream::new(tcp), remote, true, place, relay, pool).await,
        Service::Companion => requests(PlainStream::new(tcp), remote, false, place, relay, pool).await,
    }
}

/// Answers requests until one of them turns the connection into DERP.
async fn requests<S: Stream + Unpin + Send + 'static>(
    mut stream: S,
    remote: SocketAddr,
    derp: bool,
    place: PendingPlace,
    relay: Arc<Relay>,
    pool: Arc<Pool>,
) {
    let end = Instant::now() + PENDING_DEADLINE;
    let deadline = || end.min(Instant::now() + REQUEST_DEADLINE);
    let mut read = Vec::new();
    for answered in 0..REQUESTS_PER_CONNECTION {
        let head = timeout_at(deadline(), read_head(&mut stream, &mut read)).await;
        // Between two requests each side may close: a connection with answers ends normally so.
        let is_between = answered > 0 && read.is_empty();
        let head = match head {
            Ok(Ok(head)) => head,
            Ok(Err(HeadError::Io(error))) if is_between && is_goodbye(&error) => break,
            Ok(Err(error)) => {
                tracing::debug!(%remote, error = %brief(&error), "no request");
                return refuse(stream, error, deadline(), &relay).await;
            }
            Err(_) if is_between => break,
            Err(_) => {
                tracing::debug!(%remote, "no request within {} s", REQUEST_DEADLINE.as_secs());
                return relay.counters.add(Counter::HttpTimeout, 1);
            }
        };
        let route = if derp { pages::route(&head) } else { pages::companion_route(&head) };
        match route {
            PageRoute::Derp { fast_start } => {
                let preamble = if fast_start { Vec::new() } else { pages::switching(&relay.public) };
                let greeting = Greeting { preamble, read, remote, not_ideal: head.not_ideal };
                return run(stream, greeting, place, relay, pool).await;
            }
            PageRoute::Page(answer) => {
                relay.counters.add(Counter::HttpRequests, 1);
                let keep = head.keep_alive && !answer.close && answered + 1 < REQUESTS_PER_CONNECTION;
                let bytes = answer.encode(keep, head.is_head(), SystemTime::now());
                match timeout_at(deadline(), send_all(&mut stream, &bytes)).await {
                    Ok(Ok(())) if keep => {}
                    Ok(_) => break,
                    Err(_) => return relay.counters.add(Counter::HttpTimeout, 1),
                }
            }
        }
    }
    part(&mut stream).await;
}

/// Whether the error only means that the client has left because it needs nothing more.
fn is_goodbye(error: &io::Error) -> bool {
    let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
    kinds.contains(&error.kind())
}

async fn run<S: Stream + Unpin + Send + 'static>(
    stream: S,
    greeting: Greeting,
    place: PendingPlace,
    relay: Arc<Relay>,
    pool: Arc<Pool>,
) {
    let remote = greeting.remote;
    let connection = match login(stream, greeting, &relay).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%remote, error = %brief(&error), "login failed"),
    };
    drop(place);
    // A separate task: the present task has grown to the size that a handshake needs.
    Task::start(connection, pool);
}

/// Reads one request head; the bytes after it stay in `read`.
async fn read_head<S: Stream>(stream: &mut S, read: &mut Vec<u8>) -> Result<Head, HeadError> {
    loop {
        if let Some((head, len)) = http::parse(read)? {
            read.drain(..len);
            return Ok(head);
        }
        recv_into(stream, read).await?;
    }
}

async fn refuse<S: Stream>(mut stream: S, error: HeadError, deadline: Instant, relay: &Relay) {
    let Some(answer) = pages::refusal(&error) else {
        relay.counters.add(Counter::HttpTransport, 1);
        // If the client broke the rules of TLS, an alert tells it so.
        return part(&mut stream).await;
    };
    relay.counters.add(Counter::HttpMalformed, 1);
    // The request was not valid; the relay does not check whether the peer receives the answer.
    let bytes = answer.encode(false, false, SystemTime::now());
    let _ = timeout_at(deadline, send_all(&mut stream, &bytes)).await;
    part(&mut stream).await;
}

#[cfg(test)]
mod tests;
