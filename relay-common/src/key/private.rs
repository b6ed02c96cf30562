//! Private keys. They are clamped, are never displayed, and seal and open boxes.

use super::{
    DiscoPublic, DiscoShared, KEY_LEN, KeyError, NONCE_LEN, NodePublic, NodeShared, shared::SharedBox, text,
};
use core::{fmt, str::FromStr};
use crypto_box::SecretKey;
use rand_core::{CryptoRng, RngCore};

/// Prefix of a private key's text form, which derper's key file also uses.
const PREFIX: &str = "privkey:";

macro_rules! private_key {
    ($(#[$doc:meta])* $name:ident, $public:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SecretKey);

        impl $name {
            /// Generates a new key.
            pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
                let mut bytes = [0; KEY_LEN];
                rng.fill_bytes(&mut bytes);
                Self::from_bytes(bytes)
            }

            /// The key with these bytes, clamped.
            pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
                Self(SecretKey::from_bytes(clamp(bytes)))
            }

            /// The public half.
            pub fn public(&self) -> $public {
                $public::from_bytes(self.0.public_key().to_bytes())
            }

            /// `privkey:` and 64 hex digits. The text is the secret: use it only in key files.
            pub fn to_text(&self) -> String {
                format!("{PREFIX}{}", const_hex::encode(self.0.to_bytes()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(s: &str) -> Result<Self, KeyError> {
                text::parse(s, PREFIX).map(Self::from_bytes)
            }
        }
    };
}

private_key! {
    /// The private half of a node key: a DERP server's or client's identity.
    NodePrivate, NodePublic
}

private_key! {
    /// The private half of a disco key.
    DiscoPrivate, DiscoPublic
}

impl NodePrivate {
    /// The box between this key and `peer`; `None` if `peer` is zero or another key of small order.
    pub fn shared(&self, peer: &NodePublic) -> Option<NodeShared> {
        SharedBox::new(&self.0, peer.as_bytes()).map(NodeShared)
    }

    /// Seals one message; see [`NodeShared::seal`].
    pub fn seal_to(&self, peer: &NodePublic, nonce: [u8; NONCE_LEN], plain: &[u8]) -> Option<Vec<u8>> {
        Some(self.shared(peer)?.seal(nonce, plain))
    }

    /// Opens one message; see [`NodeShared::open`].
    pub fn open_from(&self, peer: &NodePublic, sealed: &[u8]) -> Option<Vec<u8>> {
        self.shared(peer)?.open(sealed)
    }
}

impl DiscoPrivate {
    /// The box between this key and `peer`; `None` if `peer` is zero or another key of small order.
    pub fn shared(&self, peer: &DiscoPublic) -> Option<DiscoShared> {
        SharedBox::new(&self.0, peer.as_bytes()).map(DiscoShared)
    }
}

const fn clamp(mut bytes: [u8; KEY_LEN]) -> [u8; KEY_LEN] {
    bytes[0] &= 0xf8;
    bytes[KEY_LEN - 1] = bytes[KEY_LEN - 1] & 0x7f | 0x40;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{BOX_OVERHEAD, NONCE_LEN};
    use rand_core::OsRng;

    fn node(first: u8) -> NodePrivate {
        NodePrivate::from_bytes(core::array::from_fn(|i| first + i as u8))
    }

    #[test]
    fn keys_are_clamped_and_their_text_form_round_trips() {
        let key = NodePrivate::from_bytes([0xff; KEY_LEN]);
        assert_eq!(key.to_text(), format!("privkey:f8{}7f", "ff".repeat(30)));
        let again: NodePrivate = key.to_text().parse().expect("its own text");
        assert_eq!(again.public(), key.public());
        assert!(matches!("nodekey:00".parse::<NodePrivate>(), Err(KeyError::Prefix("privkey:"))));
    }

    #[test]
    fn debug_shows_nothing_of_a_private_key() {
        assert_eq!(format!("{:?}", node(1)), "NodePrivate(..)");
        assert_eq!(format!("{:?}", DiscoPrivate::generate(&mut OsRng)), "DiscoPrivate(..)");
    }

    #[test]
    fn a_box_opens_only_between_its_two_keys_and_unchanged() {
        let (alice, bob) = (node(1), node(90));
        let sealed = alice.seal_to(&bob.public(), [3; NONCE_LEN], b"hello").expect("an honest key");
        assert_eq!(sealed.len(), NONCE_LEN + BOX_OVERHEAD + 5);
        assert_eq!(bob.open_from(&alice.public(), &sealed).as_deref(), Some(&b"hello"[..]));
        assert_eq!(bob.open_from(&node(2).public(), &sealed), None);
        for i in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[i] ^= 1;
            assert_eq!(bob.open_from(&alice.public(), &bad), None, "flipped byte {i}");
            assert_eq!(bob.open_from(&alice.public(), &sealed[..i]), None, "cut at {i}");
        }
    }

    #[test]
    fn a_peer_key_of_small_order_is_refused_and_never_panics() {
        let zero = NodePublic::default();
        let one = NodePublic::from_bytes(core::array::from_fn(|i| u8::from(i == 0)));
        for peer in [zero, one] {
            assert_eq!(node(1).seal_to(&peer, [0; NONCE_LEN], b"x"), None);
            assert_eq!(node(1).open_from(&peer, &[0; 100]), None);
        }
        assert!(DiscoPrivate::from_bytes([1; KEY_LEN]).shared(&DiscoPublic::default()).is_none());
    }

    #[test]
    fn a_precomputed_disco_box_opens_from_either_side() {
        let (a, b) = (DiscoPrivate::generate(&mut OsRng), DiscoPrivate::generate(&mut OsRng));
        let ab = a.shared(&b.public()).expect("an honest key");
        let ba = b.shared(&a.public()).expect("an honest key");
        let sealed = ab.seal(&[9; NONCE_LEN], &[5; 74]);
        assert_eq!(ba.open(&[9; NONCE_LEN], &sealed), Some(vec![5; 74]));
        assert_eq!(ba.open(&[8; NONCE_LEN], &sealed), None);
        assert_eq!(ba.open(&[9; NONCE_LEN], &sealed[..15]), None);
        assert_eq!(ba.open(&[9; NONCE_LEN], &[]), None);
    }
}
