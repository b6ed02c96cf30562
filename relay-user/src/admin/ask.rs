//! Asking a running daemon: one request over its admin socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::view::Problem;

/// How long the daemon may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The body that answers `GET path`.
///
/// # Errors
/// Nobody serves the socket, or the daemon answers with an error.
pub async fn get(socket: &Path, path: &str) -> anyhow::Result<Bytes> {
    let answer = tokio::time::timeout(DEADLINE, request(socket, path)).await;
    answer.with_context(|| format!("no answer from {} within {} s", socket.display(), DEADLINE.as_secs()))?
}

async fn request(socket: &Path, path: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        let socket = socket.display();
        format!(
            "cannot reach a daemon at {socket}; is relayd running, with this --admin-socket, as this user?"
        )
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path).header("host", "relayd").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    driver.abort();
    if status != StatusCode::OK {
        let problem = serde_json::from_slice::<Problem>(&body).map(|problem| problem.error);
        bail!("the daemon answers {status}: {}", problem.unwrap_or_default());
    }
    Ok(body)
}
