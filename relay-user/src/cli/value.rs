//! Values as Go's `flag` package reads them: truth values and whole numbers.

use std::net::{IpAddr, SocketAddr};

use bytesize::ByteSize;

/// The smallest `--queue-memory`: below it, every client that is busy for a moment would be cut.
const LEAST_QUEUE_MEMORY: ByteSize = ByteSize::mib(1);

/// Go's truth values; upstream: `strconv.ParseBool`.
///
/// # Errors
/// A sentence for the command line.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("write true or false (1, t, T, 0, f and F are understood too)".to_owned()),
    }
}

/// Go's whole numbers: decimal, or with the prefix `0x`, `0o`, `0` or `0b`; single underscores between
/// digits.
///
/// # Errors
/// A sentence for the command line.
pub fn integer(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no whole number");
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // Underscores may only stand between digits or after a prefix, never at the end and never two in a row.
    let prefixed = radix != 10;
    if digits.ends_with('_') || digits.contains("__") || (digits.starts_with('_') && !prefixed) {
        return Err(wrong());
    }
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(wrong());
    }
    let number = i128::from_str_radix(&digits, radix).map_err(|_| wrong())?;
    i64::try_from(if negative { -number } else { number }).map_err(|_| wrong())
}

/// A UDP or TCP port.
///
/// # Errors
/// A sentence for the command line.
pub fn port(text: &str) -> Result<u16, String> {
    u16::try_from(integer(text)?).map_err(|_| "ports are 0 to 65535".to_owned())
}

/// `-http-port`: a port, or `None` for any negative number, as in derper.
///
/// # Errors
/// A sentence for the command line.
pub fn port_or_none(text: &str) -> Result<OptionalPort, String> {
    match integer(text)? {
        ..0 => Ok(OptionalPort(None)),
        number => match u16::try_from(number) {
            Ok(port) => Ok(OptionalPort(Some(port))),
            Err(_) => Err("ports are 0 to 65535; -1 turns it off".to_owned()),
        },
    }
}

/// An address that clients can send to.
///
/// # Errors
/// A sentence for the command line.
pub fn endpoint(text: &str) -> Result<SocketAddr, String> {
    let form = "write IP:PORT, such as 203.0.113.7:40000 or [2001:db8::7]:40000";
    let addr: SocketAddr = text.parse().map_err(|_| form.to_owned())?;
    if addr.port() == 0 || is_nobodys(addr.ip()) {
        return Err(format!("clients cannot send there; {form}"));
    }
    Ok(addr)
}

/// Whether no host elsewhere can send to an address: it names no host, a group of them, or one that only
/// those on the same link can name.
fn is_nobodys(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        // 240.0.0.0/4 is not in use, and holds the broadcast address and most masks.
        IpAddr::V4(ip) => ip.octets()[0] == 0 || ip.octets()[0] >= 240 || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local(),
    }
}

/// `--relay-server-mark`.
///
/// # Errors
/// A sentence for the command line.
pub fn mark(text: &str) -> Result<u32, String> {
    let number = integer(text).ok().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| "write a mark of 32 bits, such as 0x80000; 0: none".to_owned())
}

/// An entry of `--advertise`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// The address.
    pub ip: IpAddr,
    /// The port; `None`: the one that the relay has bound.
    pub port: Option<u16>,
}

/// `--advertise`: an address, with or without a port; an IPv6 address with a port is in brackets.
///
/// # Errors
/// A sentence for the command line.
pub fn advertise(text: &str) -> Result<Advertise, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let alone = || bare.parse().map(|ip| Advertise { ip, port: None });
    let with_port = text.parse().map(|addr: SocketAddr| Advertise { ip: addr.ip(), port: Some(addr.port()) });
    let form = "write IP or IP:PORT, such as 203.0.113.7, 203.0.113.7:40000 or [2001:db8::7]:40000";
    let parsed = with_port.or_else(|_| alone()).map_err(|_| form.to_owned())?;
    let parsed = Advertise { ip: parsed.ip.to_canonical(), ..parsed };
    if is_nobodys(parsed.ip) || parsed.port == Some(0) {
        return Err(format!("clients cannot send there; {form}"));
    }
    Ok(parsed)
}

/// `--relay-server-stun`: a name or address with a port; an IPv6 address is in brackets.
///
/// # Errors
/// A sentence for the command line.
pub fn stun_server(text: &str) -> Result<String, String> {
    let form = || "write HOST:PORT, such as stun.example.com:3478 or [2001:db8::7]:3478".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let named = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "[]:/@%".contains(c));
    if !named && text.parse::<SocketAddr>().is_err() {
        return Err(form());
    }
    if !port.parse().is_ok_and(|port: u16| port > 0) {
        return Err(form());
    }
    Ok(text.to_ascii_lowercase())
}

/// `--workers`.
///
/// # Errors
/// A sentence for the command line.
pub fn workers(text: &str) -> Result<u16, String> {
    let number = integer(text).ok().and_then(|number| u16::try_from(number).ok());
    number
        .filter(|number| (1..=1024).contains(number))
        .ok_or_else(|| "write a number from 1 to 1024, or leave the flag out for half the cores".to_owned())
}

/// `--queue-memory`.
///
/// # Errors
/// A sentence for the command line.
pub fn queue_memory(text: &str) -> Result<ByteSize, String> {
    let size = text.parse::<ByteSize>().ok().filter(|size| *size >= LEAST_QUEUE_MEMORY);
    size.ok_or_else(|| format!("write a size of at least {LEAST_QUEUE_MEMORY}, such as 512MiB or 2GiB"))
}

/// A port that a negative number turns off. It is a separate type, because clap treats an `Option` as a flag
/// that may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalPort(pub Option<u16>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_values_are_gos() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(boolean(text), Ok(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(boolean(text), Ok(false), "{text}");
        }
        for text in ["", "yes", "tRUE", "2", "on"] {
            assert!(boolean(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_are_gos() {
        let cases =
            [("0", 0), ("-1", -1), ("+80", 80), ("0x50", 80), ("0o120", 80), ("0120", 80), ("0b11", 3)];
        for (text, number) in cases.into_iter().chain([("0x_5_0", 80), ("-0x1", -1), ("8_080", 8080)]) {
            assert_eq!(integer(text), Ok(number), "{text}");
        }
        for text in ["", "-", "0x", "8_", "0x5__0", "_1", "1.5", "80a", "09", "9223372036854775808", "+-1"] {
            assert!(integer(text).is_err(), "{text:?}");
        }
        assert_eq!(integer("9223372036854775807"), Ok(i64::MAX));
    }

    #[test]
    fn every_negative_port_is_none() {
        for text in ["-1", "-2", "-99999"] {
            assert_eq!(port_or_none(text), Ok(OptionalPort(None)), "{text}");
        }
        assert_eq!(port_or_none("0"), Ok(OptionalPort(Some(0))));
        assert!(port_or_none("65536").is_err());
        assert!(port("-1").is_err());
    }

    #[test]
    fn what_cannot_be_advertised_or_asked_is_told_the_form() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (text, address, port) in [
            ("192.0.2.1", "192.0.2.1", None),
            ("192.0.2.1:9", "192.0.2.1", Some(9)),
            ("2001:db8::1", "2001:db8::1", None),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:9", "2001:db8::1", Some(9)),
            ("::ffff:192.0.2.1", "192.0.2.1", None),
        ] {
            assert_eq!(advertise(text), Ok(Advertise { ip: ip(address), port }), "{text}");
        }
        for text in ["", "host", "192.0.2.1:", "192.0.2.1:0", "0.0.0.0", "[::]:9", "1.2.3.4:65536"]
            .into_iter()
            .chain(["224.0.0.1", "255.255.255.0", "240.0.0.1", "fe80::1", "[ff02::1]:7", "::ffff:0.0.0.0"])
        {
            assert!(advertise(text).expect_err(text).contains("IP:PORT"), "{text}");
        }
        for text in ["stun.example.com:3478", "192.0.2.1:1", "[2001:db8::1]:3478"] {
            assert_eq!(stun_server(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:65536",
            "host:x",
            "2001:db8::1",
            "a b:1",
            "http://a:1",
        ] {
            assert!(stun_server(text).expect_err(text).contains("HOST:PORT"), "{text}");
        }
    }

    #[test]
    fn a_mark_is_32_bits_in_either_notation() {
        assert_eq!(
            (mark("0x80000"), mark("524288"), mark("0xffffffff")),
            (Ok(0x80000), Ok(0x80000), Ok(u32::MAX))
        );
        for text in ["0x100000000", "-1", "tailscale", ""] {
            assert!(mark(text).expect_err(text).contains("0x80000"), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_size_or_an_endpoint_is_told_what_can() {
        assert_eq!(queue_memory("1MiB"), Ok(ByteSize::mib(1)));
        for text in ["-1", "0", "1KiB", "much", ""] {
            assert!(queue_memory(text).expect_err(text).contains("512MiB"), "{text}");
        }
        assert_eq!(endpoint("[::1]:7"), Ok(([0, 0, 0, 0, 0, 0, 0, 1], 7).into()));
        for text in ["1.2.3.4", "::1", "host:1", "", "0.0.0.0:7", "1.2.3.4:0", "[fe80::1]:7", "[::]:7"] {
            assert!(endpoint(text).expect_err(text).contains("IP:PORT"), "{text}");
        }
    }
}
