//! Compares our TLS 1.3 record layer with rustls': the same records must give the same plaintext and alert.
//!
//! Any bytes make a script of records. Each record is sealed with the real keys of the connection, so that it
//! passes authentication; some are damaged afterwards, or never sealed. Both sides get one record at a time
//! and are compared after each. `intended` has the intended differences, with the section of RFC 8446 that
//! says who is right. A fuzzer and a seeded test run this.

mod intended;
mod script;
mod sides;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use self::intended::intended;
use self::script::{Context, Step, script};
use self::sides::{Configs, Ours, Side, State, Theirs};

/// Records judged so far by this process.
pub static RECORDS: AtomicU64 = AtomicU64::new(0);

/// Runs the script made from `input`.
///
/// # Panics
/// The two sides differ in a way that is not intended.
pub fn judge(input: &[u8]) {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    let configs = CONFIGS.get_or_init(Configs::new);
    let (mut ours, mut theirs) = (Side::<Ours>::ours(configs), Side::<Theirs>::theirs(configs));
    let mut context = Context::default();
    for step in script(input) {
        let record = match step {
            Step::Say(len) => {
                // Only between messages, because a server does not answer half a request.
                let text: Vec<u8> = (0..len).map(|at| at as u8).collect();
                assert_eq!(ours.say(&text), text, "what ours sealed");
                assert_eq!(theirs.say(&text), text, "what theirs sealed");
                continue;
            }
            Step::Record(record) => record,
        };
        RECORDS.fetch_add(1, Ordering::Relaxed);
        context.begin(&record);
        ours.hear(&record);
        let front = ours.front();
        let mine = ours.open();
        theirs.hear(&record);
        let his = theirs.open();
        if mine != his {
            let why = intended(&context, front, &record, &mine, &his);
            assert!(why.is_some(), "{record:?} after {context:?}\n ours {mine:?}\n theirs {his:?}");
            return;
        }
        if mine.state != State::Alive {
            return;
        }
        if context.end(&record) {
            ours.update_keys();
            theirs.update_keys();
        }
    }
}
