//! Our TLS 1.3 record layer beside rustls': the same records in, the same plaintext and the same alert out.
//!
//! Any bytes make a script of records. Each record is sealed with the true keys of either connection, so that
//! what is made up gets past the authentication; some are damaged afterwards, or were never sealed. Both
//! sides get one record after the other and are compared after each. Where they differ on purpose, `intended`
//! has the section of RFC 8446 that says who is right. A fuzzer and a seeded test run this.

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

/// Runs the script that `input` makes.
///
/// # Panics
/// The two differ, and not on purpose.
pub fn judge(input: &[u8]) {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    let configs = CONFIGS.get_or_init(Configs::new);
    let (mut ours, mut theirs) = (Side::<Ours>::ours(configs), Side::<Theirs>::theirs(configs));
    let mut context = Context::default();
    for step in script(input) {
        let record = match step {
            Step::Say(len) => {
                // Only between messages: a server does not answer half a request.
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
