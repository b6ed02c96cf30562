//! Allocation over disco: the request to a relay node, its response, and the description of a session, which
//! the response carries.

use super::{MessageError, take};
use crate::{
    addr::{self, ADDR_LEN},
    endpoint::ServerEndpoint,
    geneve::Vni,
    key::DiscoPublic,
};
use core::time::Duration;

/// 08: asks for a session between two clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocateRequest {
    /// The two clients; they are sorted only by convention.
    pub client_disco: [DiscoPublic; 2],
    /// The response repeats this number.
    pub generation: u32,
}

/// 09: the answer to an AllocateRequest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateResponse {
    /// The generation of the request.
    pub generation: u32,
    /// The session.
    pub endpoint: ServerEndpoint,
}

impl AllocateRequest {
    pub(super) fn parse_body(mut body: &[u8]) -> Result<Self, MessageError> {
        let client_disco = [take_key(&mut body)?, take_key(&mut body)?];
        Ok(Self { client_disco, generation: u32::from_be_bytes(take(&mut body)?) })
    }

    pub(super) fn encode_body(&self, out: &mut Vec<u8>) {
        self.client_disco.iter().for_each(|key| out.extend_from_slice(key.as_bytes()));
        out.extend_from_slice(&self.generation.to_be_bytes());
    }
}

impl AllocateResponse {
    pub(super) fn parse_body(mut body: &[u8]) -> Result<Self, MessageError> {
        Ok(Self { generation: u32::from_be_bytes(take(&mut body)?), endpoint: parse_endpoint(body)? })
    }

    pub(super) fn encode_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.generation.to_be_bytes());
        encode_endpoint(&self.endpoint, out);
    }
}

/// Parses a session description; it must have at least one address and nothing after the last.
pub(super) fn parse_endpoint(mut body: &[u8]) -> Result<ServerEndpoint, MessageError> {
    let server_disco = take_key(&mut body)?;
    let client_disco = [take_key(&mut body)?, take_key(&mut body)?];
    let lamport_id = u64::from_be_bytes(take(&mut body)?);
    let vni = Vni::new(u32::from_be_bytes(take(&mut body)?)).ok_or(MessageError::Vni)?;
    let (bind_lifetime, steady_state_lifetime) = (take_lifetime(&mut body)?, take_lifetime(&mut body)?);
    let (entries, []) = body.as_chunks::<ADDR_LEN>() else { return Err(MessageError::Length) };
    if entries.is_empty() {
        return Err(MessageError::Length);
    }
    Ok(ServerEndpoint {
        server_disco,
        client_disco,
        lamport_id,
        addr_ports: entries.iter().map(addr::decode).collect(),
        vni,
        bind_lifetime,
        steady_state_lifetime,
    })
}

pub(super) fn encode_endpoint(endpoint: &ServerEndpoint, out: &mut Vec<u8>) {
    out.extend_from_slice(endpoint.server_disco.as_bytes());
    endpoint.client_disco.iter().for_each(|key| out.extend_from_slice(key.as_bytes()));
    out.extend_from_slice(&endpoint.lamport_id.to_be_bytes());
    out.extend_from_slice(&endpoint.vni.get().to_be_bytes());
    out.extend_from_slice(&nanoseconds(endpoint.bind_lifetime).to_be_bytes());
    out.extend_from_slice(&nanoseconds(endpoint.steady_state_lifetime).to_be_bytes());
    endpoint.addr_ports.iter().for_each(|addr| out.extend_from_slice(&addr::encode(*addr)));
}

fn take_key(body: &mut &[u8]) -> Result<DiscoPublic, MessageError> {
    take(body).map(DiscoPublic::from_bytes)
}

fn take_lifetime(body: &mut &[u8]) -> Result<Duration, MessageError> {
    let nanoseconds = i64::from_be_bytes(take(body)?);
    u64::try_from(nanoseconds).map(Duration::from_nanos).map_err(|_| MessageError::Lifetime)
}

/// The lifetime in nanoseconds, limited to about 292 years.
fn nanoseconds(lifetime: Duration) -> i64 {
    i64::try_from(lifetime.as_nanos()).unwrap_or(i64::MAX)
}
