//! The threads on which packets are relayed, each with an event loop of its own.
//!
//! ```text
//!   listen ─► the worker with the fewest ─► login ─► task ─┬─ stays: no queue of tasks is shared
//!   upkeep ─► spread: how many are used ─────────────────► └─ moves, when that changes
//! ```
//! A second worker makes each packet dearer: there are more wake-ups, and fewer packets in each. So only as
//! many are used as the load needs. The first one also accepts. What is not about packets and may take long
//! runs elsewhere: nothing long ever stands before a packet.

pub mod spread;
pub mod task;

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{fs, io, panic};

use nix::unistd::{Pid, gettid};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::conn::pause;
use crate::threads;

thread_local! {
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The number of the worker whose thread this is.
pub fn here() -> Option<usize> {
    HERE.get()
}

/// What workers are given work through.
#[derive(Debug)]
pub struct Pool {
    workers: Vec<Worker>,
    active: AtomicUsize,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    thread: Pid,
}

/// The threads, each a runtime of one: that, unlike a runtime in the current thread, runs the receiver that a
/// read has woken next, while what was read for it is in the cache.
///
/// Dropping this ends them, and what runs on them; not to be done by a task of any runtime, as it waits.
#[derive(Debug, Default)]
pub struct Workers {
    runtimes: Vec<Runtime>,
}

impl Workers {
    /// Starts `count` threads, of which one is used so far; `busy_pause` is [`pause::before_sleep`]'s, zero
    /// for none.
    ///
    /// # Errors
    /// The system has no thread or no file for one of them. Those that it had are left for the drop.
    pub fn start(&mut self, count: usize, busy_pause: Duration) -> io::Result<Arc<Pool>> {
        let mut workers = Vec::new();
        for number in 0..count.max(1) {
            let (said, thread) = mpsc::channel();
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(1).thread_name("relayd-worker").enable_all();
            builder.on_thread_start(move || {
                HERE.set(Some(number));
                pause::precise();
                // Nobody waits for it any more if the start has failed.
                let _ = said.send(gettid());
            });
            if !busy_pause.is_zero() {
                builder.on_thread_park(move || pause::before_sleep(busy_pause));
            }
            // Without one it panics; it does so all the same if the last one has gone in between.
            threads::check()?;
            let runtime = panic::catch_unwind(AssertUnwindSafe(|| builder.build()));
            let runtime = runtime.map_err(|_| io::Error::other("no thread is to be had"))??;
            let handle = runtime.handle().clone();
            self.runtimes.push(runtime);
            workers.push(Worker { handle, thread: thread.recv().map_err(io::Error::other)? });
        }
        Ok(Arc::new(Pool { workers, active: AtomicUsize::new(1) }))
    }
}

impl Pool {
    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// How many get connections: the first so many.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Lets the first `active` have the connections. Those that others have are not moved by this.
    pub fn set_active(&self, active: usize) {
        self.active.store(active.clamp(1, self.count()), Ordering::Relaxed);
    }

    /// A worker by its number; they repeat beyond [`Pool::count`].
    pub fn nth(&self, number: usize) -> &Handle {
        &self.workers[number % self.workers.len()].handle
    }

    /// Of those that get connections, the one with the fewest tasks.
    pub fn least(&self) -> &Handle {
        self.nth((0..self.active()).min_by_key(|number| self.tasks(*number)).unwrap_or(0))
    }

    /// Tasks of a worker.
    pub fn tasks(&self, number: usize) -> usize {
        self.nth(number).metrics().num_alive_tasks()
    }

    /// CPU time that all workers have had together.
    ///
    /// # Errors
    /// The system does not say.
    pub fn cpu(&self) -> io::Result<Duration> {
        self.workers.iter().map(|worker| cpu_of(worker.thread)).sum()
    }
}

/// CPU time of a thread of this process (proc(5): the first number is in nanoseconds).
fn cpu_of(thread: Pid) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
    let ns = text.split(' ').next().and_then(|field| field.parse().ok());
    ns.map(Duration::from_nanos).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_go_to_the_active_workers_and_end_with_them() {
        let mut workers = Workers::default();
        let pool = workers.start(3, Duration::ZERO).expect("threads");
        let (alive, ended) = mpsc::channel::<()>();
        for active in [1, 2, 3] {
            pool.set_active(active);
            for _ in 0..3 {
                let alive = alive.clone();
                pool.least().spawn(async move {
                    std::future::pending::<()>().await;
                    drop(alive);
                });
            }
        }
        drop(alive);
        let tasks: Vec<_> = (0..3).map(|number| pool.tasks(number)).collect();
        assert_eq!(tasks, [3, 3, 3]);
        drop(workers);
        assert!(ended.recv().is_err(), "all tasks are gone");
    }

    #[test]
    fn a_task_that_panics_leaves_its_worker_to_the_others() {
        let mut workers = Workers::default();
        let pool = workers.start(1, Duration::ZERO).expect("a thread");
        let (said, heard) = mpsc::channel();
        pool.least().spawn(async { panic!("a bug") });
        pool.least().spawn(async move { said.send(here()).expect("heard") });
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(Some(0)), "it goes on");
        assert_eq!(here(), None);
    }

    #[test]
    fn the_workers_cpu_time_grows_with_what_they_do() {
        let mut workers = Workers::default();
        let pool = workers.start(2, Duration::ZERO).expect("threads");
        let before = pool.cpu().expect("proc");
        let (said, heard) = mpsc::channel();
        let thread = pool.workers[1].thread;
        pool.nth(1).spawn(async move {
            let start = cpu_of(thread).expect("proc");
            while cpu_of(thread).expect("proc") < start + Duration::from_millis(5) {}
            said.send(()).expect("heard");
        });
        heard.recv().expect("done");
        assert!(pool.cpu().expect("proc") >= before + Duration::from_millis(5));
    }
}
