//! Decides about each datagram of the UDP relay. This module uses no socket, and the caller passes the time.
//!
//! Wire-compatible with Tailscale's peer relay (`net/udprelay`). It is stricter where that costs no client:
//! Geneve is checked whole, a leg is the pair of addresses that it was bound with, and every drop has a
//! reason.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rand_core::{OsRng, RngCore};
use relay_common::challenge::Secrets;
use relay_common::disco::message::{Bind, BindKind};
use relay_common::disco::{Envelope, seal_control};
use relay_common::geneve::{self, Geneve, GeneveError, Protocol, Vni};
use relay_common::key::{DiscoPrivate, DiscoPublic, NONCE_LEN};

use super::data::across;
use crate::observe::counters::Counter;
use crate::route::Router;
use crate::route::session::{SessionRoute, UserspaceState};
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
}

impl UdpRelay {
    /// Makes a relay with its own key. Clients tell relays apart by the key, so it must last as long as the
    /// sessions.
    pub fn new(key: DiscoPrivate, secret: [u8; 32], now_ns: u64) -> Self {
        let public = key.public();
        Self { key, public, secrets: ArcSwap::from_pointee(Secrets::new(now_ns, secret)) }
    }

    /// The disco key for which clients seal their handshakes.
    pub fn public(&self) -> DiscoPublic {
        self.public
    }

    /// The boxes for a pair of clients, ascending by key; `None` if the relay cannot seal for one of them.
    pub fn side(&self, pair: [DiscoPublic; 2]) -> Option<UserspaceState> {
        let [a, b] = if pair[0] <= pair[1] { pair } else { [pair[1], pair[0]] };
        Some(UserspaceState::new([self.key.shared(&a)?, self.key.shared(&b)?]))
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
        let envelope = Envelope::parse(packet).map_err(|_| Counter::UdpNotDisco)?;
        let leg = session.clients.iter().position(|client| client == envelope.sender);
        let leg = leg.ok_or(Counter::UdpUnknownSender)?;
        let shared = &session.side.boxes[leg];
        let plain = shared.open(envelope.nonce, envelope.sealed).ok_or(Counter::UdpBadBox)?;
        let (kind, bind) = Bind::parse(&plain).map_err(|_| Counter::UdpBadMessage)?;
        let other = session.clients[1 - leg];
        if bind.vni != vni || bind.remote_key != other {
            return Err(Counter::UdpMismatch);
        }
        match kind {
            BindKind::Bind => {
                router.bind(vni.get(), leg, bind.generation, now_ns).map_err(refused)?;
                let challenge =
                    self.secrets.load().challenge(vni, bind.generation, &bind.remote_key, path.remote);
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
                let secrets = self.secrets.load();
                if !secrets.verify(vni, bind.generation, &bind.remote_key, path.remote, &bind.challenge) {
                    return Err(Counter::UdpBadChallenge);
                }
                router.answer(vni.get(), leg, bind.generation, path, now_ns).map_err(refused)?;
                Ok(Action::Bound { vni: vni.get(), leg, path })
            }
            BindKind::Challenge => Err(Counter::UdpBadMessage),
        }
    }
}

/// Forwards a datagram of a bound session to the other leg; the payload is not read.
fn data(session: &SessionRoute, path: LegPath, now_ns: u64) -> Result<Action, Counter> {
    let (leg, to) = across(session, path)?;
    session.side.counters[leg].seen(now_ns);
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
