//! A set of networks, read from a text with one network a line, and looked up by address.
//!
//! ```text
//! # a comment
//! 192.0.2.0/24
//! 198.51.100.7        # one address
//! 2001:db8::/32
//! ::ffff:203.0.113.0/120    # the IPv4 network 203.0.113.0/24
//! ```

use std::net::IpAddr;

/// Bits of a prefix that stand for "IPv4" in an IPv4-mapped network.
const MAPPED_BITS: u32 = 96;

/// A set of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges,
    v6: Ranges,
}

/// First and last addresses, ascending, that neither overlap nor touch.
type Ranges = Vec<(u128, u128)>;

/// Why a line is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {text:?} {wrong}")]
pub struct LineError {
    /// The line, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
    /// The fault and the remedy.
    pub wrong: String,
}

impl Networks {
    /// Parses a whole text; a text without a network is the empty set.
    ///
    /// # Errors
    /// The first line that is neither empty, nor a comment, nor a network.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut networks = Self::default();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let wrong = |wrong| LineError { line, text: text.to_owned(), wrong };
            let (is_v4, range) = network(text).map_err(wrong)?;
            if is_v4 { networks.v4.push(range) } else { networks.v6.push(range) }
        }
        merge(&mut networks.v4);
        merge(&mut networks.v6);
        Ok(networks)
    }

    /// Whether an address is in one of the networks. An IPv4-mapped address is the IPv4 address that it is.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (ranges, ip) = match ip.to_canonical() {
            IpAddr::V4(ip) => (&self.v4, ip.to_bits().into()),
            IpAddr::V6(ip) => (&self.v6, ip.to_bits()),
        };
        let behind = ranges.partition_point(|(first, _)| *first <= ip);
        behind > 0 && ip <= ranges[behind - 1].1
    }

    /// Number of ranges that are left of all networks when those that overlap or touch are one.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether no address is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Parses an address or `address/bits`; returns whether it is IPv4, and the range.
fn network(text: &str) -> Result<(bool, (u128, u128)), String> {
    let form =
        || "is no network; write ADDRESS or ADDRESS/BITS, such as 192.0.2.0/24 or 2001:db8::/32".into();
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let written: IpAddr = address.parse().map_err(|_| form())?;
    let width = if written.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => width,
        // `parse` would also take a sign.
        Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| form())?,
        Some(_) => return Err(form()),
    };
    if bits > width {
        return Err(format!("has too many bits; an address has {width}"));
    }
    let (is_v4, first, width, bits) = match (written, written.to_canonical()) {
        (IpAddr::V4(ip), _) => (true, u128::from(ip.to_bits()), width, bits),
        (IpAddr::V6(_), IpAddr::V4(ip)) if bits >= MAPPED_BITS => {
            (true, u128::from(ip.to_bits()), 32, bits - MAPPED_BITS)
        }
        (IpAddr::V6(ip), _) => (false, ip.to_bits(), width, bits),
    };
    let hosts = u128::MAX.checked_shl(width - bits).map_or(u128::MAX, |mask| !mask);
    if first & hosts != 0 {
        return Err(
            "has bits set behind its prefix; clear them, or leave the prefix out for one address".into()
        );
    }
    Ok((is_v4, (first, first | hosts)))
}

/// Sorts, and makes one of ranges that overlap or touch.
fn merge(ranges: &mut Ranges) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let touches = kept.1.checked_add(1).is_none_or(|behind| next.0 <= behind);
        if touches {
            kept.1 = kept.1.max(next.1);
        }
        touches
    });
    ranges.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Networks {
        Networks::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn has(networks: &Networks, ip: &str) -> bool {
        networks.contains(ip.parse().expect("an address"))
    }

    #[test]
    fn addresses_and_networks_of_both_families_are_found_and_their_neighbours_are_not() {
        let text = "# list\n\n 192.0.2.0/24 # a net\r\n198.51.100.7\n2001:db8::/32\n2001:db9::7/128\n\
                    ::ffff:203.0.113.0/120\n";
        let networks = parse(text);
        for ip in ["192.0.2.0", "192.0.2.255", "198.51.100.7", "::ffff:192.0.2.9", "203.0.113.255"] {
            assert!(has(&networks, ip), "{ip}");
        }
        for ip in ["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::7"] {
            assert!(has(&networks, ip), "{ip}");
        }
        for ip in ["192.0.1.255", "192.0.3.0", "198.51.100.6", "203.0.112.255", "203.0.114.0", "0.0.0.0"] {
            assert!(!has(&networks, ip), "{ip}");
        }
        for ip in
            ["2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::6", "2001:db9::8", "::", "::192.0.2.1"]
        {
            assert!(!has(&networks, ip), "{ip}");
        }
    }

    #[test]
    fn everything_of_one_family_is_nothing_of_the_other() {
        let (all4, all6) = (parse("0.0.0.0/0"), parse("::/0"));
        assert!(has(&all4, "255.255.255.255") && has(&all4, "0.0.0.0") && !has(&all4, "::1"));
        assert!(has(&all6, "::") && has(&all6, "ffff::") && !has(&all6, "192.0.2.1"));
        assert!(!has(&all6, "::ffff:192.0.2.1"), "which is IPv4");
        let none = parse("# nothing\n");
        assert!(none.is_empty() && !has(&none, "192.0.2.1"));
    }

    #[test]
    fn what_overlaps_or_touches_is_one_range() {
        let networks = parse("10.0.0.0/8\n10.1.0.0/16\n11.0.0.0/8\n13.0.0.0/8\nff00::/8\n::/0\n");
        assert_eq!(networks.len(), 3);
        assert!(
            has(&networks, "11.255.255.255") && !has(&networks, "12.0.0.0") && has(&networks, "13.0.0.0")
        );
        assert_eq!(parse("255.255.255.255\n255.255.255.254").len(), 1);
    }

    #[test]
    fn what_is_no_network_is_named_by_line_with_the_remedy() {
        for (text, line, part) in [
            ("192.0.2.1\n\nexample.com", 3, "ADDRESS/BITS"),
            ("192.0.2.0/33", 1, "32"),
            ("2001:db8::/129", 1, "128"),
            ("192.0.2.0/", 1, "ADDRESS/BITS"),
            ("192.0.2.0/+24", 1, "ADDRESS/BITS"),
            ("192.0.2.0/4294967296", 1, "ADDRESS/BITS"),
            ("192.0.2.0/24/3", 1, "ADDRESS/BITS"),
            ("192.0.2.0-192.0.2.9", 1, "ADDRESS/BITS"),
            ("192.0.2.0 192.0.2.9", 1, "ADDRESS/BITS"),
            ("# x\n192.0.2.1/24", 2, "clear them"),
            ("::ffff:192.0.2.0/24", 1, "clear them"),
            ("fe80::1%eth0", 1, "ADDRESS/BITS"),
        ] {
            let error = Networks::parse(text).expect_err(text);
            assert_eq!(error.line, line, "{text:?}");
            assert!(error.to_string().contains(part), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_set_holds_what_its_networks_hold(
            nets in prop::collection::vec((any::<u8>(), 0..=8u32), 0..12),
            ip in any::<u8>(),
        ) {
            // Networks of the last eight bits; the naive answer compares prefixes one by one.
            let mask = |bits: u32| u8::MAX.checked_shl(8 - bits).unwrap_or(0);
            let nets: Vec<_> = nets.into_iter().map(|(net, bits)| (net & mask(bits), bits)).collect();
            let naive = nets.iter().any(|(net, bits)| ip & mask(*bits) == *net);
            let text = |prefix: &str, width: u32| {
                let line = |(net, bits): &(u8, u32)| format!("{prefix}{net}/{}", width - 8 + bits);
                nets.iter().map(line).collect::<Vec<_>>().join("\n")
            };
            let (v4, mapped) = (parse(&text("192.0.2.", 32)), parse(&text("::ffff:192.0.2.", 128)));
            prop_assert_eq!(has(&v4, &format!("192.0.2.{ip}")), naive);
            prop_assert_eq!(v4, mapped);
        }
    }
}
