//! Rows about thousands of clients that each say little: does the next client cost what the last one did?

use super::Settings;
use super::load::{Outcome, Plan, Shape};
use super::report::Row;
use super::rivals::{Sides, alternate_fresh};

/// How many clients, by row.
const CLIENTS: [(usize, [&str; 2]); 3] = [
    (1000, ["scale-1000-cpu", "scale-1000-memory"]),
    (4000, ["scale-4000-cpu", "scale-4000-memory"]),
    (9000, ["scale-9000-cpu", "scale-9000-memory"]),
];

/// All rows of `bench scale` that are asked for.
///
/// # Errors
/// A server cannot be built or run, or a load fails.
pub fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let sides = Sides::default();
    for (clients, names) in CLIENTS {
        if !names.iter().any(|name| settings.wants(name)) {
            continue;
        }
        let plan = Plan {
            clients,
            rate: clients as f64,
            warm_ms: 2 * settings.sample_ms(),
            measure_ms: 3 * settings.sample_ms(),
            ..Plan::new(Shape::Everyone)
        };
        let samples = alternate_fresh(settings, &sides, &plan, if settings.quick { 1 } else { 3 })?;
        let load = format!(
            "{clients} TLS 1.3 clients, each sending one packet of {} bytes a second to another; {} ms a \
             sample, fresh servers for every sample. {}.",
            plan.size,
            plan.measure_ms,
            sides.text(settings),
        );
        let row = |index: usize, unit: &str| Row {
            name: names[index].to_owned(),
            load: load.clone(),
            unit: unit.to_owned(),
            ..Row::default()
        };
        let cpu = |seen: &Outcome| seen.server_cpu * 1e6 / seen.seconds / clients as f64;
        let mut cpu = samples.judge(row(0, "µs of CPU per client and second"), cpu);
        samples.add_traffic(&mut cpu, &plan);
        let memory = row(1, "KB resident per client");
        let mut memory = samples.judge(memory, |seen| seen.bytes_per_client(clients) / 1e3);
        samples.add(&mut memory, "resident before, MB", |seen| seen.resident_before as f64 / 1e6);
        samples.add(&mut memory, "resident with all, MB", |seen| seen.resident_after as f64 / 1e6);
        for row in [cpu, memory] {
            if settings.wants(&row.name) {
                eprintln!("{}", row.line());
                rows.push(row);
            }
        }
    }
    growth(&mut rows);
    Ok(rows)
}

/// Says in every later row how its figures compare with those of the fewest clients.
fn growth(rows: &mut [Row]) {
    for kind in ["cpu", "memory"] {
        let mut first = None;
        for row in rows.iter_mut().filter(|row| row.name.ends_with(kind)) {
            let (Some(ours), Some(rival)) = (row.ours(), row.rival()) else { continue };
            match first {
                None => first = Some((ours.median, rival.median)),
                Some((our_first, rival_first)) => {
                    let percent = |now: f64, then: f64| format!("{:+.0} %", (now / then - 1.0) * 100.0);
                    let figures = [percent(ours.median, our_first), percent(rival.median, rival_first)];
                    let [ours, rival] = figures;
                    row.add("against the fewest clients", ours, rival);
                    row.goal = "flat or falling (ours; 5 % is noise)".to_owned();
                    row.ours_at_most = Some(our_first * 1.05);
                }
            }
        }
    }
}
