//! After the warm-up, carrying packets allocates nothing: counted on real connections over loopback sockets.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a failed set-up should end the test where it happens")]

use relay_tests::bench::steady::{Allocated, MIXED, Plan, run};

#[test]
fn twenty_thousand_packets_over_tcp_allocate_nothing() {
    twenty_thousand_packets_allocate_nothing(false);
}

#[test]
fn long_packets_over_tcp_allocate_nothing() {
    let plan = Plan { tls: false, lengths: &[8_000, 1], warm_up: 5_000, packets: 20_000, workers: 1 };
    assert_eq!(run(&plan).unwrap(), Allocated::default());
}

#[test]
fn twenty_thousand_packets_over_tls_allocate_nothing() {
    twenty_thousand_packets_allocate_nothing(true);
}

fn twenty_thousand_packets_allocate_nothing(tls: bool) {
    for workers in [1, 2] {
        let plan = Plan { tls, lengths: MIXED, warm_up: 5_000, packets: 20_000, workers };
        let allocated = run(&plan).unwrap();
        assert!(allocated.count <= spare(workers, plan.packets), "{workers} workers: {allocated:?}");
    }
}

/// With two workers, timing decides how many buffers are in use at once; each new maximum allocates once.
fn spare(workers: usize, packets: u64) -> u64 {
    if workers == 1 { 0 } else { packets / 1_000 }
}
