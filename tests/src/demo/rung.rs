//! A row of the demo's closing table: a rung is one of the ways of a packet through the relay, of which each
//! is tried if the one above it cannot take the packet (`relay-user/docs/architecture.md`).

use super::traffic::Traffic;

/// One path and its results.
#[derive(Debug)]
pub(super) struct Rung {
    name: &'static str,
    traffic: Traffic,
    counted: String,
}

impl Rung {
    /// Makes a row; `counted` says which counter counted how many packets.
    pub(super) fn new(name: &'static str, traffic: Traffic, counted: String) -> Self {
        Self { name, traffic, counted }
    }
}

/// Prints all rows.
pub(super) fn print_table(rungs: &[Rung]) {
    println!("{:<17} {:>6} {:>9} {:>14}  counted", "rung", "sent", "delivered", "median latency");
    for Rung { name, traffic, counted } in rungs {
        let median = match traffic.median() {
            Some(median) => format!("{:.1} us", median.as_secs_f64() * 1e6),
            None => "-".to_owned(),
        };
        println!("{name:<17} {:>6} {:>9} {median:>14}  {counted}", traffic.sent, traffic.delivered);
    }
}
