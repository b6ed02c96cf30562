//! The mesh key: 32 secret bytes that every relay of a region holds.

use super::{KEY_LEN, KeyError, text};
use core::{fmt, str::FromStr};
use subtle::ConstantTimeEq;

/// A mesh pre-shared key. Holders may watch, forward and close peers.
///
/// Equality takes the same time for any two keys. A zero key stands for an unset key, so it equals no key,
/// not even itself, and gives no access.
#[derive(Clone)]
pub struct MeshKey([u8; KEY_LEN]);

impl MeshKey {
    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Whether both are the same key and not zero.
    pub fn matches(&self, other: &Self) -> bool {
        let zero = self.0.ct_eq(&[0; KEY_LEN]);
        (self.0.ct_eq(&other.0) & !zero).into()
    }

    /// 64 lowercase hex digits. The text is the secret: use it only in the sealed ClientInfo.
    pub fn to_text(&self) -> String {
        const_hex::encode(self.0)
    }
}

impl PartialEq for MeshKey {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshKey(..)")
    }
}

impl FromStr for MeshKey {
    type Err = KeyError;

    /// Parses exactly 64 hex digits of either case; the caller removes a key file's line end.
    fn from_str(s: &str) -> Result<Self, KeyError> {
        text::parse(s, "").map(Self)
    }
}

impl serde::Serialize for MeshKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&const_hex::encode(self.0))
    }
}

impl<'de> serde::Deserialize<'de> for MeshKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_match_and_zero_matches_nothing() {
        let key = MeshKey::from_bytes([7; KEY_LEN]);
        assert!(key.matches(&"07".repeat(32).parse().expect("64 digits")));
        assert!(!key.matches(&MeshKey::from_bytes([8; KEY_LEN])));
        let zero = MeshKey::from_bytes([0; KEY_LEN]);
        assert!(!zero.matches(&zero.clone()) && !zero.matches(&key) && !key.matches(&zero));
    }

    #[test]
    fn text_is_64_digits_without_prefix_and_debug_is_silent() {
        let key: MeshKey = "AB".repeat(32).parse().expect("64 digits");
        assert_eq!(key.to_text(), "ab".repeat(32));
        assert_eq!(format!("{key:?}"), "MeshKey(..)");
        assert_eq!("".parse::<MeshKey>().err(), Some(KeyError::Length(0)));
        assert_eq!("zz".repeat(32).parse::<MeshKey>().err(), Some(KeyError::Digit));
    }
}
