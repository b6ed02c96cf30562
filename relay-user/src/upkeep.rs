//! The daemon's repeated work: sweeps, the heartbeat, audits, next hops.
//!
//! All of it runs on the main thread, on which no packet is relayed, except the search for next hops, which
//! has a thread of its own.
//!
//! The packet paths keep no timers; these few tasks check all connections and sessions in turn.

pub mod next_hops;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand_core::{OsRng, RngCore};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::clock;
use crate::conn;
use crate::fastpath::FastPath;
use crate::observe::counters::Counter;
use crate::relay::Relay;
use crate::route;
use crate::udp::relay::UdpRelay;
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

/// Pause between two turns of a walk over all sessions.
const TURN: Duration = Duration::from_millis(2);

/// The part of a period within which a walk over all sessions is done, in percent.
const WITHIN: u32 = 80;

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

/// Renews the challenge secret, and ends expired sessions, a few at a time.
pub async fn sessions(relay: Arc<Relay>, udp: Arc<UdpRelay>) {
    let mut ticks = ticks(SESSION_SWEEP);
    loop {
        ticks.tick().await;
        udp.rotate_secrets(clock::monotonic_ns(), || {
            let mut secret = [0; 32];
            OsRng.fill_bytes(&mut secret);
            secret
        });
        let (held, router) = (&relay.control.sweep, &relay.router);
        walk(&relay, SESSION_SWEEP, |after| {
            let (ended, end) = held.note(|| router.sweep_slice(after, clock::monotonic_ns()));
            relay.counters.add(Counter::UdpExpired, ended as u64);
            end
        })
        .await;
        held.pass();
    }
}

/// Shows the XDP program that the daemon lives, and watches that it stays attached.
pub async fn heartbeat(relay: Arc<Relay>, fast: Arc<FastPath>) {
    let mut beats = ticks(HEARTBEAT);
    loop {
        beats.tick().await;
        if let Err(error) = fast.heartbeat(clock::monotonic_ns()) {
            tracing::warn!(%error, "cannot write the heartbeat; the program will pass everything");
        }
        let carried = relay.counters.get(Counter::UdpForwarded);
        let losses = fast.watch(clock::monotonic_ns(), carried, || relay.router.session_counts().1);
        relay.counters.add(Counter::XdpLost, losses);
    }
}

/// Audits the session map, a few sessions at a time.
pub async fn audits(relay: Arc<Relay>) {
    let mut ticks = ticks(AUDIT);
    let mut drift = 0;
    loop {
        ticks.tick().await;
        let (held, router) = (&relay.control.audit, &relay.router);
        let mut at = None;
        walk(&relay, AUDIT / 2, |_| {
            at = router.map_part(at).and_then(|part| held.note(|| router.audit_part(part)));
            at.map(|_| 0)
        })
        .await;
        walk(&relay, AUDIT / 2, |after| held.note(|| router.audit_table_slice(after))).await;
        held.pass();
        let health = router.kernel_health();
        if health.drift > drift {
            tracing::warn!(drift = health.drift - drift, "the session map had drifted; repaired");
        }
        drift = health.drift;
    }
}

/// Calls `slice` until it returns `None`, each time with the last result. The calls are spread so that a walk
/// over all sessions ends well within `period`, and leaves the thread to others in between.
async fn walk(relay: &Relay, period: Duration, mut slice: impl FnMut(u32) -> Option<u32>) {
    let (start, within) = (Instant::now(), period * WITHIN / 100);
    let slices = (relay.router.session_counts().0 / route::WALK) as f64;
    let (mut after, mut done) = (0, 0.0);
    loop {
        // As many as should be done by the end of the pause that follows.
        let due = slices * ((start.elapsed() + TURN).as_secs_f64() / within.as_secs_f64());
        loop {
            match slice(after) {
                Some(end) => after = end,
                None => return,
            }
            done += 1.0;
            if done >= due {
                break;
            }
        }
        sleep(TURN).await;
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
