//! The relay as a node of a DERP map: the operator pastes it into the map so that clients use the relay.
//!
//! Member names, order and meaning are those of upstream's `tailcfg.DERPNode`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::certificate::Facts;

/// The first region that upstream reserves for private relays.
const REGION: u32 = 900;

/// The value in a DERP map for a node without an address of a family.
const NONE: &str = "none";

/// One node of a DERP map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MapNode {
    /// Name, unique in the map; the operator may change it.
    pub name: String,
    /// The node's region; the operator may change it.
    #[serde(rename = "RegionID")]
    pub region_id: u32,
    /// The name that clients dial and ask for in TLS.
    pub host_name: String,
    /// The pinned certificate, if no authority has signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_name: Option<String>,
    /// The node's IPv4 address, if the daemon can know it; otherwise clients ask the DNS. `none`: not
    /// reachable by IPv4.
    #[serde(rename = "IPv4", skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// The same for IPv6.
    #[serde(rename = "IPv6", skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// UDP port of STUN; -1: none.
    #[serde(rename = "STUNPort")]
    pub stun_port: i32,
    /// TCP port of DERP over TLS.
    #[serde(rename = "DERPPort")]
    pub derp_port: u16,
    /// Whether the plain companion answers the captive-portal check.
    #[serde(rename = "CanPort80", default, skip_serializing_if = "std::ops::Not::not")]
    pub can_port80: bool,
}

/// Where the relay listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// DERP over TLS.
    pub derp: SocketAddr,
    /// The plain companion's port.
    pub companion: Option<u16>,
    /// STUN's port.
    pub stun: Option<u16>,
}

impl MapNode {
    /// The node of a relay with this certificate and these ports.
    pub fn new(hostname: &str, facts: &Facts, place: Ports) -> Self {
        let (ipv4, ipv6) = addresses(hostname, place.derp.ip());
        Self {
            name: "custom".to_owned(),
            region_id: REGION,
            host_name: hostname.to_owned(),
            cert_name: facts.pinned.then(|| facts.pin.clone()),
            ipv4,
            ipv6,
            stun_port: place.stun.map_or(-1, i32::from),
            derp_port: place.derp.port(),
            can_port80: place.companion == Some(80),
        }
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The node's addresses. If the host name is an address, that one is used; otherwise the listener's. No
/// address is given if the listener's is known only to this machine or its network, or if it listens on all
/// addresses: then clients ask the DNS.
fn addresses(hostname: &str, listener: IpAddr) -> (Option<String>, Option<String>) {
    let of = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => (Some(ip.to_string()), Some(NONE.to_owned())),
        IpAddr::V6(ip) => (Some(NONE.to_owned()), Some(ip.to_string())),
    };
    if let Ok(ip) = hostname.parse() {
        return of(ip);
    }
    let listener = listener.to_canonical();
    if listener.is_unspecified() {
        return (None, None);
    }
    let (ipv4, ipv6) = of(listener);
    let dns = |text: Option<String>| text.filter(|text| is_public(listener) || text == NONE);
    (dns(ipv4), dns(ipv6))
}

/// Whether the address is neither loopback nor link-local nor private (RFC 1918, 4193, 6598).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            !(ip.is_loopback() || ip.is_link_local() || ip.is_private() || is_shared)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local()),
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::transport::tls::files::CertificatePaths;

    fn json(hostname: &str, derp: &str, pinned: bool) -> String {
        let facts = Facts {
            files: CertificatePaths::new("/certs".as_ref(), hostname),
            names: vec![hostname.to_owned()],
            not_before: OffsetDateTime::UNIX_EPOCH,
            not_after: OffsetDateTime::UNIX_EPOCH,
            pin: "sha256-raw:ab".to_owned(),
            pinned,
        };
        let derp = derp.parse().expect("address");
        MapNode::new(hostname, &facts, Ports { derp, companion: Some(80), stun: Some(3478) }).to_json()
    }

    #[test]
    fn an_address_is_pinned_and_its_other_family_is_none() {
        assert_eq!(
            json("203.0.113.7", "[::]:8443", true),
            r#"{"Name":"custom","RegionID":900,"HostName":"203.0.113.7","CertName":"sha256-raw:ab","IPv4":"203.0.113.7","IPv6":"none","STUNPort":3478,"DERPPort":8443,"CanPort80":true}"#
        );
        assert!(json("2001:db8::7", "[::]:443", true).contains(r#""IPv4":"none","IPv6":"2001:db8::7""#));
    }

    #[test]
    fn a_name_is_left_to_the_dns_where_the_listener_cannot_know_better() {
        assert_eq!(
            json("relay.example", "[::]:443", false),
            r#"{"Name":"custom","RegionID":900,"HostName":"relay.example","STUNPort":3478,"DERPPort":443,"CanPort80":true}"#
        );
        assert!(json("relay.example", "8.8.8.8:443", false).contains(r#""IPv4":"8.8.8.8","IPv6":"none""#));
        for private in ["10.0.0.5:443", "127.0.0.1:443", "100.64.0.1:443"] {
            let json = json("relay.example", private, false);
            assert!(!json.contains("IPv4") && json.contains(r#""IPv6":"none""#), "{json}");
        }
        assert!(!json("relay.example", "[fd00::1]:443", false).contains("IPv6"));
    }
}
