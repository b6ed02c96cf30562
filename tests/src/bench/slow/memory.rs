//! The memory that a server uses for a receiver that reads nothing.

use super::{FIELD, ages, pairs};
use crate::bench::load::{Outcome, Plan, Shape};
use crate::bench::report::Row;
use crate::bench::rivals::{Sides, alternate_fresh};
use crate::bench::{Settings, keep};

/// Receivers per sample.
const RECEIVERS: usize = 200;
/// Milliseconds between the last packet and the reading of the memory.
const SETTLE_MS: u64 = 2000;

/// One length of packets.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Bytes of a packet.
    size: usize,
    /// Packets for each receiver: several times what any queue and its socket hold.
    packets: usize,
    goal: &'static str,
    at_most: Option<f64>,
    /// The goal in KB.
    ours_at_most: Option<f64>,
}

/// All cases.
pub(super) const CASES: [Case; 2] = [
    Case {
        name: "slow-memory-2k",
        size: 2000,
        packets: 3000,
        goal: "at most 600 KB",
        at_most: None,
        ours_at_most: Some(600.0),
    },
    Case {
        name: "slow-memory-60k",
        size: 60_000,
        packets: 100,
        goal: "no worse",
        at_most: Some(1.0),
        ours_at_most: None,
    },
];

/// Adds the selected rows.
pub(super) fn rows(settings: &Settings, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    // Neither the server nor its kernel may disconnect a receiver because it reads nothing.
    let both_args = ["-tcp-write-timeout=0s", "-tcp-user-timeout=0s"].map(str::to_owned).into();
    let sides = Sides { both_args, ..Sides::default() };
    for case in CASES {
        if !settings.wants(case.name) {
            continue;
        }
        let plan = Plan {
            clients: if settings.quick { RECEIVERS / 4 } else { RECEIVERS },
            size: case.size,
            packets: case.packets,
            threads: 4,
            measure_ms: SETTLE_MS,
            ..Plan::new(Shape::Blocked)
        };
        let samples = alternate_fresh(settings, &sides, &plan, pairs(settings))?;
        let row = Row {
            name: case.name.to_owned(),
            load: format!(
                "{FIELD}: {} TLS 1.3 clients that read nothing; {} senders give each of them {} packets of {} \
                 bytes, one to each in turn. {SETTLE_MS} ms later, resident memory of the server beyond what \
                 it was after its first 16 clients had come and gone; fresh servers for every sample. {}.",
                plan.clients,
                plan.threads,
                plan.packets,
                plan.size,
                sides.text(settings),
            ),
            unit: "KB per blocked receiver".to_owned(),
            goal: case.goal.to_owned(),
            at_most: case.at_most,
            ours_at_most: case.ours_at_most,
            ..Row::default()
        };
        let mut row = samples.judge(row, |seen| seen.bytes_per_client(plan.clients) / 1e3);
        samples.add(&mut row, "resident before, MB", |seen| seen.resident_before as f64 / 1e6);
        samples.add(&mut row, "resident with all, MB", |seen| seen.resident_after as f64 / 1e6);
        samples.add(&mut row, "µs of CPU per packet", Outcome::server_us);
        samples.add(&mut row, "packets per second", Outcome::per_second);
        row.notes.push("1 KB is 1,000 bytes. Socket memory of the kernel is not in it.".to_owned());
        ages::cut(&mut row, &samples);
        keep(rows, settings, row);
    }
    Ok(())
}
