//! Links to other relays: what they claim, who is told, and that a connection here always comes first.

use super::*;
use crate::route::link::Link;

fn link(router: &Router, id: u64) -> Arc<Link> {
    let link = Link::new(LinkId(id), key(100 + id as u8), ([192, 0, 2, 1], 443).into());
    let link = Arc::new(link);
    router.link_up(&link, 0).expect("a new link");
    link
}

/// Where packets for the key go: to a connection or to a link, by number.
fn way(router: &Router, n: u8) -> Option<Result<u64, u64>> {
    router.way(&key(n)).map(|way| match way {
        Way::Here(peer) => Ok(peer.id.0),
        Way::Link(remote) => Err(remote.link.id.0),
    })
}

/// The frames that wait for a connection, as a text: `+` and `-` with the key's number.
fn told(peer: &Peer) -> String {
    let batch = peer.mailbox.take();
    let bytes = batch.slices().collect::<Vec<_>>().concat();
    let (mut rest, mut told) = (bytes.as_slice(), Vec::new());
    while let Some((header, after)) = rest.split_first_chunk() {
        let header = Header::decode(header);
        let (payload, after) = after.split_at(header.len as usize);
        rest = after;
        told.push(match FromServer::parse(header, payload).expect("news") {
            FromServer::PeerPresent { peer, .. } => format!("+{}", peer.as_bytes()[0] - 1),
            FromServer::PeerGone { peer, .. } => format!("-{}", peer.as_bytes()[0] - 1),
            other => format!("{other:?}"),
        });
    }
    told.join(" ")
}

#[test]
fn a_connection_here_comes_before_every_claim() {
    let mut run = Run::new();
    let (first, second) = (link(&run.router, 1), link(&run.router, 2));
    run.router.claim(first.id, key(0), false, 0).expect("up");
    assert_eq!(way(&run.router, 0), Some(Err(1)));
    run.step(Step::Login { conn: 5, key: 0 });
    assert_eq!(way(&run.router, 0), Some(Ok(5)));
    run.router.claim(second.id, key(0), false, 0).expect("up");
    assert_eq!(way(&run.router, 0), Some(Ok(5)), "also before a newer claim");
    run.step(Step::Leave { conn: 5 });
    assert_eq!(way(&run.router, 0), Some(Err(2)));
    let _ = run.router.link_down(second.id, 0);
    assert_eq!(way(&run.router, 0), Some(Err(1)));
    let _ = run.router.disclaim(first.id, key(0), 0).expect("claimed");
    assert_eq!(way(&run.router, 0), None);
}

#[test]
fn a_cached_way_is_given_up_when_another_one_is_better() {
    let mut run = Run::new();
    let (first, second) = (link(&run.router, 1), link(&run.router, 2));
    let mut cache = cache::Cache::default();
    let mut cached = |run: &Run| match cache.lookup(&key(0), &run.router) {
        Some(Way::Here(peer)) => Some(Ok(peer.id.0)),
        Some(Way::Link(remote)) => Some(Err(remote.link.id.0)),
        None => None,
    };
    assert_eq!(cached(&run), None);
    run.router.claim(first.id, key(0), false, 0).expect("up");
    assert_eq!(cached(&run), Some(Err(1)));
    run.router.claim(second.id, key(0), false, 0).expect("up");
    assert_eq!(cached(&run), Some(Err(2)));
    run.step(Step::Login { conn: 5, key: 0 });
    assert_eq!(cached(&run), Some(Ok(5)));
    run.step(Step::Leave { conn: 5 });
    assert_eq!(cached(&run), Some(Err(2)));
    let _ = run.router.link_down(second.id, 0);
    assert_eq!(cached(&run), Some(Err(1)));
    let _ = run.router.link_down(first.id, 0);
    assert_eq!(cached(&run), None);
}

#[test]
fn a_watcher_is_told_of_all_who_are_here_and_then_of_each_change() {
    let mut run = Run::new();
    run.step(Step::Login { conn: 1, key: 0 });
    run.step(Step::Login { conn: 2, key: 1 });
    let watcher = Arc::clone(&run.peers[&2]);
    let _ = run.router.watch(&watcher);
    let sorted = |told: String| {
        let mut all: Vec<_> = told.split(' ').map(str::to_owned).collect();
        all.sort();
        all.join(" ")
    };
    assert_eq!(sorted(told(&watcher)), "+0 +1", "itself among them, in any order");
    let _ = run.router.watch(&watcher);
    assert_eq!(sorted(told(&watcher)), "+0 +1", "it has asked again");
    run.step(Step::Login { conn: 3, key: 0 });
    run.step(Step::Login { conn: 4, key: 2 });
    assert_eq!(told(&watcher), "+0 +2", "a second connection of a key is told too");
    run.step(Step::Leave { conn: 1 });
    assert_eq!(told(&watcher), "", "the key is still here");
    run.step(Step::Leave { conn: 3 });
    assert_eq!(told(&watcher), "-0");
    run.router.claim(link(&run.router, 1).id, key(0), false, 0).expect("up");
    assert_eq!(told(&watcher), "", "what others claim is not ours to tell");
    run.step(Step::Leave { conn: 2 });
    run.step(Step::Leave { conn: 4 });
    assert!(run.router.watch(&watcher).wake.is_empty(), "whoever has left watches nothing");
}

#[test]
fn those_who_heard_from_a_key_elsewhere_are_told_when_nobody_has_it_any_more() {
    let mut run = Run::new();
    run.step(Step::Login { conn: 1, key: 1 });
    let hearer = Arc::clone(&run.peers[&1]);
    let other = key(3);
    assert!(run.router.heard_from(&other, &hearer).is_some(), "before its relay has claimed it");
    let early = link(&run.router, 9);
    run.router.claim(early.id, other, false, 0).expect("up");
    run.router.forget_hearers();
    let _ = run.router.link_down(early.id, 0);
    assert_eq!(told(&hearer), "-3");
    let (first, second) = (link(&run.router, 1), link(&run.router, 2));
    for link in [&first, &second] {
        run.router.claim(link.id, key(0), false, 0).expect("up");
    }
    let note = run.router.heard_from(&key(0), &hearer).expect("noted");
    assert!(note.stands());
    let _ = run.router.link_down(second.id, 0);
    assert_eq!(told(&hearer), "", "the first still has it");
    run.step(Step::Login { conn: 2, key: 0 });
    let _ = run.router.disclaim(first.id, key(0), 0).expect("claimed");
    assert_eq!(told(&hearer), "", "now it is here");
    run.step(Step::Leave { conn: 2 });
    assert_eq!(told(&hearer), "-0");
    assert!(!note.stands(), "whoever hears from it again must be noted again");
}

#[test]
fn those_who_heard_from_a_key_here_are_told_only_when_no_link_has_it_either() {
    let mut run = Run::new();
    run.step(Step::Login { conn: 1, key: 1 });
    run.step(Step::Login { conn: 2, key: 0 });
    let hearer = Arc::clone(&run.peers[&1]);
    let mut cache = cache::Cache::default();
    cache.lookup(&key(1), &run.router).expect("here");
    let link = link(&run.router, 1);
    run.router.claim(link.id, key(0), false, 0).expect("up");
    let _ = run.router.leave(&run.peers[&2], cache.into_audience(), 0);
    assert_eq!(told(&hearer), "", "it has moved to another relay");
    let _ = run.router.link_down(link.id, 0);
    assert_eq!(told(&hearer), "-0");
}
