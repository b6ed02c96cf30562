//! The text form of keys: a prefix for the kind of key, then 64 hex digits.

use super::KEY_LEN;

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(thiserror::Error))]
pub enum KeyError {
    /// It does not start with this prefix.
    #[cfg_attr(feature = "std", error("key does not start with {0:?}"))]
    Prefix(&'static str),
    /// This many bytes follow the prefix, instead of 64.
    #[cfg_attr(feature = "std", error("key has {0} hex digits instead of 64"))]
    Length(usize),
    /// One of the 64 bytes is not a hex digit.
    #[cfg_attr(feature = "std", error("key holds something else than hex digits"))]
    Digit,
}

/// Parses `prefix` and 64 hex digits of either case.
pub(crate) fn parse(s: &str, prefix: &'static str) -> Result<[u8; KEY_LEN], KeyError> {
    let digits = s.strip_prefix(prefix).ok_or(KeyError::Prefix(prefix))?.as_bytes();
    if digits.len() != 2 * KEY_LEN {
        return Err(KeyError::Length(digits.len()));
    }
    const_hex::decode_to_array(digits).map_err(|_| KeyError::Digit)
}

/// Deserializes any type from its text form, without an allocation if the input allows that.
#[cfg(feature = "std")]
pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: core::str::FromStr<Err = KeyError>,
{
    use serde::{Deserialize, de::Error};
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}
