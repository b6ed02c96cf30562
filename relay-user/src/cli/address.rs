//! Listen addresses in the form of Go's `net.Listen`: `:443`, `host:443`, `[::1]:https`,
//! `[fe80::1%eth0]:443`.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};

use anyhow::{Context, bail};

/// The system's list of service names.
const SERVICES: &str = "/etc/services";

/// Resolves the value of `-a`; without a host it means all addresses of both families. May use the name
/// service.
///
/// # Errors
/// The message names the flag and the form of an address.
pub fn resolve(text: &str) -> anyhow::Result<SocketAddr> {
    let wrong =
        || format!("-a {text:?} is no listen address; write :PORT, IP:PORT, [IPV6]:PORT or NAME:PORT");
    let (host, port) = split(text).with_context(wrong)?;
    let services = || fs::read_to_string(SERVICES).unwrap_or_default();
    let port = port_of(port, services).with_context(wrong)?;
    let (plain, zone) = host.split_once('%').unwrap_or((host, ""));
    match plain.parse::<IpAddr>() {
        _ if host.is_empty() => Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)),
        Ok(IpAddr::V6(ip)) if !zone.is_empty() => {
            Ok(SocketAddrV6::new(ip, port, 0, scope(zone).with_context(wrong)?).into())
        }
        Ok(ip) if zone.is_empty() => Ok(SocketAddr::new(ip, port)),
        _ => by_name(host, port),
    }
}

/// Splits host and port at the last colon; an IPv6 address is in brackets.
fn split(text: &str) -> anyhow::Result<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:").context("no port behind the bracket")?;
        return Ok((host, port));
    }
    let (host, port) = text.rsplit_once(':').context("no port")?;
    if host.contains([':', '[', ']']) {
        bail!("an IPv6 address needs brackets");
    }
    Ok((host, port))
}

/// A port by number or by name, such as `https`. An empty text is 0, which means any port, as in Go.
fn port_of(text: &str, services: impl FnOnce() -> String) -> anyhow::Result<u16> {
    match text {
        "" => Ok(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().context("ports end at 65535"),
        name => {
            let name = name.to_ascii_lowercase();
            let known = match name.as_str() {
                "http" => Some(80),
                "https" => Some(443),
                _ => service(&name, &services()),
            };
            known.with_context(|| format!("{SERVICES} knows no TCP service {name:?}"))
        }
    }
}

/// Looks a TCP service up by name or alias in the text of services(5).
fn service(name: &str, services: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let official = words.next()?;
        let port = words.next()?.strip_suffix("/tcp")?;
        let is_it = official == name || words.any(|alias| alias == name);
        if is_it { port.parse().ok() } else { None }
    })
}

fn scope(zone: &str) -> anyhow::Result<u32> {
    match zone.parse() {
        Ok(index) => Ok(index),
        Err(_) => {
            nix::net::if_::if_nametoindex(zone).with_context(|| format!("there is no interface {zone:?}"))
        }
    }
}

/// One address of a name, IPv4 if the name has one: Go listens on the same.
fn by_name(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let found = (host, port).to_socket_addrs().with_context(|| {
        format!("-a: the host {host:?} is not known here; give an address of this machine, or :PORT for all")
    })?;
    let found: Vec<_> = found.collect();
    let best = found.iter().find(|addr| addr.is_ipv4()).or_else(|| found.first());
    best.copied().with_context(|| format!("-a: the host {host:?} has no address; give one, or :PORT for all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_read_as_go_reads_them() {
        for (text, addr) in [
            (":443", "[::]:443"),
            (":https", "[::]:443"),
            ("127.0.0.1:HTTP", "127.0.0.1:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:", "127.0.0.1:0"),
            ("[::1]:8443", "[::1]:8443"),
            ("localhost:8443", "127.0.0.1:8443"),
        ] {
            assert_eq!(resolve(text).expect(text), addr.parse().expect("address"), "{text}");
        }
        let zone = resolve("[fe80::1%lo]:443").expect("the loopback interface");
        assert!(matches!(zone, SocketAddr::V6(addr) if addr.scope_id() == 1), "{zone}");
    }

    #[test]
    fn anything_else_is_refused_with_the_flag() {
        for text in ["443", "host", ":x-no-service", "", "::1:443", "[::1]", "1.2.3.4:65536", "[::1%nope]:1"]
        {
            let error = format!("{:#}", resolve(text).expect_err(text));
            assert!(error.contains("-a ") && error.contains(":PORT"), "{error}");
        }
        let error = format!("{:#}", resolve("no.such.host.invalid:1").expect_err("unknown"));
        assert!(error.contains("-a: the host \"no.such.host.invalid\""), "{error}");
    }

    #[test]
    fn services_have_names_and_aliases() {
        let text = "# comment\nssh 22/tcp # remote\nsnmp 161/udp\nkerberos 88/tcp kerberos5 krb5\n";
        assert_eq!(service("ssh", text), Some(22));
        assert_eq!(service("krb5", text), Some(88));
        assert_eq!((service("snmp", text), service("remote", text)), (None, None));
    }
}
