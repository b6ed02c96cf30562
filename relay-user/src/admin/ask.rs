//! Asking a running daemon: one request over its admin socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::http::request::Builder;
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
    ask(socket, Request::get(path), Bytes::new()).await
}

/// The body that answers `PUT path` with a body of JSON.
///
/// # Errors
/// Nobody serves the socket, or the daemon answers with an error.
pub async fn put(socket: &Path, path: &str, json: String) -> anyhow::Result<Bytes> {
    ask(socket, Request::put(path).header("content-type", "application/json"), json.into()).await
}

async fn ask(socket: &Path, request: Builder, body: Bytes) -> anyhow::Result<Bytes> {
    let request = request.header("host", "relayd").body(Full::new(body))?;
    let answer = tokio::time::timeout(DEADLINE, send(socket, request)).await;
    answer.with_context(|| format!("no answer from {} within {} s", socket.display(), DEADLINE.as_secs()))?
}

async fn send(socket: &Path, request: Request<Full<Bytes>>) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        let socket = socket.display();
        format!(
            "cannot reach a daemon at {socket}; is relayd running, with this --admin-socket, as this user?"
        )
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
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
