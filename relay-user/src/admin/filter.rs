//! Selects clients or sessions by one word, whose form shows what it names.

use std::net::{IpAddr, SocketAddr};

use relay_common::key::{DiscoPublic, KEY_LEN, NodePublic};

use crate::route::peer::Peer;
use crate::route::sessions::Session;

/// The forms of client filters, for messages.
pub const CLIENT_FORMS: &str =
    "a key or its first digits (nodekey:0123…), an address (IP or IP:PORT), or an app name (app:NAME)";

/// The forms of session filters, for messages.
pub const SESSION_FORMS: &str =
    "a VNI (7 or vni:7), a key or its first digits (discokey:0123…), or an address (IP or IP:PORT)";

/// The condition that a client or a session must meet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// No condition.
    #[default]
    All,
    /// A key starts with these hex digits.
    Key(String),
    /// The session has this virtual network identifier.
    Vni(u32),
    /// The client is at this address, and port if given.
    Addr(IpAddr, Option<u16>),
    /// The client's app name contains this text; case is ignored.
    App(String),
    /// The word may be the first digits of a key or part of an app name.
    KeyOrApp(String),
}

/// A word that is not a valid filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the filter {text:?} names nothing: write {forms}")]
pub struct FilterError {
    text: String,
    forms: &'static str,
}

impl Filter {
    /// Reads a filter of clients.
    ///
    /// # Errors
    /// The word does not have a form that names clients.
    pub fn of_clients(text: &str) -> Result<Self, FilterError> {
        let wrong = || FilterError { text: text.to_owned(), forms: CLIENT_FORMS };
        let word = word(text);
        if let Some(digits) = word.strip_prefix(NodePublic::PREFIX) {
            return hex(digits).map(Self::Key).ok_or_else(wrong);
        }
        if let Some(name) = word.strip_prefix("app:") {
            return Ok(Self::App(name.to_lowercase()));
        }
        if word.starts_with(DiscoPublic::PREFIX) || word.starts_with("vni:") {
            return Err(wrong());
        }
        Ok(match (word, addr(word), hex(word)) {
            ("", ..) => Self::All,
            (_, Some((ip, port)), _) => Self::Addr(ip, port),
            (_, None, Some(digits)) => Self::KeyOrApp(digits),
            (_, None, None) => Self::App(word.to_lowercase()),
        })
    }

    /// Reads a filter of sessions. A number is a VNI; the digits of a key that look like a number need
    /// `discokey:` before them.
    ///
    /// # Errors
    /// The word does not have a form that names sessions.
    pub fn of_sessions(text: &str) -> Result<Self, FilterError> {
        let wrong = || FilterError { text: text.to_owned(), forms: SESSION_FORMS };
        let word = word(text);
        if let Some(digits) = word.strip_prefix(DiscoPublic::PREFIX) {
            return hex(digits).map(Self::Key).ok_or_else(wrong);
        }
        if let Some(vni) = word.strip_prefix("vni:") {
            return vni.parse().map(Self::Vni).map_err(|_| wrong());
        }
        match (word, word.parse(), addr(word), hex(word)) {
            ("", ..) => Ok(Self::All),
            (_, Ok(vni), ..) => Ok(Self::Vni(vni)),
            (_, _, Some((ip, port)), _) => Ok(Self::Addr(ip, port)),
            (_, _, _, Some(digits)) => Ok(Self::Key(digits)),
            _ => Err(wrong()),
        }
    }

    pub(super) fn client(&self, peer: &Peer) -> bool {
        let app = |name: &str| peer.about.app_name.to_lowercase().contains(name);
        match self {
            Self::All => true,
            Self::Key(digits) => peer.key.hex().starts_with(digits),
            Self::KeyOrApp(word) => peer.key.hex().starts_with(word) || app(word),
            Self::App(name) => app(name),
            Self::Addr(ip, port) => at(peer.remote, *ip, *port),
            Self::Vni(_) => false,
        }
    }

    pub(super) fn session(&self, session: &Session) -> bool {
        let mut paths = session.route.legs.iter().flatten();
        match self {
            Self::All => true,
            Self::Vni(vni) => session.vni() == *vni,
            Self::Key(digits) => session.route.clients.iter().any(|client| client.hex().starts_with(digits)),
            Self::Addr(ip, port) => {
                paths.any(|path| at(path.remote, *ip, *port) || at(path.local, *ip, *port))
            }
            Self::App(_) | Self::KeyOrApp(_) => false,
        }
    }
}

/// Whether `addr` has the address `ip`, and `port` if given. An IPv4 address is the same in both families.
pub(crate) fn at(addr: SocketAddr, ip: IpAddr, port: Option<u16>) -> bool {
    addr.ip().to_canonical() == ip && port.is_none_or(|port| addr.port() == port)
}

/// The word as copied from a table, without the ellipsis of a shortened key.
fn word(text: &str) -> &str {
    text.trim().trim_end_matches('…')
}

fn hex(digits: &str) -> Option<String> {
    let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && digits.len() <= 2 * KEY_LEN).then(|| digits.to_ascii_lowercase())
}

fn addr(word: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(addr) = word.parse::<SocketAddr>() {
        return Some((addr.ip().to_canonical(), Some(addr.port())));
    }
    let bare = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')).unwrap_or(word);
    Some((bare.parse::<IpAddr>().ok()?.to_canonical(), None))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relay_common::derp::info::AppName;

    use super::*;
    use crate::route::peer::About;
    use crate::route::vocabulary::ConnId;

    fn peer(byte: u8, remote: &str, app: &str) -> Arc<Peer> {
        let remote = remote.parse().expect("an address");
        let mut peer = Peer::new(NodePublic::from_bytes([byte; KEY_LEN]), ConnId(1), remote);
        peer.about =
            About { protocol: "tcp", app_name: AppName::new(app).expect("a name"), ..About::default() };
        Arc::new(peer)
    }

    #[test]
    fn a_client_is_named_by_key_address_or_app() {
        let client = peer(0xab, "192.0.2.7:1234", "Probe");
        let key = client.key.to_string();
        for yes in [
            "",
            "nodekey:ab",
            "ABAB",
            &key,
            "nodekey:abab…",
            "192.0.2.7",
            "192.0.2.7:1234",
            "app:pro",
            "probe",
            "::ffff:192.0.2.7",
        ] {
            assert!(Filter::of_clients(yes).expect(yes).client(&client), "{yes}");
        }
        for no in ["nodekey:ac", "ac", "192.0.2.8", "192.0.2.7:1235", "app:x", "other"] {
            assert!(!Filter::of_clients(no).expect(no).client(&client), "{no}");
        }
        // A name of hex digits is also found as a name.
        assert!(Filter::of_clients("beef").expect("a word").client(&peer(1, "[::1]:1", "beef")));
        assert!(Filter::of_clients("[::1]").expect("an address").client(&peer(1, "[::1]:1", "")));
    }

    #[test]
    fn a_session_is_named_by_vni_key_or_address() {
        assert_eq!(Filter::of_sessions("7"), Ok(Filter::Vni(7)));
        assert_eq!(Filter::of_sessions(" vni:7"), Ok(Filter::Vni(7)));
        assert_eq!(Filter::of_sessions("discokey:7"), Ok(Filter::Key("7".to_owned())));
        assert_eq!(Filter::of_sessions("0aF…"), Ok(Filter::Key("0af".to_owned())));
        let ip = "2001:db8::1".parse().expect("an address");
        assert_eq!(Filter::of_sessions("[2001:db8::1]:5"), Ok(Filter::Addr(ip, Some(5))));
        assert_eq!(Filter::of_sessions(""), Ok(Filter::All));
    }

    #[test]
    fn a_word_that_names_nothing_is_refused_with_the_forms() {
        let long = format!("discokey:{}", "0".repeat(65));
        for wrong in ["vni:x", "discokey:xyz", "nodekey:00", "probe", &long] {
            let error = Filter::of_sessions(wrong).expect_err(wrong).to_string();
            assert!(error.contains("VNI") && error.contains("discokey:"), "{error}");
        }
        for wrong in ["vni:7", "discokey:00", "nodekey:x", "nodekey:"] {
            let error = Filter::of_clients(wrong).expect_err(wrong).to_string();
            assert!(error.contains("nodekey:") && error.contains("app:"), "{error}");
        }
    }
}
