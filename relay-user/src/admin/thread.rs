//! The thread that serves the admin socket. It is a separate thread, so that it answers even when the workers
//! are busy, and so that a long answer blocks no worker.
//!
//! A client that sends no request, stops half way or does not read its answer loses its connection after some
//! seconds, and so cannot keep other clients from asking.

use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::{Failure, Parts, routes};
use crate::threads::event_loop::EventLoop;

/// Connections served at the same time; further ones wait in the socket's backlog.
const CONNECTIONS: usize = 32;

/// How long a client may take to send a request's head, counted from its connect or the last answer.
const HEAD: Duration = Duration::from_secs(3);

/// How long it may take to read a request's body and to make the answer.
const REQUEST: Duration = Duration::from_secs(10);

/// After this time a connection gets no new answers, and has [`REQUEST`] more to take the pending one.
const LIFE: Duration = Duration::from_secs(30);

/// Pause before the next try if no connection could be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` on a new thread, which releases the daemon's parts when it ends. The future is done
/// then.
///
/// # Errors
/// The thread could not be started.
pub fn start(
    listener: UnixListener,
    daemon: Arc<Parts>,
) -> anyhow::Result<(EventLoop, impl Future<Output = ()> + Send + 'static)> {
    listener.set_nonblocking(true).context("cannot prepare the admin socket")?;
    let started = EventLoop::start(
        "relayd-admin",
        || Ok((listener, daemon)),
        async |(listener, daemon)| {
            if let Err(error) = serve(listener, daemon).await {
                tracing::error!(%error, "the admin socket failed");
            }
        },
    );
    started.context("cannot start the admin socket's thread")
}

async fn serve(listener: UnixListener, daemon: Arc<Parts>) -> std::io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let routes = routes(daemon).layer(middleware::from_fn(bounded));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut failing = false;
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                let connection = connection(stream, routes.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the admin socket takes no connection; trying on");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, routes: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)));
    // The result is ignored: only the client needs to know how the connection ends.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(LIFE) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(REQUEST, connection).await;
}

async fn bounded(request: Request, next: Next) -> Response {
    match timeout(REQUEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let late = format!("not done within {} s; send the whole body at once", REQUEST.as_secs());
            Failure::new(StatusCode::REQUEST_TIMEOUT, late).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use relay_common::key::NodePrivate;

    use super::*;
    use crate::observe::counters::Counters;
    use crate::relay::Relay;
    use crate::route::Router;
    use crate::route::sessions::Limits;
    use crate::workers::Workers;

    #[test]
    fn it_answers_without_any_worker_and_lets_go_of_the_daemon_when_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let router = Router::new(Limits::default(), None);
        let server = NodePrivate::from_bytes([1; 32]);
        let relay = Arc::new(Relay::new(router, Counters::default(), server, Duration::ZERO, u64::MAX));
        let mut workers = Workers::default();
        let pool = workers.start(1, Duration::ZERO).expect("a thread");
        let daemon = Arc::new(Parts {
            relay,
            udp: None,
            fast: Err("none".to_owned()),
            certificate: None,
            mesh: None,
            pool,
            started_ns: 0,
        });
        let listener = UnixListener::bind(&path).expect("bound");
        // There is no runtime here: only the thread can be answering.
        let (server, ended) = start(listener, Arc::clone(&daemon)).expect("started");
        let mut stream = UnixStream::connect(&path).expect("connected");
        stream.set_read_timeout(Some(REQUEST)).expect("a socket");
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("uptime_seconds"), "{answer}");
        drop(server);
        assert_eq!(Arc::strong_count(&daemon), 1, "the thread has let go");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(ended);
    }
}
