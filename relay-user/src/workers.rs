//! The threads on which packets are relayed, each with an event loop of its own.
//!
//! ```text
//!   listen ─► the worker with the fewest ─► login ─► task ─┬─ stays: no queue of tasks is shared
//!   upkeep ─► spread: how many are used ─────────────────► └─ moves, when that changes
//! ```
//! Each further worker makes every packet dearer: there are more wake-ups, with fewer packets each. So only
//! as many workers are used as the load needs. The first worker also accepts. Work other than relaying that
//! may take long runs on other threads: a packet never waits for a long task.

pub mod pause;
pub mod spread;

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{fs, io, panic};

use nix::unistd::{Pid, gettid};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::threads;

thread_local! {
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The number of the worker that runs this thread; `None` on other threads.
pub fn here() -> Option<usize> {
    HERE.get()
}

/// The handle through which workers are given work.
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

/// The worker threads. Each runs a runtime with one worker thread. Unlike a current-thread runtime, it next
/// runs the receiver that a read has just woken, while the data for it is still in the cache.
///
/// Dropping this ends the threads and their tasks. Drop it outside any runtime's tasks, because the drop
/// waits.
#[derive(Debug, Default)]
pub struct Workers {
    runtimes: Vec<Runtime>,
}

impl Workers {
    /// Starts `count` threads, of which one is used at first. `busy_pause` is the pause of
    /// [`pause::before_sleep`]; zero: none.
    ///
    /// # Errors
    /// The system has no thread or no file for one of the threads. The threads started before are ended by
    /// the drop.
    pub fn start(&mut self, count: usize, busy_pause: Duration) -> io::Result<Arc<Pool>> {
        let mut workers = Vec::new();
        for number in 0..count.max(1) {
            let (said, thread) = mpsc::channel();
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(1).thread_name("relayd-worker").enable_all();
            builder.on_thread_start(move || {
                HERE.set(Some(number));
                pause::allow_short_sleeps();
                // If the start has failed, nobody waits for this message.
                let _ = said.send(gettid());
            });
            if !busy_pause.is_zero() {
                builder.on_thread_park(move || pause::before_sleep(busy_pause));
            }
            // The runtime panics if it gets no thread. This check makes that unlikely, but the last thread
            // may be taken in between.
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
    /// Number of workers; at least one.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// Number of workers that get connections; these are the first ones.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Sets how many workers get connections. Connections on the other workers are not moved by this call.
    pub fn set_active(&self, active: usize) {
        self.active.store(active.clamp(1, self.count()), Ordering::Relaxed);
    }

    /// The worker with this number; beyond [`Pool::count`] the numbers start again at the first worker.
    pub fn nth(&self, number: usize) -> &Handle {
        &self.workers[number % self.workers.len()].handle
    }

    /// The worker with the fewest tasks, among those that get connections.
    pub fn least(&self) -> &Handle {
        self.nth((0..self.active()).min_by_key(|number| self.tasks(*number)).unwrap_or(0))
    }

    /// Number of tasks of a worker.
    pub fn tasks(&self, number: usize) -> usize {
        self.nth(number).metrics().num_alive_tasks()
    }

    /// CPU time that all workers have used together.
    ///
    /// # Errors
    /// The system does not report the CPU time.
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
