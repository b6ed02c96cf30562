//! Single steps whose outcome is known, on the run of the random histories.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

#[test]
fn lookups_do_not_wait_for_the_tables_lock() {
    let mut run = Run::new();
    run.step(Step::Login { conn: 1, key: 0 });
    run.step(Step::Allocate { a: 0, b: 1 });
    let vni = run.model.sessions[0].vni;
    let mut cache = cache::Cache::default();
    let held = run.router.hold();
    // This runs on the thread that holds the lock: a look-up that took the lock would block for ever.
    for _ in 0..2 {
        assert!(cache.lookup(&key(0), &run.router).is_some());
        assert!(cache.lookup(&key(1), &run.router).is_none());
        assert!(run.router.session(vni).is_some());
        assert!(run.router.session(vni + 1).is_none());
    }
    drop(held);
}

#[test]
fn a_cached_destination_that_left_is_not_used_again() {
    let mut run = Run::new();
    run.step(Step::Login { conn: 1, key: 0 });
    let mut cache = cache::Cache::default();
    assert_eq!(cache.lookup(&key(0), &run.router).and_then(Way::peer).map(|peer| peer.id), Some(ConnId(1)));
    run.step(Step::Login { conn: 2, key: 0 });
    assert_eq!(cache.lookup(&key(0), &run.router).and_then(Way::peer).map(|peer| peer.id), Some(ConnId(2)));
    run.step(Step::Frame { conn: 1 });
    assert_eq!(cache.lookup(&key(0), &run.router).and_then(Way::peer).map(|peer| peer.id), Some(ConnId(1)));
    run.step(Step::Leave { conn: 1 });
    run.step(Step::Leave { conn: 2 });
    assert!(cache.lookup(&key(0), &run.router).is_none());
}

#[test]
fn those_who_heard_from_a_key_are_told_when_its_last_connection_leaves() {
    let mut run = Run::new();
    run.step(Step::Login { conn: 1, key: 0 });
    run.step(Step::Login { conn: 2, key: 0 });
    run.step(Step::Login { conn: 3, key: 1 });
    run.step(Step::Login { conn: 4, key: 2 });
    let heard = |n: u8| {
        let mut cache = cache::Cache::default();
        cache.lookup(&key(n), &run.router).expect("connected");
        cache.into_audience()
    };
    let (first, second) = (heard(1), heard(2));
    assert!(run.router.leave(&run.peers[&1], first, 1).wake.is_empty(), "the key is still here");
    let told = run.router.leave(&run.peers[&2], second, 1);
    let mut told: Vec<_> = told.wake.iter().map(|peer| peer.id).collect();
    told.sort();
    assert_eq!(told, [ConnId(3), ConnId(4)]);
}

#[test]
fn an_install_that_failed_is_made_up_for_by_the_audit() {
    let mut run = up();
    run.step(Step::Hop { nth: 0, leg: 1, number: None });
    run.kernel.with(|map| map.fail_next = Some(MapError::Full));
    run.step(Step::Hop { nth: 0, leg: 1, number: Some(2) });
    assert_eq!(run.router.kernel_health().failures, 1);
    let health = audit(&run.router);
    assert_eq!((health.drift, run.router.kernel_health().audits), (1, 1));
    run.check();
    // Failed removals are counted too, and so is an audit that cannot repair.
    run.kernel.with(|map| map.fail_next = Some(MapError::Full));
    run.step(Step::Hop { nth: 0, leg: 1, number: None });
    assert_eq!(run.router.kernel_health().failures, 2);
    run.kernel.with(|map| map.fail_next = Some(MapError::Full));
    assert_eq!(audit(&run.router), KernelHealth { failures: 3, audits: 2, drift: 2 });
    assert_eq!(audit(&run.router), KernelHealth { failures: 3, audits: 3, drift: 3 });
    run.check();
}

/// A run with one session, which is in the kernel.
fn up() -> Run {
    let mut run = Run::new();
    run.step(Step::Allocate { a: 0, b: 1 });
    run.step(Step::Up { nth: 0, port: 1 });
    assert_eq!(run.kernel.with(|map| map.sessions.len()), 1);
    run
}

#[test]
fn a_session_lives_while_the_kernel_hears_both_legs_and_leaves_it_with_its_end() {
    let mut run = up();
    let slot = run.kernel.with(|map| map.sessions.values().next().expect("one").stats_slot);
    let mut heard = SessionStats::zeroed();
    run.now_ns += 200 * SECOND;
    heard.legs.iter_mut().for_each(|leg| leg.last_seen_ns = run.now_ns);
    run.kernel.with(|map| map.stats.insert(slot, heard));
    run.now_ns += 200 * SECOND;
    let now_ns = run.now_ns;
    assert_eq!(sweep(&run.router, now_ns), 0, "userspace alone has heard nothing for 400 s");
    assert_eq!(sweep(&run.router, now_ns + 101 * SECOND), 1);
    assert_eq!(run.kernel.with(|map| map.sessions.len()), 0);
}

#[test]
fn every_bind_and_every_session_has_a_number_of_its_own() {
    let mut run = Run::new();
    let mut last = 0;
    for b in 1..4 {
        run.step(Step::Allocate { a: 0, b });
        let session = run.router.allocate([disco(0), disco(b)], run.now_ns).expect("known");
        assert_eq!((session.lamport_id, session.route.generation()), (last + 1, 0));
        last = session.lamport_id;
    }
    for generation in 1..4 {
        run.step(Step::Bind { nth: 0, leg: 0 });
        run.step(Step::Answer { nth: 0, leg: 0, old: 0, port: 1 });
        let session = run.router.allocate([disco(0), disco(1)], run.now_ns).expect("known");
        assert_eq!(session.route.generation(), generation);
    }
}

#[test]
fn a_leg_was_last_heard_where_it_was_heard_later() {
    let mut run = Run::new();
    run.step(Step::Allocate { a: 0, b: 1 });
    let vni = run.model.sessions[0].vni;
    let route = run.router.session(vni).expect("allocated");
    route.side[0].heard(5);
    route.side[1].heard(9);
    assert_eq!(route.last_seen_ns(None), [5, 9]);
    route.side[0].count(1, 1);
    route.side[0].count(3, 20);
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((read(&route.side[0].packets), read(&route.side[0].bytes)), (4, 21));
    let mut kernel = SessionStats::zeroed();
    (kernel.legs[0].last_seen_ns, kernel.legs[1].last_seen_ns) = (7, 7);
    assert_eq!(route.last_seen_ns(Some(&kernel)), [7, 9]);
}

#[test]
fn neither_nobodys_key_nor_the_relays_own_gets_a_session() {
    let run = Run::new();
    for wrong in [DiscoPublic::default(), disco(99)] {
        for pair in [[disco(0), wrong], [wrong, disco(0)]] {
            let refused = run.router.allocate(pair, run.now_ns).expect_err("refused");
            assert_eq!(refused, Refusal::BadPair);
        }
    }
}

#[test]
fn an_entry_is_written_only_when_it_says_something_new() {
    let mut run = up();
    let written = |run: &Run| run.kernel.with(|map| map.installs);
    let before = written(&run);
    for second in 1..=10 {
        run.now_ns += SECOND;
        run.step(Step::Heard { nth: 0, leg: 0 });
        run.step(Step::Heard { nth: 0, leg: 1 });
        run.step(Step::Sweep);
        run.step(Step::Hop { nth: 0, leg: (second % 2) as usize, number: Some(1) });
    }
    assert_eq!(written(&run), before, "its expiry has moved by 10 of 300 seconds");
    run.now_ns += 20 * SECOND;
    run.step(Step::Heard { nth: 0, leg: 0 });
    run.step(Step::Heard { nth: 0, leg: 1 });
    run.step(Step::Sweep);
    run.step(Step::Sweep);
    assert_eq!(written(&run), before + 1, "a tenth of the lifetime");
    run.step(Step::Hop { nth: 0, leg: 0, number: Some(2) });
    assert_eq!(written(&run), before + 2, "another way");
}

#[test]
fn a_session_that_the_kernel_never_had_shows_no_counters_of_its_slots_last_user() {
    let mut run = up();
    let slot = run.kernel.with(|map| map.sessions.values().next().expect("one").stats_slot);
    let mut heard = SessionStats::zeroed();
    heard.legs[0].packets = 7;
    run.kernel.with(|map| map.stats.insert(slot, heard));
    let shown = |run: &Run| {
        let mut shown = Vec::new();
        run.router.sessions_after(
            0,
            |_| true,
            |_, stats| shown.push(stats.map(|stats| stats.legs[0].packets)),
        );
        shown
    };
    assert_eq!(shown(&run), [Some(7)]);
    run.now_ns += 400 * SECOND;
    run.step(Step::Sweep);
    // One slot after the other, until the first one is used again.
    for b in 1..=SLOTS as u8 {
        run.step(Step::Allocate { a: 0, b });
    }
    assert_eq!(shown(&run), vec![None; SLOTS as usize]);
    run.step(Step::Up { nth: 0, port: 1 });
    assert!(shown(&run).contains(&Some(0)), "and then its own");
}

#[test]
fn whoever_asks_for_a_session_again_gets_it_for_the_whole_lifetime() {
    let mut run = Run::new();
    run.step(Step::Allocate { a: 0, b: 1 });
    run.now_ns += 29 * SECOND;
    run.step(Step::Allocate { a: 1, b: 0 });
    run.now_ns += 29 * SECOND;
    run.step(Step::Sweep);
    run.check();
    assert_eq!(run.model.sessions.len(), 1);
    run.step(Step::Up { nth: 0, port: 1 });
    run.now_ns += 299 * SECOND;
    run.step(Step::Allocate { a: 0, b: 1 });
    run.now_ns += 29 * SECOND;
    run.step(Step::Sweep);
    assert_eq!(run.model.sessions.len(), 1, "bound, silent for 328 s, and promised 29 s ago");
    run.check();
    run.now_ns += 2 * SECOND;
    run.step(Step::Sweep);
    assert_eq!(run.model.sessions.len(), 0);
    run.check();
}
