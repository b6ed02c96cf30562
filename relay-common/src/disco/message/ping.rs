//! Ping and Pong between two clients; the relay forwards them without reading them.

use super::{MessageError, take};
use crate::{
    addr,
    key::{KEY_LEN, NodePublic},
};
use core::net::SocketAddr;

/// A probe of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// The Pong repeats this number.
    pub tx_id: [u8; 12],
    /// The sender's node key. 32 zero bytes in its place count as padding.
    pub node_key: Option<NodePublic>,
    /// Bytes of padding at the end.
    pub padding: usize,
}

/// The answer to a Ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The transaction of the Ping.
    pub tx_id: [u8; 12],
    /// The source address of the Ping; through a relay, it is the relay's address.
    pub src: SocketAddr,
}

impl Ping {
    pub(super) fn parse_body(mut body: &[u8]) -> Result<Self, MessageError> {
        let tx_id = take(&mut body)?;
        let node_key = body.first_chunk().copied().map(NodePublic::from_bytes).filter(|key| !key.is_zero());
        let padding = body.len() - if node_key.is_some() { KEY_LEN } else { 0 };
        Ok(Self { tx_id, node_key, padding })
    }

    pub(super) fn encode_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tx_id);
        if let Some(key) = &self.node_key {
            out.extend_from_slice(key.as_bytes());
        }
        out.resize(out.len() + self.padding, 0);
    }
}

impl Pong {
    pub(super) fn parse_body(mut body: &[u8]) -> Result<Self, MessageError> {
        Ok(Self { tx_id: take(&mut body)?, src: addr::decode(&take(&mut body)?) })
    }

    pub(super) fn encode_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tx_id);
        out.extend_from_slice(&addr::encode(self.src));
    }
}
