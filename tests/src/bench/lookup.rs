//! Rows about finding a peer by its key: the measurement of upstream's `BenchmarkLookupDestHashTrie` for our
//! table, and the same with as many clients as a large relay has.

mod clients;
mod measure;
pub mod random;
mod upstream;

use std::time::Duration;

pub use clients::Load;
pub use measure::{Sample, Way, measure};
pub use upstream::Benchmark;

use super::{Settings, report::Row};

/// Clients of the large relay, and how many of them leave per second.
const MANY: (u64, u64) = (100_000, 2_000);

/// Our ways to look up. The one that relayd uses is last, so that the rival is measured right after it.
const WAYS: [(Way, &str); 3] = [(Way::Mutex, "mutex"), (Way::Mirror, "dashmap"), (Way::Cache, "cache")];

/// All selected rows of `bench lookup`.
///
/// # Errors
/// A rival cannot be built or run.
pub fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let (clients, churn) = MANY;
    let mut rows = Vec::new();
    let name = "lookup, 4 hot keys";
    if settings.wants(name) {
        let rival = Benchmark::four_hot()?;
        let what = "upstream's BenchmarkLookupDestHashTrie: 4 keys in turn, all cores, no writer";
        rows.extend(compare(
            settings,
            name,
            what,
            Load::FourHot,
            &rival,
            (3.0, "at most 1/3, 0 allocations"),
        )?);
    }
    let name = "lookup, 100,000 keys";
    if settings.wants(name) {
        let rival = Benchmark::many(clients, churn)?;
        let what =
            format!("random order, all cores, {churn} clients leave and as many come back each second");
        let load = Load::Many { clients, churn };
        rows.extend(compare(settings, name, &what, load, &rival, (2.0, "at most 1/2"))?);
    }
    Ok(rows)
}

fn compare(
    settings: &Settings,
    name: &str,
    what: &str,
    load: Load,
    rival: &Benchmark,
    goal: (f64, &str),
) -> anyhow::Result<Vec<Row>> {
    let time = Duration::from_millis(settings.sample_ms());
    let (mut ours, mut theirs) = ([const { Vec::new() }; WAYS.len()], Vec::new());
    for _ in 0..settings.pairs() {
        for (samples, (way, _)) in ours.iter_mut().zip(WAYS) {
            samples.push(measure(way, load, time));
        }
        theirs.push(rival.run(settings.sample_ms())?);
    }
    let rival_allocations: u64 = theirs.iter().map(|printed| printed.allocations).sum();
    let rows = ours.iter().zip(WAYS).map(|(samples, (way, label))| {
        let judged = way == Way::Cache;
        let mut row = Row {
            name: format!("{name}, {label}"),
            load: what.to_owned(),
            unit: "ns of wall time per look-up over all cores".to_owned(),
            ours: samples.iter().map(|sample| sample.ns).collect(),
            rival_name: "derper 1.104.5's hash trie".to_owned(),
            rival: theirs.iter().map(|printed| printed.ns).collect(),
            goal: if judged { goal.1.to_owned() } else { String::new() },
            at_most: judged.then_some(1.0 / goal.0),
            ..Row::default()
        };
        let allocations: u64 = samples.iter().map(|sample| sample.allocations).sum();
        if judged && load == Load::FourHot {
            assert_eq!(allocations, 0, "a cache hit must not allocate");
        }
        row.add("allocations, all samples", allocations.to_string(), rival_allocations.to_string());
        row.add("look-ups that found their client", found(samples), "");
        row
    });
    Ok(rows.collect())
}

fn found(samples: &[Sample]) -> String {
    let least = samples.iter().map(|sample| sample.found).fold(1.0, f64::min);
    format!("at least {:.2} %", least * 100.0)
}
