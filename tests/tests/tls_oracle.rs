//! Compares our record layer with rustls' on scripts from a seeded generator. The fuzz target `tls_records`
//! does the same with scripts from a fuzzer.

use std::sync::atomic::Ordering;

use relay_tests::oracle::{RECORDS, judge};

/// Number of scripts.
const CASES: u64 = 3_000;
/// Maximum bytes of a script.
const MAX_BYTES: u64 = 120;

#[test]
fn made_up_records_do_the_same_to_both_record_layers() {
    let mut random = Random(0x7e1a_9d00);
    for _ in 0..CASES {
        let len = random.next() % MAX_BYTES;
        judge(&(0..len).map(|_| random.next() as u8).collect::<Vec<_>>());
    }
    assert!(RECORDS.load(Ordering::Relaxed) > 3 * CASES, "the scripts have next to no records");
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same scripts in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
