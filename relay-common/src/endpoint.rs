//! The description of a UDP relay session for its clients, in JSON that equals upstream's byte for byte
//! (`net/udprelay/endpoint`).

use crate::{geneve::Vni, key::DiscoPublic};
use core::{net::SocketAddr, time::Duration};
use serde::{Deserialize, Serialize};

/// One allocated session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServerEndpoint {
    /// The relay's disco key. Clients seal bind messages to it. It stays the same as long as the process
    /// runs.
    pub server_disco: DiscoPublic,
    /// The two clients, sorted.
    pub client_disco: [DiscoPublic; 2],
    /// A later session of the same relay has a higher number.
    #[serde(rename = "LamportID")]
    pub lamport_id: u64,
    /// Addresses of the relay, best first.
    pub addr_ports: Vec<SocketAddr>,
    /// The session's number.
    #[serde(rename = "VNI")]
    pub vni: Vni,
    /// Time in which both clients must bind.
    #[serde(with = "crate::go_duration")]
    pub bind_lifetime: Duration,
    /// Time for which either client may stay silent after both are bound.
    #[serde(with = "crate::go_duration")]
    pub steady_state_lifetime: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = concat!(
        r#"{"ServerDisco":"discokey:0303030303030303030303030303030303030303030303030303030303030303","#,
        r#""ClientDisco":["discokey:0101010101010101010101010101010101010101010101010101010101010101","#,
        r#""discokey:0202020202020202020202020202020202020202020202020202020202020202"],"#,
        r#""LamportID":18446744073709551615,"AddrPorts":["192.0.2.1:7","[2001:db8::1]:8"],"VNI":16777215,"#,
        r#""BindLifetime":"30s","SteadyStateLifetime":"5m0s"}"#
    );

    #[test]
    fn json_is_byte_for_byte_what_upstream_writes() {
        let endpoint = ServerEndpoint {
            server_disco: DiscoPublic::from_bytes([3; 32]),
            client_disco: [DiscoPublic::from_bytes([1; 32]), DiscoPublic::from_bytes([2; 32])],
            lamport_id: u64::MAX,
            addr_ports: vec![([192, 0, 2, 1], 7).into(), ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 8).into()],
            vni: Vni::MAX,
            bind_lifetime: Duration::from_secs(30),
            steady_state_lifetime: Duration::from_secs(300),
        };
        assert_eq!(serde_json::to_string(&endpoint).expect("serializable"), JSON);
        assert_eq!(serde_json::from_str::<ServerEndpoint>(JSON).expect("its own output"), endpoint);
    }

    #[test]
    fn a_session_number_out_of_range_or_a_lost_member_is_refused() {
        for (from, to) in
            [("16777215", "0"), ("16777215", "16777216"), ("\"30s\"", "30"), ("\"VNI\"", "\"X\"")]
        {
            let json = JSON.replace(from, to);
            assert!(serde_json::from_str::<ServerEndpoint>(&json).is_err(), "{json}");
        }
    }
}
