//! Boxes between a private key and a peer's public key: NaCl `crypto_box` (X25519, HSalsa20,
//! XSalsa20-Poly1305).
//!
//! A sealed message is the 16-byte tag, then the ciphertext. Computing the shared secret is the expensive
//! part, so it is done once per pair. With a peer key of small order, such as zero, everybody knows the
//! secret. This module refuses such keys; upstream panics on them (`types/key`).

use super::{DiscoPublic, KEY_LEN, NONCE_LEN};
use crypto_box::{Nonce, PublicKey, SalsaBox, SecretKey, Tag, aead::AeadInPlace};

/// Bytes a box adds to its plaintext: the Poly1305 tag.
pub const BOX_OVERHEAD: usize = 16;

/// The precomputed box between our disco key and one peer's.
pub struct DiscoShared(pub(super) SharedBox);

impl DiscoShared {
    /// Seals `plain` into tag and ciphertext. A nonce must never be used twice.
    pub fn seal(&self, nonce: &[u8; NONCE_LEN], plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(BOX_OVERHEAD + plain.len());
        self.0.seal_onto(nonce, plain, &mut sealed);
        sealed
    }

    /// Opens a box that the peer sealed for this key. It makes one allocation of the exact size.
    pub fn open(&self, nonce: &[u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut plain = vec![0; sealed.len().checked_sub(BOX_OVERHEAD)?];
        self.0.open_into(nonce, sealed, &mut plain)?;
        Some(plain)
    }
}

/// The precomputed box between our node key and one peer's.
pub struct NodeShared(pub(super) SharedBox);

impl NodeShared {
    /// Seals `plain` into nonce, tag and ciphertext. A nonce must never be used twice.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(NONCE_LEN + BOX_OVERHEAD + plain.len());
        sealed.extend_from_slice(&nonce);
        self.0.seal_onto(&nonce, plain, &mut sealed);
        sealed
    }

    /// Opens nonce, tag and ciphertext that the peer sealed for this key.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut plain = vec![0; sealed.len().checked_sub(BOX_OVERHEAD)?];
        self.0.open_into(nonce, sealed, &mut plain)?;
        Some(plain)
    }
}

impl core::fmt::Debug for NodeShared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("NodeShared(..)")
    }
}

impl core::fmt::Debug for DiscoShared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DiscoShared(..)")
    }
}

/// A `crypto_box` that checks its peer key first.
pub(super) struct SharedBox(SalsaBox);

impl SharedBox {
    /// Computes the box; `None` if `peer` is of small order.
    pub(super) fn new(private: &SecretKey, peer: &[u8; KEY_LEN]) -> Option<Self> {
        (!has_small_order(peer)).then(|| Self(SalsaBox::new(&PublicKey::from_bytes(*peer), private)))
    }

    /// Appends tag and ciphertext of `plain`.
    pub(super) fn seal_onto(&self, nonce: &[u8; NONCE_LEN], plain: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; BOX_OVERHEAD]);
        out.extend_from_slice(plain);
        let (tag, text) = out[start..].split_at_mut(BOX_OVERHEAD);
        match self.0.encrypt_in_place_detached(Nonce::from_slice(nonce), &[], text) {
            Ok(computed) => tag.copy_from_slice(&computed),
            // Sealing fails only for associated data, which is empty here, or past Salsa20's 2^70 bytes.
            Err(_) => out.truncate(start),
        }
    }

    /// Opens `sealed` into `plain`, which must be shorter by exactly the overhead.
    pub(super) fn open_into(&self, nonce: &[u8; NONCE_LEN], sealed: &[u8], plain: &mut [u8]) -> Option<()> {
        let (tag, text) = sealed.split_at_checked(BOX_OVERHEAD)?;
        if text.len() != plain.len() {
            return None;
        }
        plain.copy_from_slice(text);
        self.0.decrypt_in_place_detached(Nonce::from_slice(nonce), &[], plain, Tag::from_slice(tag)).ok()
    }
}

impl DiscoPublic {
    /// Whether everybody knows the secret of any box with this key: no client has such a key, and nobody can
    /// seal for it.
    pub fn has_small_order(&self) -> bool {
        has_small_order(self.as_bytes())
    }
}

/// Whether a point has order 1, 2, 4 or 8 on the curve or its twist: 0, 1, p-1, the two points of order 8,
/// and p and p+1, which equal 0 and 1. The top bit is not part of a coordinate (RFC 7748 section 5).
fn has_small_order(point: &[u8; KEY_LEN]) -> bool {
    let mut point = *point;
    point[KEY_LEN - 1] &= 0x7f;
    SMALL_ORDER.contains(&point)
}

const SMALL_ORDER: [[u8; KEY_LEN]; 7] = [
    [0; KEY_LEN],
    with_first_byte([0; KEY_LEN], 1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    near_p(0xec),
    near_p(0xed),
    near_p(0xee),
];

const fn near_p(first: u8) -> [u8; KEY_LEN] {
    let mut point = with_first_byte([0xff; KEY_LEN], first);
    point[KEY_LEN - 1] = 0x7f;
    point
}

const fn with_first_byte(mut point: [u8; KEY_LEN], first: u8) -> [u8; KEY_LEN] {
    point[0] = first;
    point
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_point_yields_at_most_eight_different_secrets() {
        for point in SMALL_ORDER {
            let peer = PublicKey::from_bytes(point);
            let mut seen: Vec<Vec<u8>> = (1..=40u8)
                .map(|i| {
                    let mut sealed = Vec::new();
                    let private = SecretKey::from_bytes([i; KEY_LEN]);
                    SharedBox(SalsaBox::new(&peer, &private)).seal_onto(
                        &[0; NONCE_LEN],
                        b"same",
                        &mut sealed,
                    );
                    sealed
                })
                .collect();
            seen.sort();
            seen.dedup();
            assert!(seen.len() <= 8, "{point:02x?} is not of small order");
        }
    }

    #[test]
    fn small_order_is_seen_through_the_unused_top_bit() {
        let mut point = [0; KEY_LEN];
        point[31] = 0x80;
        assert!(has_small_order(&point));
        point[0] = 9;
        assert!(!has_small_order(&point), "the base point");
    }
}
