//! Clients on denied networks.

use std::sync::Barrier;

use super::*;

fn list(networks: &str) -> (Arc<DenyList>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    write(&dir, networks);
    (Arc::new(DenyList::load(dir.path().join("deny")).expect("a list")), dir)
}

fn write(dir: &tempfile::TempDir, networks: &str) {
    std::fs::write(dir.path().join("deny"), networks).expect("written");
}

#[test]
fn a_denied_client_gets_no_challenge_and_cannot_answer_an_old_one() {
    let (denied, dir) = list("");
    let mut lab = Lab::new();
    lab.udp = lab.udp.denying(Arc::clone(&denied));
    let from = path("192.0.2.1:1000");
    let answer = lab.challenge(0, 1, from);
    write(&dir, "192.0.2.0/24\n2001:db8:7::/48\n");
    denied.reload().expect("a list");
    assert_eq!(lab.answer(0, answer, from), Action::Drop(Counter::UdpDenied));
    let bind = lab.clients[0].message(BindKind::Bind, lab.clients[0].bind(lab.vni, 2));
    for path in [from, path("[::ffff:192.0.2.1]:1000"), path("[2001:db8:7::1]:9")] {
        assert_eq!(lab.decide(&bind, path), Action::Drop(Counter::UdpDenied), "{path:?}");
    }
    // The same client may bind from elsewhere.
    lab.bind(0, path("198.51.100.1:1000"));
}

/// However a reload and a bind fall together, no session is left with a leg on a denied network.
#[test]
fn a_bind_during_a_reload_does_not_outlive_it() {
    for round in 0..200 {
        let (denied, dir) = list("");
        let mut lab = Lab::new();
        lab.udp = lab.udp.denying(Arc::clone(&denied));
        write(&dir, "192.0.2.0/24\n");
        let from = path("192.0.2.1:1000");
        let answer = lab.challenge(0, 1, from);
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                lab.answer(0, answer, from);
            });
            start.wait();
            denied.reload().expect("a list");
            lab.router.end_sessions(|session| {
                session.legs.iter().flatten().any(|path| denied.denies(path.remote.ip()))
            });
        });
        let left = lab.router.session(lab.vni.get());
        let bound = left.is_some_and(|session| session.legs.iter().any(Option::is_some));
        assert!(!bound, "round {round}: a leg on a denied network is bound");
    }
}
