//! Converts Go's flag syntax, as derper's command lines use it, to clap's.
//!
//! Go accepts `-flag`, `--flag`, `-flag=value` and `-flag value`. A switch takes its value only after an
//! equals sign. If a flag is given twice, the last value counts. The converter writes everything as
//! `--flag=value`, so that clap cannot confuse flags and values.

use std::collections::BTreeMap;

use super::missing::{self, Missing};
use super::value;

/// derper's flags that relayd has. They have one dash, as in derper.
pub(super) const FLAGS: &[&str] = &[
    "a",
    "c",
    "certdir",
    "certmode",
    "dev",
    "hostname",
    "http-port",
    "mesh-psk-file",
    "mesh-with",
    "stun",
    "stun-port",
    "tcp-keepalive-time",
    "tcp-user-timeout",
    "tcp-write-timeout",
];

/// Why the command line was refused before clap read it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A derper flag that is not implemented.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// `-stun false`: Go takes no separate value for a switch, and derper ignores the word and everything
    /// after it.
    #[error("-{flag} {value}: a switch takes its value behind an equals sign; write -{flag}={value}")]
    SwitchValue {
        /// The switch.
        flag: String,
        /// The word after the switch.
        value: String,
    },
    /// A subcommand after flags.
    #[error("the subcommand comes first: relayd {name} and then its flags")]
    LateSubcommand {
        /// The subcommand's name.
        name: String,
    },
    /// A word that belongs to no flag. derper ignores it and every flag after it.
    #[error(
        "{word:?} belongs to no flag, so it and all behind it would be ignored; leave it out, or quote \
         the value that it is part of (`relayd help` lists the flags)"
    )]
    Stray {
        /// The word.
        word: String,
    },
}

/// The kind of an argument.
enum Argument<'a> {
    Flag { name: &'a str, value: Option<&'a str> },
    Word,
}

impl<'a> Argument<'a> {
    fn of(arg: &'a str) -> Self {
        let word = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
        match word.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())) {
            Some(word) => match word.split_once('=') {
                Some((name, value)) => Self::Flag { name, value: Some(value) },
                None => Self::Flag { name: word, value: None },
            },
            None => Self::Word,
        }
    }
}

/// Rewrites the arguments after the program's name for clap; `command` has the flags that clap knows.
///
/// # Errors
/// The invalid flag or word, and the remedy.
pub fn normalize(
    args: impl IntoIterator<Item = String>,
    command: &clap::Command,
) -> Result<Vec<String>, Refused> {
    let mut args = args.into_iter();
    let (mut out, mut idle) = (Vec::new(), BTreeMap::new());
    let mut last_switch = None;
    let mut first = true;
    while let Some(arg) = args.next() {
        let was_first = std::mem::take(&mut first);
        let Argument::Flag { name, value } = Argument::of(&arg) else {
            if arg == "--" {
                // The end of the flags. Any word after it is a stray word, even if it looks like a flag.
                return match args.next() {
                    Some(word) => Err(Refused::Stray { word }),
                    None => judged(out, idle),
                };
            }
            if was_first {
                out.push(arg);
                out.extend(args.map(two_dashes));
                return Ok(out);
            }
            return Err(stray(arg, last_switch, command));
        };
        last_switch = None;
        if let Some(flag) = missing::find(name) {
            let value = match value {
                None if flag.is_switch() => {
                    last_switch = Some(name.to_owned());
                    None
                }
                None => args.next(),
                Some(value) => Some(value.to_owned()),
            };
            idle.insert(flag.name(), (flag, value));
            continue;
        }
        match (name, value) {
            ("h" | "help", _) => out.push("--help".to_owned()),
            ("V", None) => out.push("--version".to_owned()),
            ("version", value) => {
                // derper's flag is a switch like others.
                if value.is_none_or(|value| value::boolean(value) != Ok(false)) {
                    out.push("--version".to_owned());
                }
            }
            _ => {
                let known = command.get_arguments().find(|known| known.get_long() == Some(name));
                let is_switch = known.is_some_and(clap::Arg::is_require_equals_set);
                let value = match value {
                    Some(value) => Some(value.to_owned()),
                    None if is_switch => {
                        last_switch = Some(name.to_owned());
                        None
                    }
                    None if known.is_some() => args.next(),
                    None => None,
                };
                out.push(match value {
                    Some(value) => format!("--{name}={value}"),
                    None => format!("--{name}"),
                });
                if known.is_none() {
                    // clap reports this best, with a suggestion; later arguments do not matter.
                    break;
                }
            }
        }
    }
    judged(out, idle)
}

/// The arguments for clap, if the missing flags do nothing with their last values.
fn judged(
    out: Vec<String>,
    idle: BTreeMap<&'static str, (missing::Flag, Option<String>)>,
) -> Result<Vec<String>, Refused> {
    for (flag, value) in idle.into_values() {
        flag.judge(value.as_deref())?;
    }
    Ok(out)
}

fn two_dashes(arg: String) -> String {
    match Argument::of(&arg) {
        // clap's own short flags are not changed.
        Argument::Flag { name, .. } if name.len() > 1 => format!("--{}", arg.trim_start_matches('-')),
        _ => arg,
    }
}

fn stray(word: String, switch: Option<String>, command: &clap::Command) -> Refused {
    match switch {
        Some(flag) if value::boolean(&word).is_ok() => Refused::SwitchValue { flag, value: word },
        _ if command.find_subcommand(&word).is_some() => Refused::LateSubcommand { name: word },
        _ => Refused::Stray { word },
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn normalized(args: &[&str]) -> Result<Vec<String>, Refused> {
        normalize(args.iter().map(|arg| arg.to_string()), &Cli::command())
    }

    fn refused(args: &[&str]) -> String {
        normalized(args).expect_err("refused").to_string()
    }

    #[test]
    fn every_spelling_becomes_claps() {
        let ours = |args| normalized(args).expect("taken");
        assert_eq!(ours(&["-a", ":443", "-http-port", "-1"]), ["--a=:443", "--http-port=-1"]);
        assert_eq!(ours(&["-stun=false", "--dev", "-h"]), ["--stun=false", "--dev", "--help"]);
        assert_eq!(ours(&["-c", "-x", "--xdp", "eth0"]), ["--c=-x", "--xdp=eth0"]);
        assert_eq!(ours(&["-a=x=y", "--"]), ["--a=x=y"]);
        assert_eq!(ours(&["-version=false"]), [""; 0]);
        assert_eq!(ours(&["-version"]), ["--version"]);
        assert_eq!(
            ours(&["status", "-json", "--admin-socket", "/x"]),
            ["status", "--json", "--admin-socket", "/x"]
        );
    }

    #[test]
    fn of_missing_flags_the_last_one_counts() {
        assert!(
            normalized(&["-verify-clients", "-verify-clients=false", "-mesh-with", "", "-home="]).is_ok()
        );
        assert!(
            refused(&["-verify-clients=false", "-verify-clients"]).contains("-verify-clients is not built")
        );
        assert!(refused(&["-secrets-url", "a,b"]).contains("-secrets-url is not built"));
        assert!(refused(&["-ace=maybe"]).contains("-ace=maybe"));
    }

    #[test]
    fn a_word_that_derper_would_ignore_is_refused_with_what_was_meant() {
        assert!(refused(&["-stun", "false"]).contains("write -stun=false"));
        assert!(refused(&["-verify-clients", "false", "-dev"]).contains("write -verify-clients=false"));
        assert!(refused(&["-dev", "status"]).contains("relayd status"));
        assert!(refused(&["-hostname", "a", "b"]).contains("\"b\""));
        assert!(refused(&["--", "-dev"]).contains("-dev"));
    }
}
