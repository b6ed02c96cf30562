//! `-tcp-keepalive-time` with its meaning in derper, which is that of Go's `net.ListenConfig.KeepAlive`.

use std::time::Duration;

use super::duration;

/// Go's idle time if the flag is 0.
const GO_DEFAULT: Duration = Duration::from_secs(15);

/// The longest idle time that Linux takes (MAX_TCP_KEEPIDLE).
const LONGEST: Duration = Duration::from_secs(32_767);

/// When the system probes a silent connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    /// Never.
    Off,
    /// At the system's times (`net.ipv4.tcp_keepalive_*`).
    System,
    /// After this much silence: 1 s to 32,767 s, in whole seconds.
    After(Duration),
}

/// Parses the flag. 0 means Go's 15 s; less means off; parts of a second are rounded up. A time longer than
/// Linux accepts leaves the system's own times, because Go enables the option first and ignores that the time
/// is refused.
///
/// # Errors
/// A sentence for the command line.
pub fn parse(text: &str) -> Result<Keepalive, String> {
    let (negative, size) = match text.strip_prefix('-') {
        // A second sign is wrong, and the parser takes one.
        Some(size) if size.starts_with('+') => return Err(duration::wrong(text)),
        Some(size) => (true, size),
        None => (false, text),
    };
    let idle = duration::parse(size).map_err(|_| duration::wrong(text))?;
    let rounded = Duration::from_secs(idle.as_secs() + u64::from(idle.subsec_nanos() > 0));
    Ok(match (idle.is_zero(), negative) {
        (true, _) => Keepalive::After(GO_DEFAULT),
        (false, true) => Keepalive::Off,
        (false, false) if rounded > LONGEST => Keepalive::System,
        (false, false) => Keepalive::After(rounded),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_derpers() {
        let after = |seconds| Ok(Keepalive::After(Duration::from_secs(seconds)));
        for (text, expected) in [
            ("0", after(15)),
            ("0s", after(15)),
            ("1ms", after(1)),
            ("1.2s", after(2)),
            ("10m", after(600)),
            ("32767s", after(32_767)),
            ("24h", Ok(Keepalive::System)),
            ("-1s", Ok(Keepalive::Off)),
            ("+1s", after(1)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert!(
            ["--1s", "-+1s", "++1s", "+-1s"].iter().all(|text| parse(text).is_err()) && parse("10").is_err()
        );
    }
}
