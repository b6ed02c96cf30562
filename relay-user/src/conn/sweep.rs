//! Keep-alives and write deadlines, for all connections in one pass.
//!
//! Upstream gives each connection a timer. Here a connection only keeps two times, which the sweep
//! compares with its own clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand_core::{OsRng, RngCore};
use relay_common::derp::frame::{FrameType, Header};
use relay_common::derp::message::PeerPresentFlags;
use relay_common::derp::{KEEP_ALIVE_JITTER_NS, KEEP_ALIVE_NS};

use crate::mailbox::Lane;
use crate::observe::counters::Counter;
use crate::relay::Relay;
use crate::route::peer::{Ending, Peer};

/// How long another relay may take nothing (upstream's time for holders of the mesh key, whatever the flag
/// says): a relay that is cut hears nothing of its clients' peers.
const MESH_WRITE_TIMEOUT_MS: u64 = 30_000;

/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

/// Sets the timers of a new connection.
pub fn begin(peer: &Peer, now_ms: u64) {
    peer.timers.connected_ms.store(now_ms, Ordering::Relaxed);
    peer.timers.keepalive_due_ms.store(next_keepalive(now_ms), Ordering::Relaxed);
}

/// Looks at every connection once.
pub fn sweep(relay: &Relay, now_ms: u64) {
    // Rounded up: only a timeout of zero means never.
    let clients_ms = relay.write_timeout.as_nanos().div_ceil(u128::from(MS)) as u64;
    relay.router.for_each_peer(|peer| {
        let blocked_since_ms = peer.timers.blocked_since_ms.load(Ordering::Relaxed);
        let blocked_ms = if blocked_since_ms == 0 { 0 } else { now_ms.saturating_sub(blocked_since_ms) };
        let write_timeout_ms = match peer.about.flags.contains(PeerPresentFlags::MESH_PEER) {
            true => MESH_WRITE_TIMEOUT_MS,
            false => clients_ms,
        };
        if write_timeout_ms > 0 && blocked_ms > write_timeout_ms {
            relay.counters.add(Counter::WriteTimeouts, 1);
            peer.end(Ending::WriteTimeout);
        } else if now_ms >= peer.timers.keepalive_due_ms.load(Ordering::Relaxed) {
            peer.timers.keepalive_due_ms.store(next_keepalive(now_ms), Ordering::Relaxed);
            keep_alive(relay, peer);
        }
    });
}

/// Ends the clients that have taken nothing for longest, until all queues together are within the budget
/// again. Their waiting frames are freed at once. Returns how many clients were ended.
pub fn cut_blocked(relay: &Relay) -> usize {
    let mut blocked = Vec::new();
    relay.router.for_each_peer(|peer| {
        let since_ms = peer.timers.blocked_since_ms.load(Ordering::Relaxed);
        if since_ms > 0 && peer.ending().is_none() {
            blocked.push((since_ms, Arc::clone(peer)));
        }
    });
    blocked.sort_by_key(|(since_ms, _)| *since_ms);
    let mut cut = 0;
    for (_, peer) in blocked {
        if relay.budget.excess() == 0 {
            break;
        }
        let left = peer.mailbox.close();
        relay.budget.add(-(left.bytes() as i64));
        relay.counters.add(Counter::DropQueueMemory, left.packets() as u64);
        relay.counters.add(Counter::DropControl, left.count(Lane::Control).frames as u64);
        relay.counters.add(Counter::QueueMemoryCuts, 1);
        peer.end(Ending::QueueMemory);
        cut += 1;
    }
    cut
}

fn keep_alive(relay: &Relay, peer: &Peer) {
    let frame = Header::new(FrameType::KeepAlive, 0).encode();
    let Ok(pushed) = peer.mailbox.push(Lane::Control, &frame, &[], relay.budget.is_tight()) else { return };
    relay.budget.add(pushed.growth);
    relay.counters.add(Counter::KeepAlives, 1);
    relay.counters.add(Counter::DropControl, pushed.dropped.frames as u64);
    if pushed.wake {
        peer.mailbox.wake();
    }
}

fn next_keepalive(now_ms: u64) -> u64 {
    // The jitter is drawn anew each time, so that clients that connected together do not stay in step.
    now_ms + (KEEP_ALIVE_NS + OsRng.next_u64() % KEEP_ALIVE_JITTER_NS) / MS
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::time::Duration;

    use relay_common::key::{DiscoPublic, NodePrivate};

    use super::*;
    use crate::observe::counters::Counters;
    use crate::route::Router;
    use crate::route::sessions::Limits;

    /// The ending of a connection that has been blocked for 2 ms.
    fn ending(write_timeout: Duration) -> Option<Ending> {
        let limits = Limits {
            max_sessions: 1,
            bind_lifetime_ns: 1,
            steady_lifetime_ns: 1,
            server: DiscoPublic::default(),
        };
        let key = NodePrivate::generate(&mut OsRng);
        let client = NodePrivate::generate(&mut OsRng).public();
        let relay = Relay::new(Router::new(limits, None), Counters::default(), key, write_timeout, u64::MAX);
        let remote = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
        let peer = Arc::new(Peer::new(client, relay.next_conn(), remote));
        begin(&peer, 1000);
        let _ = relay.router.login(&peer, 0).expect("the first of its key");
        peer.timers.blocked_since_ms.store(1000, Ordering::Relaxed);
        sweep(&relay, 1002);
        peer.ending()
    }

    #[test]
    fn only_a_write_timeout_of_zero_is_never() {
        assert_eq!(ending(Duration::ZERO), None);
        assert_eq!(ending(Duration::from_nanos(1)), Some(Ending::WriteTimeout));
        assert_eq!(ending(Duration::from_micros(500)), Some(Ending::WriteTimeout));
        assert_eq!(ending(Duration::from_millis(3)), None);
    }
}
