//! The fast path's rules for a frame: classify it and, if it belongs to a bound session, rewrite its headers.
//!
//! The XDP program compiles these rules in; tests and fuzzers run them on the host. All checks come before
//! the first write: [`classify()`] only reads, and [`rewrite()`] cannot fail. A frame that is not forwarded
//! stays unchanged; the daemon gets it through its sockets and decides, unless the program drops it because
//! its TTL would reach zero.
//!
//! The UDP payload with its Geneve header never changes: both legs of a session use the same VNI.

mod checksum;
mod classify;
mod leg;
mod maps;
mod rewrite;
#[cfg(any(test, feature = "testing"))]
pub mod sample;

pub use classify::classify;
pub use maps::{Maps, NextHopCopy, SessionCopy};
pub use rewrite::rewrite;

use crate::{
    fastpath::{Config, reason::XdpReason},
    net::{Frame, IPV4_PAYLOAD_OFFSET, Ipv4UdpHeaders},
};

/// An IPv4 address and a UDP port, network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub ip: [u8; 4],
    /// Port.
    pub port: [u8; 2],
}

/// A frame that will be forwarded: its new headers and the values to count. They are copies; no map is read
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Index into `LEG_STATS`.
    pub stats_slot: u32,
    /// The leg the frame came from, 0 or 1.
    pub from_leg: u8,
    /// UDP payload bytes, Geneve header included.
    pub payload_length: u16,
    /// The time read for this frame, CLOCK_MONOTONIC nanoseconds.
    pub now_ns: u64,
    /// New link-layer source.
    pub egress_mac: [u8; 6],
    /// New link-layer destination.
    pub next_hop_mac: [u8; 6],
    /// New sender: the address at which the receiving client knows the relay.
    pub source: Endpoint,
    /// New receiver.
    pub destination: Endpoint,
}

/// Classifies `frame` and, if it is to be forwarded, rewrites it in place.
///
/// `ingress` is the index of the interface on which the frame arrived. `maps` is asked only about a frame
/// that has the shape of session data: once for the time, once for the session, and once for each next hop.
///
/// # Errors
/// Why the frame is not forwarded; it is unchanged then.
#[inline(always)]
pub fn apply(
    frame: &mut impl Frame,
    config: &Config,
    ingress: u32,
    maps: &mut impl Maps,
) -> Result<Decision, XdpReason> {
    let decision = classify(frame, config, ingress, maps)?;
    let headers = frame.get_mut::<IPV4_PAYLOAD_OFFSET>(0).ok_or(XdpReason::Truncated)?;
    rewrite(Ipv4UdpHeaders::view_mut(headers), &decision);
    Ok(decision)
}
