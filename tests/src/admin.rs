//! The daemon's admin socket, asked by the daemon's own client.

use std::{
    path::{Path, PathBuf},
    thread,
};

use anyhow::Result;
use hyper::Method;
use relay_common::{endpoint::ServerEndpoint, key::DiscoPublic};
pub use relay_user::admin::ask::Refused;
use relay_user::admin::ask::request;
use serde_json::{Value, json};

/// An admin socket.
#[derive(Clone, Debug)]
pub struct Admin {
    path: PathBuf,
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
        self.call(Method::GET, path, None)
    }

    /// Allocates a session for two clients.
    pub fn allocate(&self, clients: [DiscoPublic; 2]) -> Result<ServerEndpoint> {
        Ok(serde_json::from_value(
            self.post("/v1/udp/endpoints", json!({ "ClientDisco": clients }).to_string())?,
        )?)
    }

    /// `POST` of a body.
    pub fn post(&self, path: &str, body: String) -> Result<Value> {
        self.call(Method::POST, path, Some(body))
    }

    fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Value> {
        // The client runs a loop of its own, and a test may already run in one.
        let answer = thread::scope(|scope| {
            let asked = scope.spawn(|| request(&self.path, method, path, body));
            asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        Ok(serde_json::from_slice(&answer.body)?)
    }
}
