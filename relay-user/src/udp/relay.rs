//! Decides about each datagram of the UDP relay. This module uses no socket, and the caller passes the time.
//!
//! Wire-compatible with Tailscale's peer relay (`net/udprelay`). It is stricter where that costs no client:
//! Geneve is checked whole, a leg is the pair of addresses that it was bound with, and every drop has a
//! reason.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rand_core::{OsRng, RngCore};
use relay_common::challenge::{Secrets, Token};
use relay_common::disco::message::{Bind, BindKind};
use relay_common::disco::{Envelope, seal_control};
use relay_common::geneve::{self, Geneve, GeneveError, Protocol, Vni};
use relay_common::key::{DiscoPrivate, DiscoPublic, NONCE_LEN};

use super::data::across;
use crate::access::deny::DenyList;
use crate::observe::counters::Counter;
use crate::route::Router;
use crate::route::session::SessionRoute;
use crate::route::vocabulary::{LegIndex, LegPath, Refusal};

/// The action for a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the datagram unchanged to this leg.
    Forward(LegPath),
    /// Send this answer to the sender.
    Challenge(Vec<u8>),
    /// The leg is now bound to this path. Nothing is sent.
    Bound {
        /// The session.
        vni: u32,
        /// The leg.
        leg: LegIndex,
        /// The path that the leg is bound to.
        path: LegPath,
    },
    /// Drop the datagram for this reason.
    Drop(Counter),
}

/// The relay's key and challenge secrets.
#[derive(Debug)]
pub struct UdpRelay {
    key: DiscoPrivate,
    public: DiscoPublic,
    secrets: ArcSwap<Secrets>,
    denied: Arc<DenyList>,
}

impl UdpRelay {
    /// Makes a relay with its own key. Clients tell relays apart by the key, so it must last as long as the
    /// sessions.
    pub fn new(key: DiscoPrivate, secret: [u8; 32], now_ns: u64) -> Self {
        let public = key.public();
        let secrets = ArcSwap::from_pointee(Secrets::new(now_ns, secret));
        Self { key, public, secrets, denied: Arc::default() }
    }

    /// The same relay, for which clients of these networks may not bind.
    #[must_use]
    pub fn denying(self, denied: Arc<DenyList>) -> Self {
        Self { denied, ..self }
    }

    /// The networks whose clients may not bind.
    pub fn denied(&self) -> &Arc<DenyList> {
        &self.denied
    }

    /// The disco key for which clients seal their handshakes.
    pub fn public(&self) -> DiscoPublic {
        self.public
    }

    /// Replaces the challenge secret when it is due.
    pub fn rotate_secrets(&self, now_ns: u64, mut draw: impl FnMut() -> [u8; 32]) {
        let current = self.secrets.load();
        if current.is_due(now_ns)
            && let Some(next) = current.rotated(now_ns, draw())
        {
            self.secrets.store(Arc::new(next));
        }
    }

    /// Decides about one datagram that came by `path` (its source, and the local address that it was sent
    /// to).
    pub fn decide(&self, router: &Router, datagram: &[u8], path: LegPath, now_ns: u64) -> Action {
        let (header, rest) = match geneve::parse(datagram) {
            Ok(parsed) => parsed,
            Err(error) => return Action::Drop(malformed(error)),
        };
        let Some(session) = router.session(header.vni.get()) else {
            return Action::Drop(Counter::UdpUnknownVni);
        };
        let result = match header {
            Geneve { control: true, protocol: Protocol::Disco, vni } => {
                self.control(router, &session, vni, rest, path, now_ns)
            }
            Geneve { control: true, .. } => Err(Counter::UdpProtocol),
            Geneve { .. } => data(&session, path, now_ns),
        };
        result.unwrap_or_else(Action::Drop)
    }

    fn control(
        &self,
        router: &Router,
        session: &SessionRoute,
        vni: Vni,
        packet: &[u8],
        path: LegPath,
        now_ns: u64,
    ) -> Result<Action, Counter> {
        // Before the box is opened: a denied network costs nothing and is answered nothing.
        if self.denied.denies(path.remote.ip()) {
            return Err(Counter::UdpDenied);
        }
        let envelope = Envelope::parse(packet).map_err(|_| Counter::UdpNotDisco)?;
        let leg = session.clients.iter().position(|client| client == envelope.sender);
        let leg = leg.ok_or(Counter::UdpUnknownSender)?;
        let shared = session.side[leg].shared(|| self.key.shared(envelope.sender));
        let shared = shared.ok_or(Counter::UdpBadBox)?;
        let plain = shared.open(envelope.nonce, envelope.sealed).ok_or(Counter::UdpBadBox)?;
        let (kind, bind) = Bind::parse(&plain).map_err(|_| Counter::UdpBadMessage)?;
        let other = session.clients[1 - leg];
        if bind.vni != vni || bind.remote_key != other {
            return Err(Counter::UdpMismatch);
        }
        match kind {
            BindKind::Bind => {
                if bind.generation == 0 {
                    return Err(Counter::UdpGeneration);
                }
                let number = router.bind(vni.get(), leg, now_ns).map_err(refused)?;
                let challenge = self.secrets.load().challenge(&token(&bind, path), number);
                let mut nonce = [0; NONCE_LEN];
                OsRng.fill_bytes(&mut nonce);
                let answer = Bind { challenge, ..bind };
                Ok(Action::Challenge(seal_control(
                    BindKind::Challenge,
                    &answer,
                    &self.public,
                    shared,
                    &nonce,
                )))
            }
            BindKind::Answer => {
                let number = self.secrets.load().verify(&token(&bind, path), &bind.challenge);
                let number = number.ok_or(Counter::UdpBadChallenge)?;
                router.answer(vni.get(), leg, number, path, now_ns).map_err(refused)?;
                // A new list may have come since the first look, and its walk over the sessions may have been
                // over before this leg was bound.
                if self.denied.denies(path.remote.ip()) {
                    router.end_session(vni.get());
                    return Err(Counter::UdpDenied);
                }
                Ok(Action::Bound { vni: vni.get(), leg, path })
            }
            BindKind::Challenge => Err(Counter::UdpBadMessage),
        }
    }
}

/// What the challenge of a handshake stands for: see [`Token`].
fn token(bind: &Bind, path: LegPath) -> Token<'_> {
    let Bind { vni, generation, ref remote_key, .. } = *bind;
    Token { vni, generation, remote_key, source: path.remote, local: path.local }
}

/// Forwards a datagram of a bound session to the other leg; the payload is not read.
fn data(session: &SessionRoute, path: LegPath, now_ns: u64) -> Result<Action, Counter> {
    let (leg, to) = across(session, path)?;
    session.side[leg].heard(now_ns);
    Ok(Action::Forward(to))
}

/// The reason to drop what is not Geneve.
pub(super) fn malformed(error: GeneveError) -> Counter {
    match error {
        GeneveError::TooShort => Counter::UdpShort,
        GeneveError::Version => Counter::UdpVersion,
        GeneveError::Options => Counter::UdpOptions,
        GeneveError::Reserved | GeneveError::ZeroVni => Counter::UdpReserved,
        GeneveError::Protocol | GeneveError::ControlNotDisco => Counter::UdpProtocol,
    }
}

fn refused(refusal: Refusal) -> Counter {
    match refusal {
        Refusal::SameAddress => Counter::UdpSameAddress,
        Refusal::UnknownSession => Counter::UdpUnknownVni,
        _ => Counter::UdpGeneration,
    }
}

#[cfg(test)]
mod tests;
