//! `-mesh-with`: the other relays of the region, in derper's form.

use std::fmt;

/// The port if an entry names none.
const HTTPS: u16 = 443;

/// One relay to have a link to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeshHost {
    /// The name in its certificate and in the URL, without port and without brackets.
    pub name: String,
    /// The port, in the URL and for the dial.
    pub port: u16,
    /// The name or address to dial.
    pub dial: String,
}

impl fmt::Display for MeshHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())?;
        if self.dial != self.name { write!(f, "/{}", self.dial) } else { Ok(()) }
    }
}

impl MeshHost {
    /// Host and port as in a URL and in the `Host` header, without the usual port.
    pub fn authority(&self) -> String {
        let name = if self.name.contains(':') { format!("[{}]", self.name) } else { self.name.clone() };
        if self.port == HTTPS { name } else { format!("{name}:{}", self.port) }
    }
}

/// All relays to have links to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshWith(pub Vec<MeshHost>);

/// [`parse`] for the command line.
///
/// # Errors
/// As [`parse`].
pub fn value(text: &str) -> Result<MeshWith, String> {
    parse(text).map(MeshWith)
}

/// Parses the whole flag: entries `HOST`, `HOST:PORT`, `HOST/DIALHOST` or `HOST:PORT/DIALHOST`, with commas
/// between them; IPv6 addresses with a port are in brackets. An entry that comes twice counts once.
///
/// # Errors
/// A sentence for the command line.
pub fn parse(text: &str) -> Result<Vec<MeshHost>, String> {
    let mut hosts = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let host = host(entry)?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

fn host(entry: &str) -> Result<MeshHost, String> {
    let wrong = |why: &str| {
        format!("{entry:?} {why}; write HOST, HOST:PORT, or HOST/ADDRESS to dial another address")
    };
    let (host, dial) = entry.split_once('/').map_or((entry, None), |(host, dial)| (host, Some(dial)));
    if dial.is_some_and(|dial| dial.contains('/')) {
        return Err(wrong("has more than one slash"));
    }
    let (name, port) = split_port(host).ok_or_else(|| wrong("has no valid port"))?;
    let dial = match dial {
        Some(dial) => dial.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(dial),
        None => name,
    };
    if dial.contains(':') && dial.parse::<std::net::Ipv6Addr>().is_err() && !dial.contains('%') {
        return Err(wrong("has a port behind the slash; the port is that of HOST"));
    }
    if name.is_empty() || dial.is_empty() {
        return Err(wrong("names no host"));
    }
    if [name, dial].iter().any(|part| part.contains(|c: char| c.is_whitespace() || "[]@?#\\".contains(c))) {
        return Err(wrong("has a character that is not of a host's name"));
    }
    let lower = |part: &str| part.trim_end_matches('.').to_ascii_lowercase();
    Ok(MeshHost { name: lower(name), port, dial: lower(dial) })
}

/// Splits `host`, `host:port`, `[v6]` and `[v6]:port`; a bare IPv6 address has no port.
fn split_port(text: &str) -> Option<(&str, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (name, port) = rest.split_once(']')?;
        return match port.strip_prefix(':') {
            Some(port) => Some((name, valid(port)?)),
            None => port.is_empty().then_some((name, HTTPS)),
        };
    }
    match text.split_once(':') {
        Some((name, port)) if !port.contains(':') => Some((name, valid(port)?)),
        _ => Some((text, HTTPS)),
    }
}

fn valid(port: &str) -> Option<u16> {
    port.parse().ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (String, u16, String) {
        let [host] = parse(text).expect("taken").try_into().expect("one");
        let MeshHost { name, port, dial } = host;
        (name, port, dial)
    }

    #[test]
    fn every_form_of_derpers_is_taken() {
        for (text, name, port, dial) in [
            ("derp1.example", "derp1.example", 443, "derp1.example"),
            ("Derp1.Example.", "derp1.example", 443, "derp1.example"),
            ("derp1.example:8443", "derp1.example", 8443, "derp1.example"),
            ("derp1.example/10.0.0.7", "derp1.example", 443, "10.0.0.7"),
            ("derp1.example:8443/derp1.internal", "derp1.example", 8443, "derp1.internal"),
            ("192.0.2.1", "192.0.2.1", 443, "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1", 443, "2001:db8::1"),
            ("[2001:db8::1]:8443/[fd00::1]", "2001:db8::1", 8443, "fd00::1"),
        ] {
            assert_eq!(one(text), (name.to_owned(), port, dial.to_owned()), "{text}");
        }
    }

    #[test]
    fn spaces_doubles_and_empty_entries_do_no_harm() {
        assert_eq!(parse(""), Ok(vec![]));
        let hosts = parse(" a, b/10.0.0.1,,A:443 ,").expect("taken");
        assert_eq!(hosts.iter().map(MeshHost::to_string).collect::<Vec<_>>(), ["a", "b/10.0.0.1"]);
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_with_its_form() {
        for text in [
            "a/b/c",
            "a/b:1",
            "a:0",
            "a:70000",
            "a:x",
            ":443",
            "a/",
            "/b",
            "a b",
            "https://a",
            "[::1",
            "[::1]x",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("HOST/ADDRESS"), "{text}: {error}");
        }
    }

    #[test]
    fn an_authority_is_that_of_a_url() {
        let authority = |text| parse(text).expect("taken")[0].authority();
        assert_eq!(authority("a:8443/b"), "a:8443");
        assert_eq!(authority("a:443"), "a");
        assert_eq!(authority("[2001:db8::1]:8443"), "[2001:db8::1]:8443");
    }
}
