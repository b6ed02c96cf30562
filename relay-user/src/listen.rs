//! From an accepted socket to a login: transport, first request, and where it leads.

pub mod http;
pub mod pages;
pub mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};

use self::http::{Head, HeadError};
use self::pages::Route;
use crate::conn::login::login;
use crate::conn::parting::part;
use crate::conn::stream::plain::PlainStream;
use crate::conn::stream::{Stream, recv_into, send_all};
use crate::observe::counters::Counter;
use crate::relay::Relay;
use crate::tls::stream::TlsStream;

/// How long a client may take for its TLS handshake and each request (upstream's HTTP read timeout).
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// Requests on one connection before it is closed: probes send a few.
const REQUESTS_PER_CONNECTION: usize = 16;

/// Pause after a failed accept: the usual cause is that all file descriptors are taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener serves.
#[derive(Clone, Debug)]
pub enum Service {
    /// DERP and its pages over TLS.
    Tls(Arc<ServerConfig>),
    /// DERP and its pages over plain TCP, as derper's `-dev`.
    Plain,
    /// The plain companion of a TLS listener: captive-portal checks and a redirect, no DERP.
    Companion,
}

/// Accepts connections for ever; each gets a task of its own.
pub async fn serve(listener: TcpListener, service: Service, relay: Arc<Relay>) {
    loop {
        match listener.accept().await {
            Ok((tcp, remote)) => {
                relay.counters.add(Counter::Accepts, 1);
                tokio::spawn(connection(tcp, tcp::unmapped(remote), service.clone(), Arc::clone(&relay)));
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(tcp: TcpStream, remote: SocketAddr, service: Service, relay: Arc<Relay>) {
    if let Err(error) = tcp::tune(&tcp) {
        tracing::debug!(%remote, %error, "cannot set socket options");
    }
    match service {
        Service::Tls(config) => match TlsStream::new(tcp, config) {
            Ok(stream) => requests(stream, remote, true, relay).await,
            Err(error) => tracing::warn!(%error, "TLS cannot serve"),
        },
        Service::Plain => requests(PlainStream::new(tcp), remote, true, relay).await,
        Service::Companion => requests(PlainStream::new(tcp), remote, false, relay).await,
    }
}

/// Answers requests until one of them turns the connection into DERP.
async fn requests<S: Stream>(mut stream: S, remote: SocketAddr, derp: bool, relay: Arc<Relay>) {
    let mut read = Vec::new();
    for _ in 0..REQUESTS_PER_CONNECTION {
        let head = match tokio::time::timeout(REQUEST_DEADLINE, read_head(&mut stream, &mut read)).await {
            Ok(Ok(head)) => head,
            Ok(Err(error)) => return refuse(stream, error, &relay).await,
            Err(_) => return relay.counters.add(Counter::HttpMalformed, 1),
        };
        let route = if derp { pages::route(&head) } else { pages::companion_route(&head) };
        match route {
            Route::Derp { fast_start } => {
                let preamble = if fast_start { Vec::new() } else { pages::switching(&relay.public) };
                return run(stream, preamble, read, remote, relay).await;
            }
            Route::Page(answer) => {
                relay.counters.add(Counter::HttpRequests, 1);
                let keep = head.keep_alive && !answer.close;
                if send_all(&mut stream, &answer.encode(keep, head.is_head())).await.is_err() || !keep {
                    break;
                }
            }
        }
    }
    part(stream).await;
}

async fn run<S: Stream>(stream: S, preamble: Vec<u8>, read: Vec<u8>, remote: SocketAddr, relay: Arc<Relay>) {
    let connection = match login(stream, preamble, read, remote, &relay).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%remote, %error, "login failed"),
    };
    // A task of its own: the one that this is part of has grown to what a handshake needs.
    tokio::spawn(connection);
}

/// Reads one request head and leaves in `read` what came behind it.
async fn read_head<S: Stream>(stream: &mut S, read: &mut Vec<u8>) -> Result<Head, HeadError> {
    loop {
        if let Some((head, len)) = http::parse(read)? {
            read.drain(..len);
            return Ok(head);
        }
        recv_into(stream, read).await?;
    }
}

async fn refuse<S: Stream>(mut stream: S, error: HeadError, relay: &Relay) {
    let Some(answer) = pages::refusal(&error) else {
        relay.counters.add(Counter::HttpTransport, 1);
        // If it was the client who broke the rules of TLS, an alert tells it so.
        return part(stream).await;
    };
    relay.counters.add(Counter::HttpMalformed, 1);
    // The peer spoke nonsense; whether it hears the answer is its business.
    let _ = tokio::time::timeout(REQUEST_DEADLINE, send_all(&mut stream, &answer.encode(false, false))).await;
    part(stream).await;
}
