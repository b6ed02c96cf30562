//! Durations in the text form of Go's `time.Duration`: `30s`, `5m0s`, `1.5ms`.

use core::{fmt, time::Duration};
use serde::{Deserialize, Deserializer, Serializer, de::Error};
use std::borrow::Cow;

const SECOND: u64 = 1_000_000_000;

/// For `#[serde(with)]`.
pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&GoDuration(*duration))
}

/// For `#[serde(with)]`. Accepts what Go accepts, except negative durations.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(format_args!("{text:?} is not a duration")))
}

/// A duration that is displayed as Go displays it.
struct GoDuration(Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        match ns {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{ns}ns"),
            1_000..1_000_000 => fraction(f, ns, 1_000, "µs"),
            1_000_000..SECOND => fraction(f, ns, 1_000_000, "ms"),
            _ => {
                let minutes = ns / (60 * SECOND);
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes >= 1 {
                    write!(f, "{}m", minutes % 60)?;
                }
                fraction(f, ns % (60 * SECOND), SECOND, "s")
            }
        }
    }
}

/// Writes `ns` in units of `unit_ns`, without trailing zeros after the point.
fn fraction(f: &mut fmt::Formatter<'_>, ns: u64, unit_ns: u64, unit: &str) -> fmt::Result {
    let (whole, mut rest) = (ns / unit_ns, ns % unit_ns);
    write!(f, "{whole}")?;
    if rest > 0 {
        let mut digits = unit_ns.ilog10() as usize;
        while rest.is_multiple_of(10) {
            rest /= 10;
            digits -= 1;
        }
        write!(f, ".{rest:0digits$}")?;
    }
    f.write_str(unit)
}

/// Parses what Go's `time.ParseDuration` parses, except negative durations; only zero needs no unit.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_len);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        total = total.checked_add(nanoseconds(number, unit)?)?;
        rest = after;
    }
    // This is the longest duration in Go.
    (total <= i64::MAX as u64).then(|| Duration::from_nanos(total))
}

fn nanoseconds(number: &str, unit: &str) -> Option<u64> {
    let unit_ns = match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole_ns = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.checked_mul(unit_ns)? };
    let (mut fraction_ns, mut place_ns) = (0, u128::from(unit_ns) * 1_000_000_000_000);
    for digit in fraction.chars() {
        place_ns /= 10;
        fraction_ns += place_ns * u128::from(digit.to_digit(10)?);
    }
    whole_ns.checked_add(u64::try_from(fraction_ns / 1_000_000_000_000).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (100_000_000, "100ms"),
            (3_300_000_000, "3.3s"),
            (30 * SECOND, "30s"),
            (60 * SECOND, "1m0s"),
            (300 * SECOND, "5m0s"),
            (245 * SECOND + 1_000_000, "4m5.001s"),
            (3600 * SECOND, "1h0m0s"),
            (5 * 3600 * SECOND + 367 * SECOND + 1_000_000, "5h6m7.001s"),
        ] {
            assert_eq!(GoDuration(Duration::from_nanos(ns)).to_string(), text);
            assert_eq!(parse(text), Some(Duration::from_nanos(ns)), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, ns) in
            [("0", 0), ("+5s", 5 * SECOND), (".5s", SECOND / 2), ("1.s", SECOND), ("1us", 1_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_nanos(ns)), "{text}");
        }
        for text in
            ["", "+", "5", "s", ".s", "5 s", "-5s", "5x", "1.2.3s", "99999999999999999999s", "3000000h"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_duration_survives_a_round_trip(ns in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(ns);
            prop_assert_eq!(parse(&GoDuration(duration).to_string()), Some(duration));
        }
    }
}
