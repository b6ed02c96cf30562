//! Our TLS record layer and rustls': a script of records, made from the input, has the same effect on both.
//! The intended differences are in `relay_tests::oracle`, with the section of RFC 8446.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_tests::oracle::{RECORDS, judge};
use std::sync::atomic::{AtomicU64, Ordering};

/// Records between two progress lines.
const REPORT: u64 = 1_000_000;
static REPORTED: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|input: &[u8]| {
    judge(input);
    let records = RECORDS.load(Ordering::Relaxed);
    if records / REPORT > REPORTED.swap(records / REPORT, Ordering::Relaxed) {
        eprintln!("{records} records judged");
    }
});
