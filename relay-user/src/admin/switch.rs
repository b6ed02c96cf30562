//! `PUT /v1/xdp`: the kill switch of the fast path. No session is lost: userspace forwards them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use serde::Deserialize;

use super::view::Xdp;
use super::{Failure, Parts};
use crate::clock;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct SwitchRequest {
    enabled: bool,
}

pub(super) async fn xdp(State(daemon): State<Arc<Parts>>, body: Bytes) -> Result<Json<Xdp>, Failure> {
    let SwitchRequest { enabled } = serde_json::from_slice(&body).map_err(|error| {
        Failure::new(
            StatusCode::BAD_REQUEST,
            format!(r#"the body must be {{"enabled":true}} or false: {error}"#),
        )
    })?;
    let fast = daemon.fast.as_ref().map_err(|reason| {
        let remedy = "start relayd with --relay-server-port PORT --xdp IFACE to have one";
        Failure::new(StatusCode::CONFLICT, format!("there is no XDP program to switch ({reason}); {remedy}"))
    })?;
    fast.set_enabled(enabled, clock::monotonic_ns())
        .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    tracing::info!(enabled, "the operator has switched XDP forwarding");
    Ok(Json(Xdp::of(&daemon, daemon.relay.router.session_counts().1)))
}
