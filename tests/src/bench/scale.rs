//! Rows about thousands of clients that each send little: does a further client cost as much as earlier ones?

use super::Settings;
use super::load::{Outcome, Plan, Shape};
use super::report::Row;
use super::rivals::{Samples, Sides, alternate_fresh};

/// Numbers of clients, with the names of their rows.
const CLIENTS: [(usize, [&str; 2]); 3] = [
    (1000, ["scale-1000-cpu", "scale-1000-memory"]),
    (4000, ["scale-4000-cpu", "scale-4000-memory"]),
    (9000, ["scale-9000-cpu", "scale-9000-memory"]),
];

/// How much more a client may cost in the next row before that counts as growth and not as noise.
const NOISE: f64 = 1.05;

/// All selected rows of `bench scale`.
///
/// # Errors
/// A server cannot be built or run, or a load fails.
pub fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let sides = Sides::default();
    let mut cases: Vec<_> = CLIENTS
        .into_iter()
        .filter(|(_, names)| names.iter().any(|name| settings.wants(name)))
        .map(|(clients, names)| (plan(settings, clients), names, Samples::default()))
        .collect();
    // Each round measures all numbers of clients, so that a drift of the machine does not look like growth.
    for _ in 0..if settings.quick { 1 } else { 5 } {
        for (plan, _, samples) in &mut cases {
            samples.0.extend(alternate_fresh(settings, &sides, plan, 1)?.0);
        }
    }
    let mut rows: Vec<Row> = cases
        .iter()
        .flat_map(|(plan, names, samples)| pair(settings, &sides, plan, names, samples))
        .collect();
    growth(&mut rows);
    rows.retain(|row| settings.wants(&row.name));
    rows.iter().for_each(|row| eprintln!("{}", row.line()));
    Ok(rows)
}

fn plan(settings: &Settings, clients: usize) -> Plan {
    Plan {
        clients,
        rate: clients as f64,
        warm_ms: 2 * settings.sample_ms(),
        measure_ms: 3 * settings.sample_ms(),
        ..Plan::new(Shape::Everyone)
    }
}

/// The two rows of one number of clients: CPU and memory.
fn pair(settings: &Settings, sides: &Sides, plan: &Plan, names: &[&str; 2], samples: &Samples) -> [Row; 2] {
    let load = format!(
        "{} TLS 1.3 clients, each sending one packet of {} bytes a second to another; {} ms a sample, fresh \
         servers for every sample. {}.",
        plan.clients,
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
    let clients = plan.clients as f64;
    let cpu = |seen: &Outcome| seen.server_cpu * 1e6 / seen.seconds / clients;
    let mut cpu = samples.judge(row(0, "µs of CPU per client and second"), cpu);
    samples.add_traffic(&mut cpu, plan);
    let memory = row(1, "KB resident per client");
    let mut memory = samples.judge(memory, |seen| seen.bytes_per_client(plan.clients) / 1e3);
    samples.add(&mut memory, "resident before, MB", |seen| seen.resident_before as f64 / 1e6);
    samples.add(&mut memory, "resident with all, MB", |seen| seen.resident_after as f64 / 1e6);
    [cpu, memory]
}

/// Notes in every later row how its figures compare with those of the row before, which has fewer clients.
fn growth(rows: &mut [Row]) {
    for kind in ["cpu", "memory"] {
        let mut before: Option<[f64; 2]> = None;
        for row in rows.iter_mut().filter(|row| row.name.ends_with(kind)) {
            let (Some(ours), Some(rival)) = (row.ours(), row.rival()) else { continue };
            let now = [ours.median, rival.median];
            if let Some(before) = before {
                let [ours, rival] =
                    [0, 1].map(|side| format!("{:+.0} %", (now[side] / before[side] - 1.0) * 100.0));
                row.add("against the row before", ours, rival);
                row.goal = "flat or falling from row to row (ours; 5 % is noise)".to_owned();
                row.ours_at_most = Some(before[0] * NOISE);
            }
            before = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_judged_from_row_to_row() {
        let row = |name: &str, cost: f64| Row {
            name: name.to_owned(),
            ours: vec![cost],
            rival: vec![1.0],
            ..Row::default()
        };
        let mut rows = [
            row("a-cpu", 29.0),
            row("a-memory", 5.0),
            row("b-cpu", 19.0),
            row("b-memory", 5.2),
            row("c-cpu", 24.0),
        ];
        growth(&mut rows);
        assert_eq!(rows.map(|row| row.met()), [None, None, Some(true), Some(true), Some(false)]);
    }
}
