//! A thread with an event loop of its own, for work that no other thread may wait for.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::REMEDY;

/// The running thread. Dropping it ends the thread and waits for that.
#[derive(Debug)]
pub struct EventLoop {
    name: &'static str,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Starts a thread, calls `open` there, in its event loop, and then runs `run` with the result until it
    /// is done or this is dropped. The future is done when the thread has ended.
    ///
    /// # Errors
    /// There is no thread or event loop to be had, or the error of `open`.
    pub fn start<T: 'static>(
        name: &'static str,
        open: impl FnOnce() -> io::Result<T> + Send + 'static,
        run: impl AsyncFnOnce(T) + Send + 'static,
    ) -> io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let (stop, stopped) = oneshot::channel();
        let (alive, ended) = oneshot::channel::<()>();
        let (said, begun) = mpsc::channel();
        let body = move || {
            let _alive = alive;
            // The runtime is made here, because it must not be dropped in the caller's context.
            let started = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let started = started.and_then(|runtime| {
                let opened = runtime.block_on(async { open() })?;
                Ok((runtime, opened))
            });
            let (runtime, opened) = match started {
                Ok(started) => started,
                // The caller waits for this result.
                Err(error) => return drop(said.send(Err(error))),
            };
            let _ = said.send(Ok(()));
            runtime.block_on(async {
                tokio::select! {
                    () = run(opened) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
        let thread = thread.map_err(|error| io::Error::new(error.kind(), format!("{error}; {REMEDY}")))?;
        begun.recv().map_err(io::Error::other)??;
        let ended = async {
            // Nothing is ever sent: the other end is dropped with the thread.
            let _ = ended.await;
        };
        Ok((Self { name, stop: Some(stop), thread: Some(thread) }, ended))
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!(thread = self.name, "the thread has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_whose_start_fails_says_why_and_one_that_is_dropped_ends() {
        let failed = EventLoop::start("relayd-test", || Err::<(), _>(io::Error::other("no")), async |()| {});
        assert_eq!(failed.err().map(|error| error.to_string()), Some("no".to_owned()));
        let (said, heard) = mpsc::channel::<u8>();
        let open = move || said.send(1).map(|()| said).map_err(io::Error::other);
        let run = async |_held| std::future::pending().await;
        let (running, _ended) = EventLoop::start("relayd-test", open, run).expect("a thread");
        assert_eq!(heard.recv(), Ok(1));
        drop(running);
        assert!(heard.recv().is_err(), "the thread has let go of what it held");
    }
}
