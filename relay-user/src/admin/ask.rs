//! Asks a running daemon: one request over its admin socket.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::http::request::Builder;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::list::TOTALS;
use super::view::Problem;

/// How long the daemon may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// An answer of the daemon with status 200.
#[derive(Clone, Debug)]
pub struct AdminAnswer {
    /// The body: JSON.
    pub body: Bytes,
    /// The header [`TOTALS`]; only answers that are lists have it.
    pub totals: Option<String>,
}

/// The answer to `GET path`.
///
/// # Errors
/// No daemon serves the socket, or the daemon answers with an error.
pub async fn get(socket: &Path, path: &str) -> anyhow::Result<AdminAnswer> {
    ask(socket, Request::get(path), Bytes::new()).await
}

/// The answer to `PUT path` with a body of JSON.
///
/// # Errors
/// No daemon serves the socket, or the daemon answers with an error.
pub async fn put(socket: &Path, path: &str, json: String) -> anyhow::Result<AdminAnswer> {
    ask(socket, Request::put(path).header("content-type", "application/json"), json.into()).await
}

async fn ask(socket: &Path, request: Builder, body: Bytes) -> anyhow::Result<AdminAnswer> {
    let request = request.header("host", "relayd").body(Full::new(body))?;
    let answer = tokio::time::timeout(DEADLINE, send(socket, request)).await;
    answer.with_context(|| {
        let (socket, seconds) = (socket.display(), DEADLINE.as_secs());
        format!("no answer from {socket} (--admin-socket) within {seconds} s; is the machine overloaded?")
    })?
}

async fn send(socket: &Path, request: Request<Full<Bytes>>) -> anyhow::Result<AdminAnswer> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        let why = unreachable(socket, error.kind());
        anyhow::Error::new(error).context(why)
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let totals = response.headers().get(TOTALS).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = response.into_body().collect().await?.to_bytes();
    driver.abort();
    if status != StatusCode::OK {
        let problem = serde_json::from_slice::<Problem>(&body).map(|problem| problem.error);
        let another = || format!("no reason given; is relayd at {} of another version?", socket.display());
        bail!("the daemon answers {status}: {}", problem.unwrap_or_else(|_| another()));
    }
    Ok(AdminAnswer { body, totals })
}

/// Why no daemon could be asked, and the remedy.
fn unreachable(socket: &Path, kind: ErrorKind) -> String {
    let path = socket.display();
    match kind {
        ErrorKind::NotFound => format!(
            "no relayd runs with the admin socket {path}; start it, or name its socket with --admin-socket"
        ),
        ErrorKind::ConnectionRefused => format!(
            "nobody serves the admin socket {path} any more: relayd was killed or has crashed; start it again"
        ),
        ErrorKind::PermissionDenied => format!(
            "the admin socket {path} is for the user that relayd runs as; ask as that user or as root, or \
             name another with --admin-socket"
        ),
        _ => format!("cannot ask relayd at the admin socket {path}; name its socket with --admin-socket"),
    }
}
