//! The cost of a push into the mailbox of a blocked receiver, by size, without a socket and without TLS.

use std::hint::black_box;
use std::time::Instant;

use relay_common::derp::message::recv_packet_header;
use relay_common::key::NodePublic;
use relay_user::mailbox::{Lane, Mailbox};

use crate::bench::load::SIZES;
use crate::bench::report::{Row, Spread, number};
use crate::bench::{Settings, keep};

const NAME: &str = "slow-push";
/// A size may cost this many times its expected cost.
const MOST: f64 = 2.0;
/// Sizes of the sweep in addition to the usual ones: first and last size; each is 1/16 longer than the one
/// before.
const SWEEP: (usize, usize) = (64, 65_536);
/// Number of sizes on either side with which a size is compared.
const NEIGHBOURS: usize = 8;
/// Bytes of payload pushed in one measurement, and below it the maximum number of pushes.
const BYTES: usize = 16 << 20;
const MOST_PUSHES: usize = 20_000;
/// Measurements of a size per sample. The shortest counts, because other work on the machine only makes them
/// longer.
const TRIES: usize = 3;
/// Bytes and frames pushed before the measurement, so that the mailbox is full.
const FILL: (usize, usize) = (4 << 20, 600);

/// The costs of one size, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Push {
    size: usize,
    /// A push into a full mailbox.
    push_ns: f64,
    /// A copy of the same bytes into a ring of the mailbox's size.
    copy_ns: f64,
}

/// Adds the row, if it is selected.
pub(super) fn rows(settings: &Settings, rows: &mut Vec<Row>) {
    if !settings.wants(NAME) {
        return;
    }
    let sizes = sizes();
    let samples: Vec<Vec<Push>> =
        (0..settings.pairs()).map(|_| sizes.iter().map(|size| measure(*size)).collect()).collect();
    let mut row = Row {
        name: NAME.to_owned(),
        load: format!(
            "In this process: packets of one size into the data lane of a mailbox that is full and whose \
             receiver takes nothing, so that each push drops an older frame; {} sizes from {} to {} bytes.",
            sizes.len(),
            SWEEP.0,
            SWEEP.1,
        ),
        unit: "worst size's push by what is to be expected of it".to_owned(),
        ours: samples.iter().filter_map(|sample| Some(worst(sample)?.1)).collect(),
        rival_name: "bare copy into a ring".to_owned(),
        goal: "no size above twice".to_owned(),
        ours_at_most: Some(MOST),
        ..Row::default()
    };
    row.notes.push(format!(
        "To be expected of a size, the lesser of two: what the median of its {} neighbours in size costs; \
             and a bare copy of its bytes into a ring as large as what the mailbox holds, with what a push \
             costs beyond that copy at the median size.",
        2 * NEIGHBOURS,
    ));
    let medians: Vec<Push> = (0..sizes.len()).filter_map(|index| median(&samples, index)).collect();
    if let Some((push, times)) = worst(&medians) {
        row.notes.push(format!(
            "Worst size: {} bytes, {} ns a push, {} times what is to be expected.",
            push.size,
            number(push.push_ns),
            number(times),
        ));
    }
    for push in medians.iter().filter(|push| SIZES.contains(&push.size)) {
        row.add(&format!("{} B: ns", push.size), number(push.push_ns), number(push.copy_ns));
    }
    keep(rows, settings, row);
}

/// The usual sizes and the sweep, sorted and without duplicates.
fn sizes() -> Vec<usize> {
    let sweep = std::iter::successors(Some(SWEEP.0), |size| Some(size + size / 16));
    let mut sizes: Vec<usize> =
        sweep.take_while(|size| *size < SWEEP.1).chain(SIZES).chain([SWEEP.1]).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The size whose push costs the most relative to its expected cost, and that ratio.
fn worst(all: &[Push]) -> Option<(Push, f64)> {
    let beyond = Spread::of(all.iter().map(|push| push.push_ns - push.copy_ns))?.median.max(0.0);
    let times = |index: usize, push: &Push| {
        // The comparison with neighbours finds a peak, and the comparison with the copy finds a plateau of
        // any width.
        let (before, after) = (&all[..index], &all[index + 1..]);
        let near = before.iter().rev().take(NEIGHBOURS).chain(after.iter().take(NEIGHBOURS));
        let near = Spread::of(near.map(|push| push.push_ns)).map_or(f64::INFINITY, |near| near.median);
        push.push_ns / near.min(push.copy_ns + beyond)
    };
    let all = all.iter().enumerate().map(|(index, push)| (*push, times(index, push)));
    all.max_by(|a, b| a.1.total_cmp(&b.1))
}

/// One size's medians of all samples.
fn median(samples: &[Vec<Push>], index: usize) -> Option<Push> {
    let of = |figure: fn(&Push) -> f64| {
        Spread::of(samples.iter().filter_map(|sample| sample.get(index)).map(figure))
            .map(|spread| spread.median)
    };
    let size = samples.first()?.get(index)?.size;
    Some(Push { size, push_ns: of(|push| push.push_ns)?, copy_ns: of(|push| push.copy_ns)? })
}

fn measure(size: usize) -> Push {
    let head = recv_packet_header(NodePublic::from_ref(&[7; 32]), size);
    let body = vec![0x5a; size];
    let mailbox = Mailbox::default();
    // After this, the mailbox is that of a blocked receiver.
    mailbox.settle();
    let push = || {
        // The mailbox is never closed.
        let _ = black_box(mailbox.push(Lane::Data, &head, black_box(&body), false));
    };
    (0..FILL.1.max(FILL.0 / size)).for_each(|_| push());
    let held = mailbox.depth().bytes;
    let mut ring = vec![0; held.max(head.len() + size)];
    let mut at = 0;
    let copy = || {
        if ring.len() - at < head.len() + size {
            at = 0;
        }
        let (first, rest) = ring[at..].split_at_mut(head.len());
        first.copy_from_slice(&head);
        rest[..size].copy_from_slice(black_box(&body));
        at += head.len() + size;
        black_box(&mut ring);
    };
    let pushes = MOST_PUSHES.min(BYTES / size);
    Push { size, push_ns: least_ns(pushes, push), copy_ns: least_ns(pushes, copy) }
}

/// Nanoseconds per call in the fastest of some rounds.
fn least_ns(calls: usize, mut call: impl FnMut()) -> f64 {
    let round = |_| {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        start.elapsed().as_secs_f64() * 1e9 / calls as f64
    };
    (0..TRIES).map(round).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many sizes as the sweep has; each push costs 25 ns more than its copy.
    fn even() -> Vec<Push> {
        let push = |size| Push { size, push_ns: 25.0 + size as f64 / 20.0, copy_ns: size as f64 / 20.0 };
        sizes().into_iter().map(push).collect()
    }

    #[test]
    fn a_long_packet_may_cost_its_copy() {
        let (_, times) = worst(&even()).expect("there are sizes");
        assert!((1.0..1.5).contains(&times), "{times}");
    }

    #[test]
    fn a_peak_shows_among_its_neighbours_even_where_pushes_cost_much() {
        let mut all = even();
        all.iter_mut().for_each(|push| push.push_ns += 5000.0);
        let at = all.iter().position(|push| push.size == 1000).expect("a usual size");
        all[at].push_ns *= 4.0;
        let (worst, times) = worst(&all).expect("there are sizes");
        assert_eq!(worst.size, 1000);
        assert!((3.9..4.1).contains(&times), "{times}");
    }

    #[test]
    fn a_wide_plateau_shows_against_the_copy() {
        let mut all = even();
        all.iter_mut().filter(|push| push.size > 20_000).for_each(|push| push.push_ns *= 6.0);
        let (worst, times) = worst(&all).expect("there are sizes");
        assert!(worst.size > 20_000 && times > 5.0, "{worst:?} {times}");
    }

    #[test]
    fn a_single_size_has_its_copy_to_be_held_against() {
        let (_, times) = worst(&even()[..1]).expect("there is a size");
        assert!((times - 1.0).abs() < 1e-9, "{times}");
        assert_eq!(worst(&[]), None);
    }

    #[test]
    fn the_sweep_holds_every_usual_size_once_and_in_order() {
        let sizes = sizes();
        assert!(sizes.is_sorted_by(|a, b| a < b) && sizes.len() > 100, "{sizes:?}");
        assert!(SIZES.iter().all(|size| sizes.contains(size)));
        assert_eq!((sizes.first(), sizes.last()), (Some(&SWEEP.0), Some(&SWEEP.1)));
    }
}
