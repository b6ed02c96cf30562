//! Rows about memory: queueing frames without copies and without keeping more memory alive than is queued,
//! and carrying packets without allocations.

mod plot;
mod policy;
mod traffic;

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

pub use policy::{Outcome, Policy, carry};
pub use traffic::Traffic;

use super::{
    Settings,
    report::{Row, number},
};

/// Thresholds of the sweep, in payload bytes.
const SWEEP: [usize; 7] = [1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 49_152];

/// The measurements of one policy.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The policy.
    pub policy: Policy,
    /// Its name.
    pub name: String,
    /// The result of the run.
    pub outcome: Outcome,
    /// Nanoseconds per frame, one value per sample.
    pub ns: Vec<f64>,
    /// Allocations per frame.
    pub allocations: f64,
}

/// All selected rows of `bench mux`.
///
/// # Errors
/// A plot cannot be drawn.
pub fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let name = "zero-copy";
    if settings.wants(name) {
        rows = rule(settings, name)?;
    }
    let name = "queue by handle";
    if settings.wants(name) {
        rows.extend(by_handle(settings, name));
    }
    let name = "allocations";
    if settings.wants(name) {
        rows.extend(super::steady::rows(settings, name)?);
    }
    Ok(rows)
}

/// Compares the zero-copy rule with both extremes.
fn rule(settings: &Settings, name: &str) -> anyhow::Result<Vec<Row>> {
    let traffic = Traffic::mixed(if settings.quick { 10_000 } else { 40_000 }, 1);
    let mut policies = vec![
        (Policy::From(0), "always share".to_owned()),
        (Policy::From(usize::MAX), "always copy".to_owned()),
    ];
    policies.extend(SWEEP.map(|bytes| (Policy::From(bytes), format!("share from {bytes} B"))));
    policies.push((Policy::Half, "share from half the buffer".to_owned()));
    policies.push((Policy::Mailbox, "relayd's mailboxes".to_owned()));
    let measured = measure(&policies, &traffic, settings.pairs());
    let find = |policy| measured.iter().find(|one| one.policy == policy);
    let (Some(half), Some(share), Some(copy), Some(ours)) =
        (find(Policy::Half), find(Policy::From(0)), find(Policy::From(usize::MAX)), find(Policy::Mailbox))
    else {
        return Ok(Vec::new());
    };
    let load = format!(
        "{} frames of 40 B to 64 KiB from reads of up to 64 KiB, 64 receivers, half of them slow, \
         queues of 256 frames or 512 KiB",
        traffic.frames()
    );
    let row = |what: &str, rival: &Measured| Row {
        name: format!("{name}, {what}"),
        load: load.clone(),
        rival_name: rival.name.clone(),
        goal: "at most twice the queued payload".to_owned(),
        ours_at_most: Some(2.0),
        ..Row::default()
    };
    let mut held = row("memory held, rule", share);
    held.unit = "bytes held a byte queued, at the worst moment".to_owned();
    (held.ours, held.rival) = (vec![half.outcome.worst_ratio], vec![share.outcome.worst_ratio]);
    held.notes = vec![table(&measured)];
    held.pictures = vec![("threshold.svg".to_owned(), plot::sweep(&measured)?)];
    let mut copied = row("bytes copied, rule", copy);
    copied.unit = "bytes copied a byte of payload".to_owned();
    (copied.ours, copied.rival) = (vec![half.copied_share()], vec![copy.copied_share()]);
    (copied.goal, copied.ours_at_most) = ("least within the rule above".to_owned(), None);
    let mut lanes = row("memory held, relayd's mailboxes", share);
    lanes.unit.clone_from(&held.unit);
    (lanes.ours, lanes.rival) = (vec![ours.outcome.worst_ratio], vec![share.outcome.worst_ratio]);
    let mut time = row("time, relayd's mailboxes", half);
    time.unit = "ns a frame".to_owned();
    (time.ours, time.rival) = (ours.ns.clone(), half.ns.clone());
    (time.goal, time.ours_at_most) = (String::new(), None);
    Ok(vec![held, copied, lanes, time])
}

/// Measures whether sharing pays: frames of one length through mailboxes, as exact copies, and shared.
fn by_handle(settings: &Settings, name: &str) -> Vec<Row> {
    [64, 1_200, 4_096, 8_192, 16_384, 32_768, 65_536]
        .into_iter()
        .map(|bytes| {
            let frames = (if settings.quick { 8 << 20 } else { 64 << 20 }) / (bytes + 1_000);
            let traffic = Traffic::new(frames, 2, |_| bytes);
            let policies =
                [Policy::Mailbox, Policy::From(usize::MAX), Policy::From(0)].map(|p| (p, String::new()));
            let [mailbox, copy, share] = &measure(&policies, &traffic, settings.pairs())[..] else {
                return Row::default();
            };
            let mut row = Row {
                name: format!("{name}, {bytes} B"),
                load: "frames of one length, receivers as in the rows above".to_owned(),
                unit: "ns a frame, read to queue".to_owned(),
                ours: mailbox.ns.clone(),
                rival_name: "exact copies queued by handle".to_owned(),
                rival: copy.ns.clone(),
                ..Row::default()
            };
            let least = |one: &Measured| number(one.ns.iter().copied().fold(f64::INFINITY, f64::min));
            row.add("least ns of a sample", least(mailbox), least(copy));
            row.add("least ns of a sample when slices are shared", "", least(share));
            row.add("memory held by queued, worst", ratio(mailbox), ratio(copy));
            row.add("the same when slices are shared", "", ratio(share));
            row
        })
        .collect()
}

fn measure(policies: &[(Policy, String)], traffic: &Traffic, samples: usize) -> Vec<Measured> {
    let mut all: Vec<Measured> = policies
        .iter()
        .map(|(policy, name)| {
            let outcome = carry(*policy, traffic, true);
            let counted = allocation_counter::measure(|| {
                black_box(carry(*policy, traffic, false));
            });
            let allocations = counted.count_total as f64 / traffic.frames() as f64;
            Measured { policy: *policy, name: name.clone(), outcome, ns: Vec::new(), allocations }
        })
        .collect();
    for _ in 0..samples {
        for one in &mut all {
            let start = Instant::now();
            black_box(carry(one.policy, traffic, false));
            one.ns.push(start.elapsed().as_secs_f64() * 1e9 / traffic.frames() as f64);
        }
    }
    all
}

fn ratio(one: &Measured) -> String {
    number(one.outcome.worst_ratio)
}

/// A table with every policy.
fn table(measured: &[Measured]) -> String {
    let mut table = String::from(
        "| policy | copied a byte of payload | held by queued, worst | at the peak | peak held, MB | \
         allocations a frame | ns a frame |\n|---|---|---|---|---|---|---|",
    );
    for one in measured {
        let outcome = &one.outcome;
        let at_peak = outcome.peak_held as f64 / outcome.queued_at_peak.max(1) as f64;
        let cells = [
            number(one.copied_share()),
            ratio(one),
            number(at_peak),
            number(outcome.peak_held as f64 / 1e6),
            number(one.allocations),
            number(super::report::Spread::of(one.ns.iter().copied()).map_or(0.0, |spread| spread.median)),
        ];
        // Writing to a string cannot fail.
        let _ = write!(table, "\n| {} | {} |", one.name, cells.join(" | "));
    }
    table
}

impl Measured {
    /// Bytes copied per byte of payload.
    pub fn copied_share(&self) -> f64 {
        self.outcome.copied as f64 / self.outcome.payload.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_buffer_copies_less_than_always_copying_and_holds_at_most_twice_what_is_queued() {
        let traffic = Traffic::mixed(4_000, 3);
        let [share, half, copy] = [Policy::From(0), Policy::Half, Policy::From(usize::MAX)]
            .map(|policy| carry(policy, &traffic, true));
        assert!(half.worst_ratio <= 2.0, "{half:?}");
        assert!(share.worst_ratio > 2.0, "{share:?}");
        assert!(share.copied < half.copied && half.copied < copy.copied, "{half:?} {copy:?}");
        assert_eq!((half.payload, half.dropped), (copy.payload, copy.dropped));
    }

    #[test]
    fn mailboxes_carry_the_same_frames_and_lose_about_as_many() {
        let traffic = Traffic::mixed(4_000, 4);
        let [ours, copy] =
            [Policy::Mailbox, Policy::From(usize::MAX)].map(|policy| carry(policy, &traffic, true));
        assert_eq!(ours.payload, copy.payload);
        assert!(ours.worst_ratio <= 2.0, "{ours:?}");
        // Frame headers count towards a lane's bytes.
        assert!(
            ours.dropped >= copy.dropped && ours.dropped <= copy.dropped + copy.dropped / 10,
            "{ours:?} {copy:?}"
        );
    }
}
