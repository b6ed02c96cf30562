//! `RELAYD_LOG`: how much is logged. A level for all of relayd, or `relayd=debug`, `relayd::listen=trace`,
//! and the libraries below by their own names, separated by commas.

use anyhow::bail;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The environment variable.
pub const VARIABLE: &str = "RELAYD_LOG";

/// The operator's name for the whole program, the crate of this library, and the XDP program's lines.
const OURS: &str = "relayd";

/// The name of this library's crate, under which its modules log.
const CRATE: &str = "relay_user";

/// Libraries that log. By default only their warnings are logged; the rest only when requested by name.
const LIBRARIES: &[&str] = &[
    "aya",
    "aya_log",
    "axum",
    "hyper",
    "hyper_util",
    "mio",
    "netlink_packet_route",
    "netlink_proto",
    "rtnetlink",
    "rustls",
    "tokio",
];

/// rustls logs no address, and a client can make it log anything; our own lines say the same with an address.
const SILENT: &[&str] = &["rustls"];

/// Reads the variable's text; an empty text means `info`.
///
/// # Errors
/// The message names the variable, the part that is not valid, and the valid forms.
pub fn parse(text: &str) -> anyhow::Result<Targets> {
    let mut targets = Targets::new().with_default(LevelFilter::WARN);
    for library in SILENT {
        targets = targets.with_target(*library, LevelFilter::OFF);
    }
    targets = ours(targets, "", LevelFilter::INFO);
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, level) = part.split_once('=').unwrap_or((OURS, part));
        let (name, level) = (name.trim(), level_of(level.trim(), part)?);
        let module = name.strip_prefix(OURS).or_else(|| name.strip_prefix(CRATE));
        targets = match module {
            Some(module) if is_module(module) => ours(targets, module, level),
            _ if LIBRARIES.contains(&name.split("::").next().unwrap_or(name)) => {
                targets.with_target(name, level)
            }
            _ => bail!(
                "{VARIABLE}: nothing logs as {:?}; write a level for all of relayd, relayd=LEVEL, \
                 relayd::MODULE=LEVEL, or one of these with a level: {}",
                super::brief(&name).to_string(),
                LIBRARIES.join(", ")
            ),
        };
    }
    Ok(targets)
}

/// Sets the level of the whole program, or of a module, under all the names that it logs with.
fn ours(targets: Targets, module: &str, level: LevelFilter) -> Targets {
    targets.with_target(format!("{OURS}{module}"), level).with_target(format!("{CRATE}{module}"), level)
}

/// Whether the text is empty or has the form `::a::b`.
fn is_module(text: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    text.is_empty() || text.strip_prefix("::").is_some_and(|modules| modules.split("::").all(word))
}

fn level_of(text: &str, part: &str) -> anyhow::Result<LevelFilter> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => bail!(
            "{VARIABLE}: {:?} is no level; write off, error, warn, info, debug or trace, alone or as in \
             relayd=debug",
            super::brief(&part).to_string()
        ),
    })
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn heard(text: &str, target: &str, level: Level) -> bool {
        parse(text).expect(text).would_enable(target, &level)
    }

    #[test]
    fn one_name_is_all_of_the_program() {
        for text in ["debug", "relayd=debug", "DEBUG", " relayd = debug ", "info,relayd=debug"] {
            for target in ["relayd", "relay_user::listen", "relayd::xdp"] {
                assert!(heard(text, target, Level::DEBUG), "{text}: {target}");
                assert!(!heard(text, target, Level::TRACE), "{text}: {target}");
            }
        }
        assert!(heard("", "relay_user", Level::INFO) && !heard("", "relay_user", Level::DEBUG));
        assert!(!heard("off", "relayd", Level::ERROR));
        assert!(heard("relayd::listen=trace", "relay_user::listen::tcp", Level::TRACE));
        assert!(!heard("relayd::listen=trace", "relay_user::conn", Level::DEBUG));
    }

    #[test]
    fn libraries_are_heard_when_asked_for() {
        assert!(!heard("debug", "rustls::server", Level::DEBUG) && !heard("debug", "rustls", Level::WARN));
        assert!(heard("debug,rustls=debug", "rustls::server", Level::DEBUG));
        assert!(heard("debug", "hyper", Level::WARN) && !heard("debug", "hyper", Level::INFO));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_variable() {
        for text in ["verbose", "relayd=loud", "relay=debug", "debug;info", "relayd::=info", "[x]=info", "5"]
        {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with("RELAYD_LOG: ") && error.contains("write "), "{error}");
        }
    }
}
