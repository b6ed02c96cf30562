//! The server's cost of a packet to a receiver that reads nothing, by size: no size may cost much more than
//! the others.

use super::{FIELD, ages, pairs};
use crate::bench::load::{Cost, Outcome, Plan, SIZES, Shape};
use crate::bench::report::{Row, Spread, number};
use crate::bench::rivals::{DERPER, Samples, Sides, alternate_fresh};
use crate::bench::{Settings, keep};

/// The row's name.
pub(super) const NAME: &str = "slow-cost";
/// The worst size's figure may be this many times that of the median size.
const MOST: f64 = 2.0;

/// Adds the row, if it is selected.
pub(super) fn rows(settings: &Settings, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    if !settings.wants(NAME) {
        return Ok(());
    }
    let both_args = ["-tcp-write-timeout=0s", "-tcp-user-timeout=0s"].map(str::to_owned).into();
    let sides = Sides { both_args, ..Sides::default() };
    let packets = if settings.quick { 15_000 } else { 50_000 };
    let plan = Plan { packets, warm_ms: 100, ..Plan::new(Shape::Sizes) };
    let samples = alternate_fresh(settings, &sides, &plan, pairs(settings))?;
    let row = Row {
        name: NAME.to_owned(),
        load: format!(
            "{FIELD}: for each size, packets from one TLS 1.3 client to another that reads nothing and whose \
             queues are full, so that each pushes out an older one, and as many to a key that nobody has, in \
             both orders; up to {packets} packets or 64 MiB each, sealed before the clock starts; fresh \
             servers for every sample. {}.",
            sides.text(settings),
        ),
        unit: "worst size's cost by the median size's, each by that of a packet to nobody".to_owned(),
        goal: "no size above twice the median (ours)".to_owned(),
        ours_at_most: Some(MOST),
        ..Row::default()
    };
    let mut row = samples.judge(row, |seen| worst(&seen.costs).map_or(f64::NAN, |worst| worst.by_median));
    table(&mut row, &samples);
    row.notes.push(
        "A long packet costs more by itself: it is read, opened, copied. So each size's cost is first \
         divided by what a packet of that size costs that nobody gets, which is read and opened so; what \
         is left is how many times as much it is to keep it. The goal is about that number, from size to size."
            .to_owned(),
    );
    for (name, costs) in ["relayd", DERPER].iter().zip(medians(&samples)) {
        if let Some(Worst { cost, by_median }) = worst(&costs) {
            row.notes.push(format!(
                "{name}, worst size: {} bytes, {} times a packet to nobody, {} times the median size.",
                cost.size,
                number(cost.times()),
                number(by_median),
            ));
        }
    }
    ages::cut(&mut row, &samples);
    keep(rows, settings, row);
    Ok(())
}

/// The size with the highest cost relative to the cost of a packet to an unknown key.
#[derive(Clone, Copy, Debug)]
struct Worst {
    cost: Cost,
    /// The ratio to the median size's figure.
    by_median: f64,
}

fn worst(costs: &[Cost]) -> Option<Worst> {
    let median = Spread::of(costs.iter().map(Cost::times))?.median;
    let cost = *costs.iter().max_by(|a, b| a.times().total_cmp(&b.times()))?;
    Some(Worst { cost, by_median: cost.times() / median })
}

/// The medians of all samples, by size: ours, derper's.
fn medians(samples: &Samples) -> [Vec<Cost>; 2] {
    let of = |index: usize, figure: fn(&Cost) -> f64| {
        samples.medians(|seen: &Outcome| seen.costs.get(index).map_or(f64::NAN, figure))
    };
    let all = SIZES.iter().enumerate().map(|(index, size)| {
        let (blocked, nobody) = (of(index, |cost| cost.blocked_us), of(index, |cost| cost.nobody_us));
        [0, 1].map(|side| Cost { size: *size, blocked_us: blocked[side], nobody_us: nobody[side] })
    });
    let (ours, theirs) = all.map(|[ours, theirs]| (ours, theirs)).unzip();
    [ours, theirs]
}

/// Adds a further column for every size.
fn table(row: &mut Row, samples: &Samples) {
    let [ours, theirs] = medians(samples);
    let text = |cost: &Cost| {
        format!(
            "{} ({} to nobody: {} times)",
            number(cost.blocked_us),
            number(cost.nobody_us),
            number(cost.times())
        )
    };
    for (ours, theirs) in ours.iter().zip(&theirs) {
        row.add(&format!("{} B: µs of CPU per packet", ours.size), text(ours), text(theirs));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_worst_by_what_it_costs_beyond_a_packet_to_nobody() {
        let costs = [(64, 1.0, 0.5), (3740, 10.0, 2.0), (8000, 6.0, 4.0), (60_000, 40.0, 20.0)]
            .map(|(size, blocked_us, nobody_us)| Cost { size, blocked_us, nobody_us });
        let worst = worst(&costs).expect("there are sizes");
        assert_eq!((worst.cost.size, worst.by_median), (3740, 2.5));
    }

    #[test]
    fn of_no_sizes_none_is_worst() {
        assert!(worst(&[]).is_none());
    }
}
