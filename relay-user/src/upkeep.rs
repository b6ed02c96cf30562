//! What has to be done again and again: sweeps, the heartbeat, audits, next hops.
//!
//! The packet paths keep no timers; these few tasks look at everything in turn.

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

/// Keep-alives and write deadlines are looked at this often.
const CONNECTION_SWEEP: Duration = Duration::from_millis(500);

/// Between two looks at how many workers the load needs.
const SPREAD_LOOK: Duration = Duration::from_millis(100);

/// Every how many of those looks there is one for connections that logged in while their worker was let go.
const STRAYS_LOOK: u64 = 50;

/// Between two looks at queues that hold too much.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// Sessions' liveness, and with it their expiry.
const SESSION_SWEEP: Duration = Duration::from_secs(5);

/// Well within [`relay_common::fastpath::HEARTBEAT_LIMIT_NS`], also when a beat or two is late.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The BPF map is compared with the table.
const AUDIT: Duration = Duration::from_secs(30);

/// Every leg's next hop is looked up afresh, whatever netlink says, and its neighbour kept confirmed.
const NEXT_HOP_REFRESH: Duration = Duration::from_secs(20);

/// Keeps connections alive, and ends those that take nothing.
pub async fn connections(relay: Arc<Relay>) {
    let mut ticks = ticks(CONNECTION_SWEEP);
    loop {
        ticks.tick().await;
        conn::sweep::sweep(&relay, clock::monotonic_ms());
    }
}

/// Gives the connections as many workers as their load needs.
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

/// Frees queues whenever too much waits for all clients together.
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
            // Those that are left take; all that can be done is to wait until they have.
            tokio::time::sleep(QUEUE_PAUSE).await;
        }
    }
}

/// Ends sessions that are over, and renews the challenge secret.
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

/// Tells the XDP program that the daemon lives, and audits its session map.
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

/// Looks up the next hop of each leg as it is bound, and of all legs when the host's routing changes.
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
            // A watch that ended matches no more; the refresh goes on.
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

/// XDP's packets do not pass through the kernel's neighbour table; without this, entries in use would grow
/// stale.
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
