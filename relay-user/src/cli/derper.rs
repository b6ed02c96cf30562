//! Go's flag syntax, and derper's flags that relayd does not have yet.

/// A derper flag that does something relayd cannot do yet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("-{flag} is not built into this version of relayd: {remedy}")]
pub struct NotBuilt {
    flag: String,
    remedy: &'static str,
}

/// What each missing flag would do, and what to do instead.
const NOT_BUILT: &[(&str, &str)] = &[
    ("accept-connection-burst", "leave it out; limit new connections in the firewall"),
    ("accept-connection-limit", "leave it out; limit new connections in the firewall"),
    ("ace", "leave it out"),
    ("acme-eab-key", "leave it out; use -certmode manual"),
    ("acme-eab-kid", "leave it out; use -certmode manual"),
    ("acme-email", "leave it out; use -certmode manual"),
    ("acme-ip-certs", "leave it out; use -certmode manual with an IP address as -hostname"),
    ("bootstrap-dns-names", "leave it out"),
    ("derp", "leave it out; DERP is always served"),
    ("disallow-app-names", "leave it out"),
    ("home", "leave it out; there is no home page"),
    ("mesh-psk-file", "leave it out; run one relay per region"),
    ("mesh-with", "leave it out; run one relay per region"),
    ("rate-config", "leave it out"),
    ("secrets-cache-dir", "leave it out"),
    ("secrets-path-prefix", "leave it out"),
    ("secrets-url", "leave it out"),
    ("socket", "leave it out"),
    ("unpublished-bootstrap-dns-names", "leave it out"),
    ("verify-client-url", "leave it out, and keep the listener to networks you trust"),
    ("verify-client-url-fail-open", "leave it out"),
    ("verify-clients", "leave it out, and keep the listener to networks you trust"),
];

/// Rewrites `-word[=value]` to `--word[=value]`, as Go takes both; values and everything after `--` stay.
///
/// # Errors
/// A flag of derper's that would be ignored: it is refused by name instead.
pub fn normalize(args: impl Iterator<Item = String>) -> Result<Vec<String>, NotBuilt> {
    let mut out = Vec::new();
    let mut literal = false;
    for arg in args {
        literal |= arg == "--";
        let word = arg.trim_start_matches('-');
        let dashes = arg.len() - word.len();
        let is_flag =
            !literal && matches!(dashes, 1 | 2) && word.starts_with(|c: char| c.is_ascii_alphabetic());
        if !is_flag {
            out.push(arg);
            continue;
        }
        let name = word.split('=').next().unwrap_or(word);
        if let Some((flag, remedy)) = NOT_BUILT.iter().find(|(flag, _)| *flag == name) {
            return Err(NotBuilt { flag: (*flag).to_owned(), remedy });
        }
        // clap's own short flags stay as they are.
        out.push(if matches!(arg.as_str(), "-h" | "-V") { arg } else { format!("--{word}") });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(args: &[&str]) -> Vec<String> {
        normalize(args.iter().map(|arg| arg.to_string())).expect("all are built")
    }

    #[test]
    fn one_dash_becomes_two_and_values_stay() {
        assert_eq!(normalized(&["-a", ":443", "-http-port", "-1"]), ["--a", ":443", "--http-port", "-1"]);
        assert_eq!(normalized(&["-stun=false", "--dev", "-h"]), ["--stun=false", "--dev", "-h"]);
        assert_eq!(normalized(&["--", "-a"]), ["--", "-a"]);
    }

    #[test]
    fn every_missing_flag_says_what_to_do() {
        for (flag, remedy) in NOT_BUILT {
            let error = normalize([format!("-{flag}=x")].into_iter()).expect_err("refused").to_string();
            assert!(error.contains(flag) && error.contains(remedy), "{error}");
        }
    }
}
