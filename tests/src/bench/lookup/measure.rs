//! Times look-ups on all cores at once, and counts their allocations.
//!
//! The convention is that of Go's `RunParallel`: wall-clock time divided by the operations of all threads,
//! while all threads are busy. Go starts 32 goroutines per core; here one thread per core does the same work.

use std::hint::black_box;
use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use relay_common::key::NodePublic;
use relay_user::route::cache::Cache;
use relay_user::route::link;
use relay_user::route::peer::Peer;

use super::clients::{Clients, Load};
use super::random::{Random, mix};

/// Look-ups between two readings of the clock.
const ROUND: usize = 4096;

/// How a connection finds the receiver of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One mutex around one map, as upstream had before its hash trie.
    Mutex,
    /// The mirror of the table, read for every packet.
    Mirror,
    /// The connection's own cache in front of the mirror, as in relayd.
    Cache,
}

/// One measured run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Wall-clock nanoseconds divided by the look-ups of all threads.
    pub ns: f64,
    /// CPU nanoseconds of one look-up; other work on the machine disturbs them less.
    pub cpu_ns: f64,
    /// Look-ups of all threads.
    pub ops: usize,
    /// Share of the look-ups that found their connection.
    pub found: f64,
    /// Allocations of the look-up threads in the timed part.
    pub allocations: u64,
}

/// Looks up for `time` on every core.
///
/// # Panics
/// If a thread panics, or if hardly any look-up finds a connection.
pub fn measure(way: Way, load: Load, time: Duration) -> Sample {
    let clients = Arc::new(Clients::new(load));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let stop = Arc::new(AtomicBool::new(false));
    let start = Barrier::new(threads);
    let churn = clients.come_and_go(&stop);
    let runs: Vec<Run> = thread::scope(|scope| {
        let spawn = |seed| {
            let (clients, start) = (&clients, &start);
            scope.spawn(move || Worker::new(way, load, clients, seed).run(start, time))
        };
        let workers: Vec<_> = (1..=threads as u64).map(spawn).collect();
        workers.into_iter().map(|worker| worker.join().expect("a look-up panicked")).collect()
    });
    stop.store(true, Ordering::Relaxed);
    if let Some(churn) = churn {
        churn.join().expect("the churn panicked");
    }
    let ops = runs.iter().map(|run| run.ops).sum();
    let begin = runs.iter().map(|run| run.begin).min();
    let wall =
        runs.iter().map(|run| run.end).max().zip(begin).map_or(Duration::ZERO, |(end, begin)| end - begin);
    let per_op = |time: Duration| time.as_secs_f64() * 1e9 / ops as f64;
    let found = runs.iter().map(|run| run.found).sum::<usize>() as f64 / ops as f64;
    assert!(found > 0.9, "only {found} of the look-ups found their client");
    Sample {
        ns: per_op(wall),
        cpu_ns: per_op(runs.iter().map(|run| run.cpu).sum()),
        ops,
        found,
        allocations: runs.iter().map(|run| run.allocations).sum(),
    }
}

struct Worker<'a> {
    way: Way,
    load: Load,
    clients: &'a Clients,
    cache: Cache,
    random: Random,
}

struct Run {
    begin: Instant,
    end: Instant,
    cpu: Duration,
    ops: usize,
    found: usize,
    allocations: u64,
}

impl<'a> Worker<'a> {
    fn new(way: Way, load: Load, clients: &'a Clients, seed: u64) -> Self {
        let mut cache = Cache::default();
        if way == Way::Cache {
            // The state of a connection that has sent to every key.
            for n in 0..load.clients() {
                cache.lookup(&load.key(n), &clients.router);
            }
        }
        Self { way, load, clients, cache, random: Random(mix(seed)) }
    }

    fn run(mut self, start: &Barrier, time: Duration) -> Run {
        start.wait();
        let (begin, cpu) = (Instant::now(), thread_cpu());
        let (mut ops, mut found) = (0, 0);
        let counted = allocation_counter::measure(|| {
            while begin.elapsed() < time {
                found += self.round();
                ops += ROUND;
            }
        });
        Run {
            begin,
            end: Instant::now(),
            cpu: thread_cpu() - cpu,
            ops,
            found,
            allocations: counted.count_total,
        }
    }

    /// Each combination of load and way has its own loop, so that no branch for them runs inside it.
    fn round(&mut self) -> usize {
        let Self { way, load, clients, cache, random } = self;
        let (router, load) = (&clients.router, *load);
        let hot = [0, 1, 2, 3].map(|n| Load::FourHot.key(n));
        let hot = (0..ROUND).map(|i| &hot[i % 4]);
        match (load, way) {
            (Load::FourHot, Way::Cache) => {
                hot.filter(|key| is_hit(here(cache.lookup(key, router)), key)).count()
            }
            (Load::FourHot, Way::Mirror) => hot.filter(|key| is_hit(router.peer(key).as_ref(), key)).count(),
            (Load::FourHot, Way::Mutex) => {
                hot.filter(|key| is_hit(clients.locked(key).as_ref(), key)).count()
            }
            (Load::Many { clients: count, .. }, way) => {
                let keys = iter::repeat_with(|| load.key(random.below(count))).take(ROUND);
                match way {
                    Way::Cache => keys.filter(|key| is_hit(here(cache.lookup(key, router)), key)).count(),
                    Way::Mirror => keys.filter(|key| is_hit(router.peer(key).as_ref(), key)).count(),
                    Way::Mutex => keys.filter(|key| is_hit(clients.locked(key).as_ref(), key)).count(),
                }
            }
        }
    }
}

/// The client, as the daemon takes it from what its cache finds.
fn here(found: Option<&link::Way>) -> Option<&Arc<Peer>> {
    found.and_then(link::Way::peer)
}

/// Checks that the right client was found, as upstream's benchmark does; it reads the memory that a packet
/// would read next.
fn is_hit(found: Option<&Arc<Peer>>, key: &NodePublic) -> bool {
    black_box(found).is_some_and(|peer| peer.key == *key)
}

/// CPU time of the calling thread so far.
fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_look_up_allocates() {
        for way in [Way::Mutex, Way::Mirror, Way::Cache] {
            assert_eq!(measure(way, Load::FourHot, Duration::from_millis(20)).allocations, 0, "{way:?}");
        }
    }

    #[test]
    fn nearly_all_clients_are_found_while_some_come_and_go() {
        let load = Load::Many { clients: 1000, churn: 1000 };
        let sample = measure(Way::Cache, load, Duration::from_millis(50));
        assert!(sample.found > 0.9 && sample.found <= 1.0, "{}", sample.found);
    }
}
