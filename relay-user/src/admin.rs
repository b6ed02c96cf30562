//! The admin socket: allocates UDP sessions and answers questions about the daemon. HTTP/1.1 over a unix
//! socket, for its owner only.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/udp/endpoints` | a session for a pair of clients, as upstream's `ServerEndpoint` |
//! | `GET /v1/status` | what the daemon is, and all counters |
//! | `GET /v1/clients` | the connected DERP clients; `?filter=` and `?limit=` choose, see
//! [`crate::admin::list`] |
//! | `GET /v1/sessions` | the UDP sessions; likewise |
//! | `GET /v1/mesh` | the links to the other relays |
//! | `GET /v1/why?key=` | where a key is, and on which rung |
//! | `PUT /v1/xdp` | turns the XDP program's forwarding on or off, `{"enabled":false}`; how it is now |

pub mod allocate;
pub mod ask;
mod assemble;
pub mod filter;
pub mod list;
pub mod mesh;
pub mod print;
pub mod question;
pub mod socket;
pub mod switch;
pub mod thread;
pub mod view;
pub mod why;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};

use self::view::{Problem, Status};
use crate::clock;
use crate::fastpath::FastPath;
use crate::mesh::service::Mesh;
use crate::relay::Relay;
use crate::transport::tls::certificate::Facts;
use crate::transport::tls::map_node::MapNode;
use crate::udp::endpoints::Endpoints;
use crate::udp::relay::UdpRelay;
use crate::workers::Pool;

/// The parts of the daemon that the answers need.
#[derive(Debug)]
pub struct Parts {
    /// Table and counters.
    pub relay: Arc<Relay>,
    /// The UDP relay, if there is one.
    pub udp: Option<UdpParts>,
    /// The fast path, or the reason why there is none.
    pub fast: Result<Arc<FastPath>, String>,
    /// The certificate of the TLS listener, if there is one.
    pub certificate: Option<Arc<ServedCertificate>>,
    /// The links to other relays, if there are any.
    pub mesh: Option<Arc<Mesh>>,
    /// The worker threads.
    pub pool: Arc<Pool>,
    /// CLOCK_MONOTONIC nanoseconds of the start.
    pub started_ns: u64,
}

/// The certificate in use, and the relay's entry for a DERP map.
#[derive(Debug)]
pub struct ServedCertificate {
    /// Facts about the certificate.
    pub facts: Facts,
    /// The entry, ready to paste.
    pub node: MapNode,
}

/// The parts of the UDP relay that allocations need.
#[derive(Debug)]
pub struct UdpParts {
    /// The relay with its keys.
    pub relay: Arc<UdpRelay>,
    /// The addresses at which the relay can be reached.
    pub endpoints: Arc<Endpoints>,
    /// The limits of its sessions.
    pub limits: crate::route::sessions::Limits,
}

/// An error answer: a status, a sentence as JSON, and whether to retry later.
pub(crate) struct Failure {
    status: StatusCode,
    problem: Problem,
    retry_after: bool,
}

/// The routes of the socket.
fn routes(daemon: Arc<Parts>) -> Router {
    Router::new()
        .route("/v1/udp/endpoints", post(allocate::allocate))
        .route("/v1/status", get(status))
        .route("/v1/clients", get(list::clients))
        .route("/v1/sessions", get(list::sessions))
        .route("/v1/mesh", get(mesh::mesh))
        .route("/v1/why", get(why::why))
        .route("/v1/xdp", put(switch::xdp))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(daemon)
}

async fn status(State(daemon): State<Arc<Parts>>) -> Json<Status> {
    Json(Status::of(&daemon, clock::monotonic_ns()))
}

async fn unknown(method: Method, uri: Uri) -> Failure {
    let known = "GET /v1/status, /v1/clients, /v1/sessions, /v1/mesh, /v1/why?key=; POST /v1/udp/endpoints; \
                 PUT /v1/xdp";
    Failure::new(StatusCode::NOT_FOUND, format!("no {method} {}; there are {known}", uri.path()))
}

impl Failure {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, problem: Problem { error: error.into() }, retry_after: false }
    }

    /// Like upstream's "not ready": the client may try again in a few seconds.
    pub(crate) fn retry(error: impl Into<String>) -> Self {
        Self { retry_after: true, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, error) }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.problem)).into_response();
        if self.retry_after {
            response.headers_mut().insert("retry-after", allocate::RETRY_AFTER.into());
        }
        response
    }
}
