//! Two hosts with a veth between them: the relay's program at one end, both clients at the other.

use anyhow::Result;
use relay_common::{forward::sample, net::datagram::Datagram};

use crate::lab::{End, Netns, veth};

/// The relay's end.
pub const RELAY_END: &str = "r0";
/// The clients' end.
pub const FAR_END: &str = "f0";
/// Link-layer address of the clients' end.
pub const FAR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// The hosts.
#[derive(Debug)]
pub struct Pair {
    /// Where the relay's program runs, on [`RELAY_END`].
    pub relay: Netns,
    /// Where the sample's clients are, behind [`FAR_END`].
    pub far: Netns,
}

impl Pair {
    /// Makes both hosts and connects them.
    pub fn new() -> Result<Self> {
        let (relay, far) = (Netns::new("relay")?, Netns::new("far")?);
        veth(
            End { netns: &relay, name: RELAY_END, mac: sample::RELAY_MAC },
            End { netns: &far, name: FAR_END, mac: FAR_MAC },
        )?;
        Ok(Self { relay, far })
    }
}

/// A frame of client `leg` of the sample session, as the far end sends it.
pub fn frame(leg: usize, payload: &[u8]) -> Vec<u8> {
    Datagram {
        source_mac: FAR_MAC,
        destination_mac: sample::RELAY_MAC,
        source: sample::CLIENTS[leg],
        destination: sample::RELAY,
        tos: 0,
        id: 0,
        ttl: 64,
        payload,
    }
    .to_frame()
}
