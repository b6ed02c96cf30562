//! Go's duration texts, which derper's flags take: `300ms`, `2s`, `1m30s`, `10m`.

use std::time::Duration;

use relay_common::go_duration;

/// The longest `--busy-pause`: longer pauses cost latency and save nothing more.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// The longest TCP_USER_TIMEOUT: the kernel counts milliseconds in 31 bits.
const LONGEST_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// The shortest lifetime of a session: clients need a second for their handshake.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);

/// The longest `--relay-bind-lifetime`.
const LONGEST_BIND_LIFETIME: Duration = Duration::from_secs(600);

/// The longest `--relay-steady-lifetime`.
const LONGEST_STEADY_LIFETIME: Duration = Duration::from_secs(86_400);

/// Parses a duration, as [`go_duration::parse`] does.
///
/// # Errors
/// A sentence for the command line.
pub fn parse(text: &str) -> Result<Duration, String> {
    go_duration::parse(text).ok_or_else(|| wrong(text))
}

/// The message about a text that is not a duration.
pub(super) fn wrong(text: &str) -> String {
    format!("{text:?} is not a duration that can be used here; write one like 300ms, 2s or 1m30s")
}

/// `--busy-pause`: at most 1 ms.
///
/// # Errors
/// A sentence for the command line.
pub fn pause(text: &str) -> Result<Duration, String> {
    let pause = parse(text)?;
    if pause > LONGEST_PAUSE {
        return Err("a worker may pause 1ms at most; 50us is the default, 0s turns it off".to_owned());
    }
    Ok(pause)
}

/// `-tcp-user-timeout`: at most the longest time that the kernel can count.
///
/// # Errors
/// A sentence for the command line.
pub fn user_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse(text)?;
    if timeout > LONGEST_USER_TIMEOUT {
        return Err("the kernel takes 596h at most; 0s leaves it the system's default".to_owned());
    }
    Ok(timeout)
}

/// `--relay-bind-lifetime`: long enough for a handshake over DERP and the relay, and not so long that
/// requests that nobody uses fill the table.
///
/// # Errors
/// A sentence for the command line.
pub fn bind_lifetime(text: &str) -> Result<Duration, String> {
    within(text, LONGEST_BIND_LIFETIME, "write 1s to 10m; 30s is the default and upstream's")
}

/// `--relay-steady-lifetime`: a session that is idle holds its place for that long.
///
/// # Errors
/// A sentence for the command line.
pub fn steady_lifetime(text: &str) -> Result<Duration, String> {
    within(text, LONGEST_STEADY_LIFETIME, "write 1s to 24h; 5m is the default and upstream's")
}

fn within(text: &str, longest: Duration, rule: &str) -> Result<Duration, String> {
    let time = parse(text)?;
    if (SHORTEST_LIFETIME..=longest).contains(&time) { Ok(time) } else { Err(rule.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let cases = [("0", 0), ("0s", 0), ("300ms", 300), ("2s", 2000), ("1m30s", 90_000), ("1.5s", 1500)];
        for (text, ms) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "5", "s", "-1s", "1x", "1s2", ".s", "1e9999h"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_the_kernel_or_a_worker_cannot_take_is_refused() {
        assert_eq!(pause("1ms"), Ok(Duration::from_millis(1)));
        assert!(pause("1001us").expect_err("refused").contains("1ms at most"));
        assert!(user_timeout("596h").is_ok() && user_timeout("597h").is_err());
        assert_eq!(parse("3\u{3bc}s"), Ok(Duration::from_micros(3)));
    }

    #[test]
    fn lifetimes_of_sessions_are_within_sense() {
        assert_eq!(bind_lifetime("1s"), Ok(Duration::from_secs(1)));
        assert!(bind_lifetime("601s").expect_err("refused").contains("10m"));
        assert_eq!(steady_lifetime("24h"), Ok(Duration::from_secs(86_400)));
        for text in ["0s", "999ms", "25h", "much"] {
            assert!(steady_lifetime(text).is_err(), "{text}");
        }
    }
}
