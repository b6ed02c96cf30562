//! The keys that identify peers: node keys (DERP, WireGuard) and disco keys (discovery, UDP relay).
//!
//! Both are Curve25519 public keys of 32 bytes. One must never stand in for the other, so each has its own
//! type. Text forms are those of Tailscale's `types/key`: `nodekey:`, `discokey:` or `privkey:` and 64 hex
//! digits. Private keys, precomputed boxes and the mesh key need an allocator and the `std` feature.

mod text;

#[cfg(feature = "std")]
mod mesh;
#[cfg(feature = "std")]
mod private;
#[cfg(feature = "std")]
mod shared;

pub use text::KeyError;

#[cfg(feature = "std")]
pub use mesh::MeshKey;
#[cfg(feature = "std")]
pub use private::{DiscoPrivate, NodePrivate};
#[cfg(feature = "std")]
pub use shared::{BOX_OVERHEAD, DiscoShared, NodeShared};

use bytemuck::{Pod, TransparentWrapper, Zeroable};
use core::hash::{Hash, Hasher};
use core::{fmt, str::FromStr};

/// Bytes of a public or private key.
pub const KEY_LEN: usize = 32;
/// Bytes of a box nonce.
pub const NONCE_LEN: usize = 24;

macro_rules! public_key {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $short:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
        #[derive(Pod, Zeroable, TransparentWrapper)]
        #[repr(transparent)]
        pub struct $name([u8; KEY_LEN]);

        impl $name {
            /// Prefix of the text form.
            pub const PREFIX: &'static str = $prefix;

            /// The key with these bytes; any bytes are a key, also all zeros.
            pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
                Self(bytes)
            }

            /// Views the bytes as a key, without a copy.
            pub fn from_ref(bytes: &[u8; KEY_LEN]) -> &Self {
                Self::wrap_ref(bytes)
            }

            /// The bytes on the wire.
            pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
                &self.0
            }

            /// Whether this is the all-zero key, which belongs to nobody and must never be used for a box.
            pub fn is_zero(&self) -> bool {
                self.0 == [0; KEY_LEN]
            }

            /// The 64 lowercase digits without prefix.
            #[cfg(feature = "std")]
            pub fn hex(&self) -> String {
                const_hex::encode(self.0)
            }
        }

        impl Hash for $name {
            /// Hashes half of the key, which spreads the keys of a map: to make many keys with the same half
            /// takes as many tries as to break a 128-bit hash. Equality still compares all bytes, because one
            /// private key proves two public keys, which differ only in bit 255 (X25519 ignores that bit).
            fn hash<H: Hasher>(&self, state: &mut H) {
                let [half @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = self.0;
                state.write_u128(u128::from_ne_bytes(half));
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", Self::PREFIX, const_hex::display(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $short, const_hex::display(&self.0[..8]))
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(s: &str) -> Result<Self, KeyError> {
                text::parse(s, Self::PREFIX).map(Self)
            }
        }

        #[cfg(feature = "std")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        #[cfg(feature = "std")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text::deserialize(deserializer)
            }
        }
    };
}

public_key! {
    /// A node key: it identifies a DERP client.
    NodePublic, "nodekey:", "n:"
}

public_key! {
    /// A disco key: it identifies a sender of discovery and UDP relay messages.
    DiscoPublic, "discokey:", "d:"
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c";

    #[test]
    fn text_forms_round_trip_and_take_either_case() {
        let text = format!("nodekey:{HEX}");
        let key: NodePublic = text.parse().expect("a node key");
        assert_eq!(key.to_string(), text);
        assert_eq!(key.hex(), HEX);
        assert_eq!(format!("nodekey:{}", HEX.to_uppercase()).parse(), Ok(key));
        assert_eq!(format!("{key:?}"), "n:07a37cbc142093c8");
        let disco: DiscoPublic = format!("discokey:{HEX}").parse().expect("a disco key");
        assert_eq!(disco.to_string(), format!("discokey:{HEX}"));
        assert_eq!(format!("{disco:?}"), "d:07a37cbc142093c8");
    }

    #[test]
    fn text_with_a_wrong_prefix_length_or_digit_is_refused() {
        assert_eq!(HEX.parse::<NodePublic>(), Err(KeyError::Prefix("nodekey:")));
        assert_eq!(format!("discokey:{HEX}").parse::<NodePublic>(), Err(KeyError::Prefix("nodekey:")));
        assert_eq!("nodekey:".parse::<NodePublic>(), Err(KeyError::Length(0)));
        assert_eq!(format!("nodekey:{}", &HEX[1..]).parse::<NodePublic>(), Err(KeyError::Length(63)));
        assert_eq!(format!("nodekey:{HEX}0").parse::<NodePublic>(), Err(KeyError::Length(65)));
        assert_eq!(format!("nodekey:{}g", &HEX[1..]).parse::<NodePublic>(), Err(KeyError::Digit));
        assert_eq!(format!("nodekey:{}+1", &HEX[2..]).parse::<NodePublic>(), Err(KeyError::Digit));
    }

    #[test]
    fn json_is_the_text_form() {
        let key: DiscoPublic = format!("discokey:{HEX}").parse().expect("a disco key");
        let json = serde_json::to_string(&key).expect("serializable");
        assert_eq!(json, format!("\"discokey:{HEX}\""));
        assert_eq!(serde_json::from_str::<DiscoPublic>(&json).expect("its own output"), key);
        assert!(serde_json::from_str::<DiscoPublic>("\"discokey:00\"").is_err());
        assert!(serde_json::from_str::<DiscoPublic>("7").is_err());
    }

    #[test]
    fn a_borrowed_key_is_the_bytes_where_they_lie() {
        let bytes = [7u8; KEY_LEN];
        let key = NodePublic::from_ref(&bytes);
        assert!(core::ptr::eq(key.as_bytes(), &bytes));
        assert!(!key.is_zero());
        assert!(NodePublic::default().is_zero());
    }
}
