//! Servers that answer, fall silent, move and lie, with time as a number.

use super::*;

const SERVER: &str = "192.0.2.1:3478";
const SEEN: &str = "203.0.113.9:7777";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The servers, a clock, and random bytes that count.
struct Run {
    asking: Reflexive,
    now_ms: u64,
    drawn: u8,
}

impl Run {
    fn new(servers: &[&str], with_v6: bool) -> Self {
        let servers: Vec<Arc<str>> = servers.iter().map(|server| (*server).into()).collect();
        Self { asking: Reflexive::new(&servers, with_v6), now_ms: 1_000_000, drawn: 0 }
    }

    /// One server whose address is its name.
    fn one() -> Self {
        let mut run = Self::new(&[SERVER], false);
        run.asking.resolved(SERVER, &[addr(SERVER)], run.now_ms);
        run
    }

    fn step(&mut self) -> (Vec<Request>, Vec<News>) {
        let drawn = &mut self.drawn;
        self.asking.step(self.now_ms, |bytes| {
            *drawn += 1;
            bytes.fill(*drawn);
        })
    }

    fn answer(&mut self, from: &str, tx: TxId, seen: &str) -> bool {
        self.asking.answer(addr(from), tx, addr(seen), self.now_ms, |bytes| bytes.fill(0)).0
    }

    /// Lets time pass until something is due, and does it; `None` if that is later than `until_ms`.
    fn next(&mut self, until_ms: u64) -> Option<(Vec<Request>, Vec<News>)> {
        let due_ms = self.asking.due_ms().filter(|due_ms| *due_ms <= until_ms)?;
        assert!(due_ms >= self.now_ms, "time does not go back");
        self.now_ms = due_ms;
        Some(self.step())
    }

    fn seen(&self) -> Vec<String> {
        self.asking.seen().iter().map(|seen| seen.addr.to_string()).collect()
    }
}

#[test]
fn an_unanswered_question_is_sent_five_times_at_growing_distances_and_then_anew_in_20_to_26_seconds() {
    let mut run = Run::one();
    let start = run.now_ms;
    let (mut sent, mut said) = (Vec::new(), Vec::new());
    while let Some((requests, news)) = run.next(start + 60_000) {
        sent.extend(requests.iter().map(|request| (run.now_ms - start, request.tx)));
        said.extend(news);
    }
    let first: Vec<_> = sent[..5].iter().map(|(at_ms, _)| *at_ms).collect();
    assert_eq!(first, [0, 250, 750, 1750, 3750]);
    assert!(sent[..5].iter().all(|(_, tx)| *tx == sent[0].1), "one transaction");
    assert!((20_000..=26_000).contains(&sent[5].0) && sent[5].1 != sent[0].1, "{sent:?}");
    assert_eq!(said, [News::Silent(SERVER.into(), addr(SERVER))], "told once");
    assert!(run.asking.questions()[0].silent);
}

#[test]
fn only_the_server_asked_answers_and_only_once() {
    let mut run = Run::one();
    let tx = run.step().0[0].tx;
    assert_eq!(run.asking.open(), [Request { to: addr(SERVER), tx }]);
    assert!(!run.answer("192.0.2.1:3479", tx, SEEN), "another port");
    assert!(!run.answer("192.0.2.2:3478", tx, SEEN), "another host");
    assert!(!run.answer(SERVER, TxId([99; 12]), SEEN), "another transaction");
    for lie in
        ["0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "203.0.113.9:0", "169.254.0.1:1", "[2001:db8::1]:1"]
    {
        assert!(!run.answer(SERVER, tx, lie), "{lie}");
    }
    assert_eq!(run.seen(), [""; 0]);
    assert!(run.answer(SERVER, tx, SEEN));
    assert_eq!(run.seen(), [SEEN]);
    assert!(!run.answer(SERVER, tx, "203.0.113.66:1"), "a second answer");
    assert_eq!((run.seen(), run.asking.open()), (vec![SEEN.to_owned()], vec![]));
    let due_ms = run.asking.due_ms().expect("the next question");
    assert!((20_000..=26_000).contains(&(due_ms - run.now_ms)));
}

#[test]
fn what_a_silent_server_saw_is_kept_for_five_minutes_and_then_forgotten_aloud() {
    let mut run = Run::one();
    let tx = run.step().0[0].tx;
    assert!(run.answer(SERVER, tx, SEEN));
    let (answered, mut said) = (run.now_ms, Vec::new());
    while !run.seen().is_empty() {
        let (_, news) = run.next(answered + 600_000).expect("something is due");
        said.extend(news);
    }
    assert_eq!(run.now_ms - answered, 300_000);
    let (server, at): (Arc<str>, _) = (SERVER.into(), addr(SERVER));
    assert_eq!(said, [News::Silent(Arc::clone(&server), at), News::Forgotten(server, addr(SEEN))]);
    // It is asked on, and when it answers again, that is news too.
    let request = loop {
        let (requests, _) = run.next(answered + 900_000).expect("it is asked on");
        if let Some(request) = requests.first() {
            break *request;
        }
    };
    let (taken, news) = run.asking.answer(request.to, request.tx, addr(SEEN), run.now_ms, |_| {});
    assert_eq!((taken, news), (true, Some(News::Answers(SERVER.into()))));
}

#[test]
fn a_server_is_asked_over_each_family_that_both_have() {
    let mut run = Run::new(&["a.example:1", "b.example:2"], true);
    assert_eq!(run.asking.due_ms(), None, "nobody's address is known");
    let (v4, v6) = ("192.0.2.1:1", "[2001:db8::1]:1");
    run.asking.resolved("a.example:1", &[addr(v6), addr(v4), addr("192.0.2.2:1")], run.now_ms);
    let requests = run.step().0;
    assert_eq!(requests.iter().map(|request| request.to).collect::<Vec<_>>(), [addr(v4), addr(v6)]);
    assert!(run.answer(v6, requests[1].tx, "[2001:db8::9]:7777"));
    assert!(run.answer(v4, requests[0].tx, SEEN));
    assert_eq!(run.seen(), [SEEN, "[2001:db8::9]:7777"]);
    // Without an IPv6 socket it is not asked there.
    let mut run = Run::new(&["a.example:1"], false);
    run.asking.resolved("a.example:1", &[addr(v6)], run.now_ms);
    assert_eq!((run.step().0, run.asking.due_ms()), (vec![], None));
}

#[test]
fn a_server_that_moved_is_asked_at_once_and_the_old_one_is_no_longer_heard() {
    let mut run = Run::new(&["a.example:1"], false);
    run.asking.resolved("a.example:1", &[addr("192.0.2.1:1")], run.now_ms);
    let old = run.step().0[0];
    run.asking.resolved("a.example:1", &[addr("192.0.2.1:1")], run.now_ms);
    assert_eq!(run.asking.open(), [old], "the same address changes nothing");
    run.now_ms += 100;
    run.asking.resolved("a.example:1", &[addr("192.0.2.9:1")], run.now_ms);
    let (requests, _) = run.next(run.now_ms).expect("due at once");
    assert_eq!(requests[0].to, addr("192.0.2.9:1"));
    assert!(!run.answer("192.0.2.1:1", old.tx, SEEN));
    assert!(run.answer("192.0.2.9:1", requests[0].tx, SEEN));
}

#[test]
fn a_change_of_the_hosts_addresses_asks_soon_but_not_ever_faster() {
    let mut run = Run::one();
    let tx = run.step().0[0].tx;
    let asked = run.now_ms;
    run.asking.hurry(run.now_ms + 1);
    assert_eq!(run.asking.due_ms(), Some(asked + 250), "the present question goes on");
    assert!(run.answer(SERVER, tx, SEEN));
    for at_ms in [asked + 10, asked + 20] {
        run.asking.hurry(at_ms);
        assert_eq!(run.asking.due_ms(), Some(asked + 5_000));
    }
    run.asking.hurry(asked + 9_000);
    assert_eq!(run.asking.due_ms(), Some(asked + 5_000), "overdue by then");
}
