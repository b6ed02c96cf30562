//! `POST /v1/udp/endpoints`: gives two clients a session.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use relay_common::endpoint::ServerEndpoint;
use relay_common::geneve::Vni;
use relay_common::key::DiscoPublic;
use serde::Deserialize;

use super::{Failure, Parts};
use crate::clock;
use crate::observe::counters::Counter;
use crate::route::vocabulary::Refusal;

/// Seconds after which a client may repeat a request that found no address or no free session (upstream's
/// `ServerRetryAfter`).
pub(crate) const RETRY_AFTER: u64 = 3;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, expecting = "an object")]
struct AllocateRequest {
    client_disco: [DiscoPublic; 2],
}

pub(super) async fn allocate(
    State(daemon): State<Arc<Parts>>,
    body: Bytes,
) -> Result<Json<ServerEndpoint>, Failure> {
    // Parsed here, so that a wrong body gives a sentence with status 400, whatever its content type is.
    let AllocateRequest { client_disco: pair } = serde_json::from_slice(&body).map_err(|error| {
        let expected = r#"{"ClientDisco":["discokey:…","discokey:…"]}"#;
        Failure::new(StatusCode::BAD_REQUEST, format!("the body must be {expected}: {error}"))
    })?;
    let udp = daemon.udp.as_ref().ok_or_else(|| {
        Failure::new(StatusCode::CONFLICT, "there is no UDP relay: start relayd with --relay-server-port")
    })?;
    let bad_pair = || {
        let rule = "ClientDisco must be two different keys, neither zero nor the relay's own";
        Failure::new(StatusCode::BAD_REQUEST, rule)
    };
    let addr_ports = udp.endpoints.current();
    if addr_ports.is_empty() {
        let remedy = "no address to advertise yet; --advertise names one";
        return Err(Failure::retry(remedy));
    }
    let session = daemon.relay.router.allocate(pair, clock::monotonic_ns());
    let session = session.map_err(|refusal| match refusal {
        Refusal::Full => {
            Failure::retry("all sessions are taken; --relay-max-sessions sets how many there are")
        }
        _ => bad_pair(),
    })?;
    daemon.relay.counters.add(Counter::UdpAllocations, 1);
    let vni = Vni::new(session.vni()).ok_or_else(bad_pair)?;
    Ok(Json(ServerEndpoint {
        server_disco: udp.relay.public(),
        client_disco: session.route.clients,
        lamport_id: session.lamport_id,
        addr_ports,
        vni,
        bind_lifetime: Duration::from_nanos(udp.limits.bind_lifetime_ns),
        steady_state_lifetime: Duration::from_nanos(udp.limits.steady_lifetime_ns),
    }))
}
