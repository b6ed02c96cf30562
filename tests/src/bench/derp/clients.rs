//! Rows about clients, not packets: the memory of idle clients, and the CPU time of logins.

use crate::bench::load::{Outcome, Plan, Shape};
use crate::bench::report::Row;
use crate::bench::rivals::{Rivals, Sides, alternate_fresh};
use crate::bench::{Settings, keep};

/// Clients of the row about memory.
const IDLE: usize = 4000;
/// Milliseconds between the last client's packet and the reading of the memory.
const SETTLE_MS: u64 = 2000;

/// Adds all rows of this file.
pub(super) fn rows(settings: &Settings, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let sides = Sides::default();
    if settings.wants("idle-memory") {
        let clients = if settings.quick { IDLE / 10 } else { IDLE };
        let plan = Plan { clients, measure_ms: SETTLE_MS, threads: 2, ..Plan::new(Shape::Idle) };
        let samples = alternate_fresh(settings, &sides, &plan, settings.pairs())?;
        let row = Row {
            name: "idle-memory".to_owned(),
            load: format!(
                "{clients} TLS 1.3 clients that each sent and received one packet of {} bytes; {SETTLE_MS} ms \
                 later, resident memory of the server beyond what it was after its first 16 clients had come \
                 and gone; fresh servers for every sample. Socket memory of the kernel is not in it. {}.",
                plan.size,
                sides.text(settings),
            ),
            unit: "KB per client".to_owned(),
            goal: "at most 1/4, and at most 6 KB".to_owned(),
            at_most: Some(0.25),
            ours_at_most: Some(6.0),
            ..Row::default()
        };
        let mut row = samples.judge(row, |seen| seen.bytes_per_client(clients) / 1e3);
        samples.add(&mut row, "resident before, MB", |seen| seen.resident_before as f64 / 1e6);
        samples.add(&mut row, "resident with all, MB", |seen| seen.resident_after as f64 / 1e6);
        samples.add(&mut row, "µs of CPU per login and two packets", Outcome::server_us);
        row.notes.push("1 KB is 1,000 bytes.".to_owned());
        keep(rows, settings, row);
    }
    if settings.wants("logins") {
        let rivals = Rivals::start(settings, &sides)?;
        let plan = Plan { threads: 2, measure_ms: settings.sample_ms(), ..Plan::new(Shape::Logins) };
        let samples = rivals.alternate(&plan, settings.pairs())?;
        let row = Row {
            name: "logins".to_owned(),
            load: format!(
                "2 threads, each one client after another: TCP, full TLS 1.3 handshake (X25519MLKEM768, \
                 P-256), HTTP upgrade, DERP login, leave; {} ms a sample. {}.",
                plan.measure_ms,
                sides.text(settings),
            ),
            unit: "µs of CPU per login".to_owned(),
            goal: "at most 0.4".to_owned(),
            at_most: Some(0.4),
            ..Row::default()
        };
        let mut row = samples.judge(row, Outcome::server_us);
        samples.add(&mut row, "logins per CPU-second", |seen| 1e6 / seen.server_us());
        samples.add(&mut row, "logins per second", Outcome::per_second);
        samples.add(&mut row, "server: busy cores", |seen| seen.server_cpu / seen.seconds);
        samples.add(&mut row, "load process: busy cores", |seen| seen.load_cpu / seen.seconds);
        keep(rows, settings, row);
    }
    Ok(())
}
