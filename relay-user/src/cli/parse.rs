//! Converts the arguments to a parsed command line, and lists the flags that were changed.

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::{Cli, derper, spelling};

/// A valid command line.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The parsed arguments.
    pub cli: Cli,
    /// The daemon's flags that differ from their defaults, for the log. No flag holds a secret now; a flag
    /// that ever holds one must be left out here.
    pub changed: Vec<String>,
}

/// A text to print instead: help, the version, or an error.
#[derive(Clone, Debug)]
pub struct Said {
    /// The text, with a newline at its end.
    pub text: String,
    /// Whether the user asked for the text; otherwise it is an error.
    pub asked: bool,
}

/// Parses the arguments after the program's name.
///
/// # Errors
/// The text to print instead of doing anything.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Parsed, Said> {
    let command = Cli::command().color(clap::ColorChoice::Never);
    let args = derper::normalize(args, &command)
        .map_err(|refused| Said { text: format!("relayd: {refused}\n"), asked: false })?;
    let matches = command
        .clone()
        .try_get_matches_from(std::iter::once("relayd".to_owned()).chain(args))
        .map_err(|error| said(&error))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| said(&error))?;
    Ok(Parsed { cli, changed: changed(&command, &matches) })
}

fn said(error: &clap::Error) -> Said {
    Said { text: spelling::spelled(&error.render().to_string()), asked: !error.use_stderr() }
}

fn changed(command: &clap::Command, matches: &ArgMatches) -> Vec<String> {
    let given = command.get_arguments().filter(|arg| {
        matches.try_contains_id(arg.get_id().as_str()).is_ok()
            && matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
    });
    let texts = given.filter_map(|arg| {
        let values: Vec<_> = matches.get_raw(arg.get_id().as_str())?.collect();
        let is_default = arg.get_default_values().iter().map(|value| value.as_os_str()).eq(values.clone());
        let values: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
        let text = format!("{}={}", spelling::flag(arg.get_long()?), values.join(","));
        (!is_default).then_some(text)
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_flags_are_named_as_they_are_written() {
        let args = ["-a", ":8443", "-dev", "-stun=true", "-http-port=80", "--workers", "2"];
        let changed = parse(args.map(str::to_owned)).expect("parses").changed;
        assert_eq!(changed, ["-dev=true", "-a=:8443", "--workers=2"]);
    }

    #[test]
    fn help_is_asked_for_and_errors_are_not() {
        for args in [
            ["help"].as_slice(),
            &["--help"],
            &["-h"],
            &["status", "--help"],
            &["help", "xdp"],
            &["-version"],
        ] {
            let said = parse(args.iter().map(|arg| arg.to_string())).expect_err("text");
            assert!(said.asked && said.text.ends_with('\n'), "{args:?}: {}", said.text);
        }
        for args in [["-nonsense"].as_slice(), &["nonsense"], &["-http-port", "x"]] {
            assert!(!parse(args.iter().map(|arg| arg.to_string())).expect_err("text").asked, "{args:?}");
        }
    }
}
