//! Our TLS record layer beside rustls': the script of records that the bytes make does the same to both. What
//! differs on purpose is in `relay_tests::oracle`, with the section of RFC 8446.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_tests::oracle::{RECORDS, judge};
use std::sync::atomic::{AtomicU64, Ordering};

/// Records between two lines about how many there have been.
const REPORT: u64 = 1_000_000;
static REPORTED: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|input: &[u8]| {
    judge(input);
    let records = RECORDS.load(Ordering::Relaxed);
    if records / REPORT > REPORTED.swap(records / REPORT, Ordering::Relaxed) {
        eprintln!("{records} records judged");
    }
});
