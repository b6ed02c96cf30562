//! Asks a running daemon: one request over its admin socket.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::RETRY_AFTER;
use hyper::{Method, Request, StatusCode};
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

/// An answer with another status than 200.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon answers {status}: {error}")]
pub struct Refused {
    /// The answer's status.
    pub status: StatusCode,
    /// Seconds after which the same request may succeed, if the daemon says so (`Retry-After`).
    pub retry_after: Option<u64>,
    /// The fault and the remedy.
    pub error: String,
}

/// The answer to one request, with a body of JSON or none.
///
/// # Errors
/// No daemon serves the socket, none answers within 10 seconds, or the daemon answers with an error, which is
/// [`Refused`].
pub fn request(
    socket: &Path,
    method: Method,
    path: &str,
    json: Option<String>,
) -> anyhow::Result<AdminAnswer> {
    let mut asked = Request::builder().method(method).uri(path).header("host", "relayd");
    if json.is_some() {
        asked = asked.header("content-type", "application/json");
    }
    let asked = asked.body(Full::from(json.unwrap_or_default()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start to ask")?.block_on(within_deadline(socket, asked))
}

async fn within_deadline(socket: &Path, request: Request<Full<Bytes>>) -> anyhow::Result<AdminAnswer> {
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
    let other =
        || format!("{} (--admin-socket) does not answer as relayd does; whose is it?", socket.display());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(other)?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.with_context(other)?;
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let totals = header(TOTALS);
    let retry_after = header(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
    let body = response.into_body().collect().await?.to_bytes();
    driver.abort();
    if status != StatusCode::OK {
        let problem = serde_json::from_slice::<Problem>(&body).map(|problem| problem.error);
        let another = || format!("no reason given; is relayd at {} of another version?", socket.display());
        bail!(Refused { status, retry_after, error: problem.unwrap_or_else(|_| another()) });
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
        ErrorKind::ConnectionRefused if !is_socket(socket) => {
            format!("{path} is not a socket; name relayd's with --admin-socket")
        }
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

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}
