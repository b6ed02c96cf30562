//! derper's flags for functions that relayd does not have yet.
//!
//! If a command line gives such a flag the value at which it does nothing, it works in derper and here. Any
//! other value is refused, and the message names the flag: to ignore a flag in silence would be worse.

use super::value;

/// A derper flag for a function that relayd does not have yet, or a value that the flag does not take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The flag would have an effect.
    #[error("-{flag} is not built into this version of relayd: {remedy}")]
    NotBuilt {
        /// The flag's name.
        flag: &'static str,
        /// The remedy.
        remedy: &'static str,
    },
    /// derper would refuse the value too.
    #[error("-{flag}={value}: {wrong}; {remedy}")]
    Value {
        /// The flag's name.
        flag: &'static str,
        /// The given value.
        value: String,
        /// The fault of the value.
        wrong: String,
        /// The remedy.
        remedy: &'static str,
    },
}

/// The values at which a flag does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idle {
    /// A switch in this position.
    Switch(bool),
    /// A switch that only refines another flag of this list.
    AnySwitch,
    /// An empty text.
    Empty,
    /// Any text: it only refines another flag of this list, or a certificate mode that is refused.
    AnyText,
    /// Any whole number, for the same reason.
    AnyNumber,
    /// No limit.
    Infinite,
}

/// Name, idle values, and the remedy.
type Row = (&'static str, Idle, &'static str);

const REMEDY_MANUAL: &str = "leave it out; use -certmode manual";
const REMEDY_FIREWALL: &str = "leave it out; limit new connections in the firewall";
const REMEDY_SECRETS: &str = "leave it out; put the mesh key into a file and name it with -mesh-psk-file";
const REMEDY_VERIFY: &str = "leave it out, and keep the listener to networks you trust";
const LEAVE_OUT: &str = "leave it out";

const ROWS: &[Row] = &[
    ("accept-connection-burst", Idle::AnyNumber, REMEDY_FIREWALL),
    ("accept-connection-limit", Idle::Infinite, REMEDY_FIREWALL),
    ("ace", Idle::Switch(false), "leave it out; the relay is no proxy"),
    ("acme-eab-key", Idle::AnyText, REMEDY_MANUAL),
    ("acme-eab-kid", Idle::AnyText, REMEDY_MANUAL),
    ("acme-email", Idle::AnyText, REMEDY_MANUAL),
    (
        "acme-ip-certs",
        Idle::Switch(false),
        "leave it out; use -certmode manual with an IP address as -hostname",
    ),
    ("bootstrap-dns-names", Idle::Empty, LEAVE_OUT),
    ("derp", Idle::Switch(true), "leave it out; DERP is always served"),
    ("disallow-app-names", Idle::Empty, LEAVE_OUT),
    ("home", Idle::Empty, "leave it out; the home page cannot be changed"),
    ("rate-config", Idle::Empty, LEAVE_OUT),
    ("secrets-cache-dir", Idle::AnyText, LEAVE_OUT),
    ("secrets-path-prefix", Idle::AnyText, LEAVE_OUT),
    ("secrets-url", Idle::Empty, REMEDY_SECRETS),
    ("socket", Idle::AnyText, LEAVE_OUT),
    ("unpublished-bootstrap-dns-names", Idle::Empty, LEAVE_OUT),
    ("verify-client-url", Idle::Empty, REMEDY_VERIFY),
    ("verify-client-url-fail-open", Idle::AnySwitch, LEAVE_OUT),
    ("verify-clients", Idle::Switch(false), REMEDY_VERIFY),
];

/// One of the missing flags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag(&'static Row);

/// The missing flag of this name, without dashes.
pub(super) fn find(name: &str) -> Option<Flag> {
    ROWS.iter().find(|(flag, ..)| *flag == name).map(Flag)
}

impl Flag {
    /// The flag's name.
    pub(super) fn name(self) -> &'static str {
        self.0.0
    }

    /// Whether the flag takes no separate value.
    pub(super) fn is_switch(self) -> bool {
        matches!(self.0.1, Idle::Switch(_) | Idle::AnySwitch)
    }

    /// Checks that the flag does nothing with this value; `None`: the flag has no value.
    pub(super) fn judge(self, value: Option<&str>) -> Result<(), Missing> {
        let &(flag, idle, remedy) = self.0;
        let alone = if self.is_switch() { "true" } else { "" };
        let text = value.unwrap_or(alone);
        let wrong = |wrong: String| Missing::Value { flag, value: text.to_owned(), wrong, remedy };
        let is_idle = match idle {
            Idle::Switch(position) => value::boolean(text).map_err(wrong)? == position,
            Idle::AnySwitch => value::boolean(text).map(|_| true).map_err(wrong)?,
            Idle::AnyNumber => value::integer(text).map(|_| true).map_err(wrong)?,
            Idle::Empty => value.is_some_and(str::is_empty),
            Idle::AnyText => value.is_some(),
            // Rust accepts the same words for infinity as Go.
            Idle::Infinite => {
                text.parse::<f64>().map_err(|_| wrong("it is no number".to_owned()))? == f64::INFINITY
            }
        };
        if is_idle { Ok(()) } else { Err(Missing::NotBuilt { flag, remedy }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_flag_is_refused_by_name_where_it_would_do_something() {
        for (name, idle, remedy) in ROWS {
            let flag = find(name).expect("listed");
            let value = match idle {
                Idle::Switch(position) => Some(if *position { "false" } else { "true" }),
                Idle::Empty => Some("x"),
                Idle::Infinite => Some("100"),
                Idle::AnySwitch | Idle::AnyNumber => Some("x"),
                Idle::AnyText => None,
            };
            let error = flag.judge(value).expect_err(name).to_string();
            assert!(error.starts_with(&format!("-{name}")) && error.contains(remedy), "{error}");
        }
    }

    #[test]
    fn derpers_defaults_do_nothing() {
        let defaults = [
            ("accept-connection-burst", "9223372036854775807"),
            ("accept-connection-limit", "+Inf"),
            ("ace", "false"),
            ("acme-eab-key", ""),
            ("acme-eab-kid", ""),
            ("acme-email", ""),
            ("acme-ip-certs", "F"),
            ("bootstrap-dns-names", ""),
            ("derp", "true"),
            ("disallow-app-names", ""),
            ("home", ""),
            ("rate-config", ""),
            ("secrets-cache-dir", "derper-secrets"),
            ("secrets-path-prefix", "prod/derp"),
            ("secrets-url", ""),
            ("socket", ""),
            ("unpublished-bootstrap-dns-names", ""),
            ("verify-client-url", ""),
            ("verify-client-url-fail-open", "true"),
            ("verify-clients", "false"),
        ];
        assert_eq!(defaults.len(), ROWS.len());
        for (name, value) in defaults {
            assert_eq!(find(name).expect(name).judge(Some(value)), Ok(()), "{name}");
        }
    }
}
