//! The label that a client may choose: at most 32 bytes of printable ASCII (upstream 1.104).

use crate::derp::MAX_APP_NAME;
use core::{fmt, ops::Deref};
use serde::{Serialize, Serializer};

/// A valid application name; it is empty for stock clients and then needs no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AppName(Box<str>);

/// A name that is too long or not printable ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an application name has at most 32 bytes of printable ASCII")]
pub struct AppNameError;

impl AppName {
    /// Checks `name` and stores it.
    ///
    /// # Errors
    /// The name is too long, or is not printable ASCII.
    pub fn new(name: &str) -> Result<Self, AppNameError> {
        if Self::is_valid(name) { Ok(Self(name.into())) } else { Err(AppNameError) }
    }

    /// Whether `name` is allowed; the empty name is.
    pub fn is_valid(name: &str) -> bool {
        name.len() <= MAX_APP_NAME && name.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the client sent no name.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Deref for AppName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for AppName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_at_most_32_printable_ascii_bytes() {
        assert_eq!(AppName::new(""), Ok(AppName::default()));
        assert!(AppName::new(&"~".repeat(32)).is_ok());
        assert!(AppName::new(" a b ").is_ok());
        for bad in [&*"x".repeat(33), "\u{1f}", "\u{7f}", "é", "a\nb", "\0"] {
            assert_eq!(AppName::new(bad), Err(AppNameError), "{bad:?}");
        }
    }
}
