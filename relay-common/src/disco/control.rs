//! A whole bind message on the wire: Geneve with the O bit, disco envelope, sealed body.
//!
//! All three kinds have the same length, so the relay never answers with more bytes than it received.

use super::{
    Envelope, HEADER_LEN,
    message::{BIND_LEN, Bind, BindKind},
};
use crate::{
    geneve::{GENEVE_LEN, Geneve, Protocol},
    key::{BOX_OVERHEAD, DiscoPublic, DiscoShared, NONCE_LEN},
};

/// Bytes of the UDP payload.
pub const CONTROL_LEN: usize = GENEVE_LEN + HEADER_LEN + BOX_OVERHEAD + BIND_LEN;

/// The UDP payload of a bind message from `sender` for the session `bind.vni`. A nonce must never be used
/// twice.
pub fn seal_control(
    kind: BindKind,
    bind: &Bind,
    sender: &DiscoPublic,
    shared: &DiscoShared,
    nonce: &[u8; NONCE_LEN],
) -> Vec<u8> {
    let sealed = shared.seal(nonce, &bind.encode(kind));
    let mut out = Vec::with_capacity(CONTROL_LEN);
    out.extend_from_slice(&Geneve { control: true, protocol: Protocol::Disco, vni: bind.vni }.encode());
    Envelope { sender, nonce, sealed: &sealed }.encode(&mut out);
    out
}
