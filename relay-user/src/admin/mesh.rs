//! `GET /v1/mesh`: the links to the other relays, and which of them have links to this one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use relay_common::derp::message::PeerPresentFlags;
use relay_common::key::NodePublic;
use serde::{Deserialize, Serialize};

use super::Parts;
use crate::clock;
use crate::mesh::region::Standing;
use crate::mesh::service::PlaceStatus;
use crate::relay::Relay;
use crate::route::link::Link;

/// Nanoseconds of a millisecond.
const MS: f64 = 1e6;

/// `GET /v1/mesh`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MeshView {
    /// Whether the relay holds a mesh key, so that other relays can have links to it.
    pub has_key: bool,
    /// Every address of every host of `-mesh-with`.
    pub places: Vec<PlaceView>,
    /// Hosts of `-mesh-with` without a known address, and why their last look-up failed.
    pub unknown_hosts: Vec<(String, Option<String>)>,
    /// Connections of holders of the mesh key: other relays' links to this one, and the operator's tools.
    pub incoming: Vec<IncomingView>,
}

/// One address of another relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlaceView {
    /// The entry of `-mesh-with`.
    pub host: String,
    /// The address that is dialled.
    pub addr: SocketAddr,
    /// `up`, `down`, `alias` (the relay has a link by another address) or `ourselves`.
    pub state: String,
    /// The key of the relay that answered there last.
    pub server: Option<NodePublic>,
    /// Why the last dial or link failed.
    pub fault: Option<String>,
    /// The link, while it is up.
    pub link: Option<LinkView>,
}

/// A link that is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkView {
    /// Seconds since it came up.
    pub age_seconds: u64,
    /// Keys that its relay has.
    pub clients: usize,
    /// Packets that were forwarded over it.
    pub packets_out: u64,
    /// Payload bytes of these packets.
    pub bytes_out: u64,
    /// Frames that wait for it.
    pub queued_frames: usize,
    /// Bytes of these frames.
    pub queued_bytes: usize,
    /// Milliseconds for which its relay has taken none of the bytes that wait; `null`: none wait.
    pub blocked_ms: Option<u64>,
    /// Packets that it lost: pushed out of its full queue.
    pub packets_dropped: u64,
    /// Milliseconds from the last probe to its answer; `null`: not measured yet.
    pub round_trip_ms: Option<f64>,
    /// Milliseconds since its relay was last heard.
    pub silent_ms: f64,
}

/// A connection of a holder of the mesh key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IncomingView {
    /// Its key; another relay's is that of its server.
    pub key: NodePublic,
    /// Where it connects from.
    pub remote: SocketAddr,
    /// Seconds since the login.
    pub connected_seconds: u64,
    /// Bytes of news and packets that wait for it.
    pub queued_bytes: usize,
}

/// Answers with the mesh.
pub(super) async fn mesh(State(daemon): State<Arc<Parts>>) -> Json<MeshView> {
    Json(MeshView::of(&daemon))
}

impl MeshView {
    fn of(daemon: &Parts) -> Self {
        let relay = &daemon.relay;
        let places = daemon.mesh.as_ref().map(|mesh| mesh.places()).unwrap_or_default();
        let hosts = daemon.mesh.iter().flat_map(|mesh| mesh.hosts());
        let unknown_hosts = hosts.filter(|(host, _)| places.iter().all(|place| place.host != *host));
        let unknown_hosts = unknown_hosts.collect();
        let now_ms = clock::monotonic_ms();
        let mut incoming = Vec::new();
        relay.router.for_each_peer(|peer| {
            if peer.about.flags.contains(PeerPresentFlags::MESH_PEER) {
                let connected_ms = peer.timers.connected_ms.load(Ordering::Relaxed);
                incoming.push(IncomingView {
                    key: peer.key,
                    remote: peer.remote,
                    connected_seconds: now_ms.saturating_sub(connected_ms) / 1000,
                    queued_bytes: peer.mailbox.depth().bytes,
                });
            }
        });
        incoming.sort_by_key(|view| (view.key, view.remote));
        let places = places.into_iter().map(|place| PlaceView::of(place, relay)).collect();
        Self { has_key: relay.mesh.key.is_some(), places, unknown_hosts, incoming }
    }
}

impl PlaceView {
    fn of(status: PlaceStatus, relay: &Relay) -> Self {
        let PlaceStatus { host, addr, server, standing, link, fault } = status;
        let state = match standing {
            Standing::Down => "down",
            Standing::Up(_) => "up",
            Standing::Alias => "alias",
            Standing::Ourselves => "ourselves",
        };
        let link = link.map(|link| LinkView::of(&link, relay));
        Self { host, addr, state: state.to_owned(), server, fault, link }
    }
}

impl LinkView {
    pub(super) fn of(link: &Link, relay: &Relay) -> Self {
        let (now_ns, now_ms) = (clock::monotonic_ns(), clock::monotonic_ms());
        let (queued, times) = (link.mailbox.depth(), &link.times);
        let blocked_since_ms = times.blocked_since_ms.load(Ordering::Relaxed);
        let round_trip_ns = times.round_trip_ns.load(Ordering::Relaxed);
        Self {
            age_seconds: now_ms.saturating_sub(times.up_ms.load(Ordering::Relaxed)) / 1000,
            clients: relay.router.claimed_count(link.id),
            packets_out: link.counters.packets_out.load(Ordering::Relaxed),
            bytes_out: link.counters.bytes_out.load(Ordering::Relaxed),
            queued_frames: queued.frames,
            queued_bytes: queued.bytes,
            blocked_ms: (blocked_since_ms > 0).then(|| now_ms.saturating_sub(blocked_since_ms)),
            packets_dropped: link.dropped.load(Ordering::Relaxed),
            round_trip_ms: (round_trip_ns > 0).then_some(round_trip_ns as f64 / MS),
            silent_ms: now_ns.saturating_sub(times.heard_ns.load(Ordering::Relaxed)) as f64 / MS,
        }
    }
}
