//! Walks over all sessions in slices; between two slices other threads can take the table.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI32, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

fn router(sessions: u32) -> Router {
    let router = Router::new(Limits { max_sessions: sessions, ..limits() }, None);
    for n in 0..sessions {
        let mut key = [1; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let other = DiscoPublic::from_bytes(key.map(|byte| !byte));
        router.allocate([DiscoPublic::from_bytes(key), other], 1).expect("there is room");
    }
    router
}

#[test]
fn a_slice_is_small_and_all_slices_are_all_sessions() {
    const SESSIONS: u32 = 2 * WALK as u32 + 44;
    let router = router(SESSIONS);
    let (mut sizes, mut last) = (Vec::new(), 0);
    loop {
        let mut seen = 0;
        let end = router.sessions_after(last, |session| session.vni() != 1, |_, _| seen += 1);
        let Some(end) = end else { break };
        sizes.push(seen);
        last = end;
    }
    assert_eq!(sizes, [WALK - 1, WALK, 44]);
    assert_eq!(router.session_counts(), (SESSIONS as usize, 0));
}

#[test]
fn all_sessions_that_are_meant_end_and_no_others() {
    const SESSIONS: u32 = 300;
    let router = router(SESSIONS);
    assert_eq!(router.end_sessions(|session| session.vni % 2 == 0), 150);
    assert_eq!(router.end_sessions(|session| session.vni % 2 == 0), 0, "they are gone");
    assert_eq!(router.session_counts().0, 150);
    assert!((1..=SESSIONS).all(|vni| router.session(vni).is_some() == (vni % 2 == 1)));
}

/// A thread that waits for the table gets it during a walk, not only at its end.
#[test]
fn who_waits_for_the_table_gets_it_between_the_slices_of_a_walk() {
    const SLICES: usize = 32;
    let router = router((SLICES * WALK) as u32);
    for round in 0..10 {
        let (walked, waiter_tid) = (AtomicUsize::new(0), AtomicI32::new(0));
        let at = thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                while walked.load(SeqCst) == 0 {
                    thread::yield_now();
                }
                waiter_tid.store(nix::unistd::gettid().as_raw(), SeqCst);
                let _held = router.hold();
                walked.load(SeqCst)
            });
            let mut last = Some(0);
            while let Some(after) = last {
                last = router.ways_after(after, |_| {
                    // Continues once the other thread sleeps, which it does only in the lock's queue.
                    if walked.fetch_add(1, SeqCst) == 0 {
                        wait_until(|| is_asleep(waiter_tid.load(SeqCst)));
                    }
                });
            }
            waiter.join().expect("no panic")
        });
        // The other thread's turn should come after the next slice; a few more are allowed in case it first
        // slept for another reason.
        assert!(at <= 4 * WALK, "round {round}: it waited for {at} of {} sessions", SLICES * WALK);
    }
}

fn wait_until(done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "the other thread never waited");
        thread::yield_now();
    }
}

/// The state, which follows the name in the thread's line of proc(5).
fn is_asleep(tid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
}
