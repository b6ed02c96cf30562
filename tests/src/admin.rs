//! An HTTP/1.1 client for the daemon's admin socket, as far as tests need it: one request per connection.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use relay_common::{endpoint::ServerEndpoint, key::DiscoPublic};
use serde_json::{Value, json};

/// Time for an answer; the daemon answers from memory.
const DEADLINE: Duration = Duration::from_secs(5);

/// An admin socket.
#[derive(Clone, Debug)]
pub struct Admin {
    path: PathBuf,
}

/// An answer that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status {status}: {body}")]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// The text of the answer.
    pub body: String,
    /// Seconds of `Retry-After`, if the answer has it.
    pub retry_after: Option<u64>,
}

impl Admin {
    /// The socket at `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `GET /v1/status`.
    pub fn status(&self) -> Result<Value> {
        self.get("/v1/status")
    }

    /// `GET` of a path.
    pub fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.call("GET", path, "")?)?)
    }

    /// Allocates a session for two clients.
    pub fn allocate(&self, clients: [DiscoPublic; 2]) -> Result<ServerEndpoint> {
        let body = json!({ "ClientDisco": clients }).to_string();
        Ok(serde_json::from_str(&self.call("POST", "/v1/udp/endpoints", &body)?)?)
    }

    /// Makes one request; returns the body of a 200 answer, else the error [`Refused`].
    pub fn call(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.path)
            .with_context(|| format!("admin socket {}", self.path.display()))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: relayd\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("no whole answer to {method} {path}"))?;
        parse(&answer)
    }
}

/// Splits an answer that declares the length of its body.
fn parse(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let header = |name: &str| {
        let mut named = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        named.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    if let Some(len) = header("content-length") {
        ensure!(body.len() == len.parse::<usize>()?, "a body of {} instead of {len} bytes", body.len());
    }
    if status != 200 {
        let retry_after = header("retry-after").map(|seconds| seconds.parse()).transpose()?;
        bail!(Refused { status, body: body.to_owned(), retry_after });
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_body_or_the_reason_there_is_none() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(ok).expect("a body"), "{}");
        assert!(parse("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}").is_err());
        let full = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nfull";
        let refused = parse(full).expect_err("refused").downcast::<Refused>().expect("by the daemon");
        assert_eq!(refused, Refused { status: 503, body: "full".into(), retry_after: Some(3) });
    }
}
