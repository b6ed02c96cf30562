//! The challenge of the bind handshake: a token that nobody can forge and that the relay does not store.
//!
//! The challenge is a number and a keyed BLAKE2s over it, the fields that the Answer repeats (VNI,
//! generation, remote key), the client's address and the relay's. Only the relay that made a challenge
//! verifies it, so its layout is nobody else's concern. Secrets rotate at least two minutes apart and the
//! relay keeps two of them, so a challenge is valid for at least two minutes.

use crate::{geneve::Vni, key::DiscoPublic};
use blake2::{
    Blake2sMac256,
    digest::{KeyInit, Mac},
};
use core::{fmt, net::SocketAddr};

/// Bytes of a challenge.
pub const CHALLENGE_LEN: usize = 32;
/// Shortest time between two rotations, in nanoseconds.
pub const ROTATION_NS: u64 = 120_000_000_000;

/// What a challenge stands for: whoever returns it has received it at this address, for this handshake.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// The session.
    pub vni: Vni,
    /// The number that the client gave to the handshake.
    pub generation: u32,
    /// The other client, which tells the session's two legs apart.
    pub remote_key: &'a DiscoPublic,
    /// Where the Bind came from.
    pub source: SocketAddr,
    /// The relay's address that it was sent to.
    pub local: SocketAddr,
}

/// Bytes of the number in a challenge; the rest is the code over it and the token.
const NUMBER_LEN: usize = 8;

/// The challenge for `token` with this number: the number, then 24 bytes of the code.
///
/// Each challenge of a leg has a higher number than the one before. An Answer returns the number with it, so
/// the relay can tell a recorded Answer from a new one and remembers no handshake (upstream has no number: it
/// remembers one handshake, and a recorded Answer is good again whenever its Bind is repeated).
pub fn make(secret: &[u8; 32], token: &Token<'_>, number: u64) -> [u8; CHALLENGE_LEN] {
    let mut mac = <Blake2sMac256 as KeyInit>::new(secret.into());
    mac.update(&token.vni.get().to_be_bytes());
    mac.update(&token.generation.to_be_bytes());
    mac.update(token.remote_key.as_bytes());
    for address in [token.source, token.local] {
        match address {
            SocketAddr::V4(v4) => mac.update(&v4.ip().to_ipv6_mapped().octets()),
            SocketAddr::V6(v6) => mac.update(&v6.ip().octets()),
        }
        let zone = if let SocketAddr::V6(v6) = address { v6.scope_id() } else { 0 };
        mac.update(&zone.to_be_bytes());
        mac.update(&address.port().to_be_bytes());
    }
    mac.update(&number.to_be_bytes());
    let mut challenge: [u8; CHALLENGE_LEN] = mac.finalize().into_bytes().into();
    // The first bytes of the code make room for the number.
    challenge[..NUMBER_LEN].copy_from_slice(&number.to_be_bytes());
    challenge
}

/// The two valid secrets: the current one makes challenges, and both verify them.
///
/// A value never changes. A rotation makes a new value, and its owner replaces the old one for all readers at
/// once.
#[derive(Clone)]
pub struct Secrets {
    current: [u8; 32],
    previous: Option<[u8; 32]>,
    rotated_ns: u64,
}

impl Secrets {
    /// Makes the first secret from 32 random bytes. Times are nanoseconds of any monotonic clock.
    pub const fn new(now_ns: u64, secret: [u8; 32]) -> Self {
        Self { current: secret, previous: None, rotated_ns: now_ns }
    }

    /// Whether [`Self::rotated`] would rotate. Callers ask this before they generate a new secret.
    pub const fn is_due(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.rotated_ns) >= ROTATION_NS
    }

    /// The next two secrets, if a rotation is due.
    pub fn rotated(&self, now_ns: u64, new_secret: [u8; 32]) -> Option<Self> {
        self.is_due(now_ns).then_some(Self {
            current: new_secret,
            previous: Some(self.current),
            rotated_ns: now_ns,
        })
    }

    /// Makes a challenge with the current secret.
    pub fn challenge(&self, token: &Token<'_>, number: u64) -> [u8; CHALLENGE_LEN] {
        make(&self.current, token, number)
    }

    /// The number of a challenge that was made for exactly this token, with either secret; `None` for any
    /// other.
    ///
    /// The box already authenticates the sender, so the comparison need not take constant time.
    pub fn verify(&self, token: &Token<'_>, challenge: &[u8; CHALLENGE_LEN]) -> Option<u64> {
        let number = u64::from_be_bytes(*challenge.first_chunk::<NUMBER_LEN>()?);
        let mut secrets = core::iter::once(&self.current).chain(&self.previous);
        secrets.any(|secret| make(secret, token, number) == *challenge).then_some(number)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("rotated_ns", &self.rotated_ns).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
