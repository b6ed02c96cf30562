//! The daemon's repeated work: sweeps, the heartbeat, audits, next hops.
//!
//! The packet paths keep no timers; these few tasks check all connections and sessions in turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand_core::{OsRng, RngCore};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::conn;
use crate::fastpath::FastPath;
use crate::fastpath::nexthop::NextHops;
use crate::observe::counters::Counter;
use crate::relay::Relay;
use crate::udp::relay::UdpRelay;
use crate::udp::service::BoundLeg;
use crate::workers::Pool;
use crate::workers::spread::{self, Spread};

/// Time between two checks of keep-alives and write deadlines.
const CONNECTION_SWEEP: Duration = Duration::from_millis(500);

/// Time between two looks for clients of other relays that nobody here remembers.
const FORGET: Duration = Duration::from_secs(30);

/// Time between two looks at how many workers the load needs.
const SPREAD_LOOK: Duration = Duration::from_millis(100);

/// One in this many looks also moves connections that logged in on a worker while it was let go.
const STRAYS_LOOK: u64 = 50;

/// Time between two checks of the queues while too many bytes wait.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// Time between two sweeps of the sessions: liveness and expiry.
const SESSION_SWEEP: Duration = Duration::from_secs(5);

/// Time between two heartbeats: well within [`relay_common::fastpath::HEARTBEAT_LIMIT_NS`], even if one or
/// two are late.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Time between two comparisons of the BPF map with the table.
const AUDIT: Duration = Duration::from_secs(30);

/// Time between two look-ups of every leg's next hop, made even without a netlink signal; they also keep the
/// neighbours confirmed.
const NEXT_HOP_REFRESH: Duration = Duration::from_secs(20);

/// Keeps connections alive, ends those whose clients take nothing, and forgets what concerns only clients
/// that have left.
pub async fn connections(relay: Arc<Relay>) {
    let (mut ticks, mut forgetting) = (ticks(CONNECTION_SWEEP), ticks(FORGET));
    loop {
        tokio::select! {
            _ = ticks.tick() => conn::sweep::sweep(&relay, clock::monotonic_ms()),
            _ = forgetting.tick() => relay.router.forget_hearers(),
        }
    }
}

/// Uses as many workers for the connections as their load needs.
pub async fn spread(relay: Arc<Relay>, pool: Arc<Pool>) {
    let mut before = match pool.cpu() {
        _ if pool.count() == 1 => return std::future::pending().await,
        Ok(cpu) => (Instant::now(), cpu),
        Err(error) => {
            tracing::info!(%error, "the system does not say what each thread uses; all workers are used");
            pool.set_active(pool.count());
            return std::future::pending().await;
        }
    };
    let (mut spread, mut ticks) = (Spread::new(pool.count()), ticks(SPREAD_LOOK));
    for look in 0_u64.. {
        ticks.tick().await;
        let Ok(cpu) = pool.cpu() else { continue };
        let now = Instant::now();
        let used = cpu.saturating_sub(before.1).as_secs_f64() / (now - before.0).as_secs_f64();
        before = (now, cpu);
        let (was, active) = (pool.active(), spread.look(used));
        pool.set_active(active);
        if active != was {
            tracing::debug!(was, active, used, "workers in use");
        } else if active == pool.count() || look % STRAYS_LOOK != 0 {
            continue;
        }
        let mut nth = 0;
        relay.router.for_each_peer(|peer| {
            let at = peer.worker.load(Ordering::Relaxed) as usize;
            let to = spread::place(nth, at, was, active);
            nth += 1;
            if to != at {
                peer.worker.store(to as u32, Ordering::Relaxed);
                peer.mailbox.wake();
            }
        });
    }
}

/// Frees queues whenever too many bytes wait for all clients together.
pub async fn queue_memory(relay: Arc<Relay>) {
    loop {
        relay.budget.exceeded().await;
        while relay.budget.excess() > 0 {
            let cut = conn::sweep::cut_blocked(&relay);
            if cut > 0 {
                let most = relay.budget.most();
                tracing::warn!(
                    cut,
                    most,
                    "too much waits for slow clients (--queue-memory); cut the slowest"
                );
            }
            // The remaining clients do take frames; the only thing to do is to wait for them.
            tokio::time::sleep(QUEUE_PAUSE).await;
        }
    }
}

/// Ends expired sessions and renews the challenge secret.
pub async fn sessions(relay: Arc<Relay>, udp: Arc<UdpRelay>) {
    let mut ticks = ticks(SESSION_SWEEP);
    loop {
        ticks.tick().await;
        let ended = relay.router.sweep(clock::monotonic_ns);
        relay.counters.add(Counter::UdpExpired, ended as u64);
        udp.rotate_secrets(clock::monotonic_ns(), || {
            let mut secret = [0; 32];
            OsRng.fill_bytes(&mut secret);
            secret
        });
    }
}

/// Sends the XDP program its heartbeat and audits its session map.
pub async fn kernel(relay: Arc<Relay>, fast: Arc<FastPath>) {
    let (mut beats, mut audits) = (ticks(HEARTBEAT), ticks(AUDIT));
    loop {
        tokio::select! {
            _ = beats.tick() => {
                if let Err(error) = fast.heartbeat(clock::monotonic_ns()) {
                    tracing::warn!(%error, "cannot write the heartbeat; the program will pass everything");
                }
            }
            _ = audits.tick() => {
                let before = relay.router.kernel_health().drift;
                let health = relay.router.audit();
                if health.drift > before {
                    tracing::warn!(drift = health.drift - before, "the session map had drifted; repaired");
                }
            }
        }
    }
}

/// Looks up the next hop of each leg when it is bound, and of all legs when the host's routing changes.
pub async fn next_hops(
    relay: Arc<Relay>,
    hops: NextHops,
    mut changes: mpsc::Receiver<()>,
    mut bound: mpsc::Receiver<BoundLeg>,
) {
    let mut refresh = ticks(NEXT_HOP_REFRESH);
    loop {
        tokio::select! {
            leg = bound.recv() => match leg {
                Some(leg) => resolve(&relay, &hops, leg),
                None => return,
            },
            // If the watch has ended, this branch no longer matches; the refresh goes on.
            Some(()) = changes.recv() => resolve_all(&relay, &hops),
            _ = refresh.tick() => {
                confirm_neighbours(&relay, &hops);
                resolve_all(&relay, &hops);
            }
        }
    }
}

fn resolve_all(relay: &Relay, hops: &NextHops) {
    for (vni, leg, path) in relay.router.leg_paths() {
        resolve(relay, hops, BoundLeg { vni, leg, path });
    }
}

/// Confirms the neighbours in use. XDP's packets do not pass through the kernel's neighbour table; without
/// this, entries in use would grow stale.
fn confirm_neighbours(relay: &Relay, hops: &NextHops) {
    for (vni, leg, path) in relay.router.leg_paths() {
        if let Err(error) = hops.refresh(path.local.ip(), path.remote.ip()) {
            tracing::debug!(vni, leg, remote = %path.remote, %error, "cannot confirm the neighbour");
        }
    }
}

fn resolve(relay: &Relay, hops: &NextHops, BoundLeg { vni, leg, path }: BoundLeg) {
    let hop = hops.resolve(path.local.ip(), path.remote.ip());
    if let Err(error) = &hop {
        let remote = path.remote;
        tracing::debug!(vni, leg, %remote, %error, "no next hop; userspace carries the session");
    }
    relay.router.next_hop(vni, leg, path, hop.ok(), clock::monotonic_ns());
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
