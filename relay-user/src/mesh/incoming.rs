//! What another relay says over our link to it: which clients it has, and that it is alive.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay_common::derp::deframer::{Deframer, PushError};
use relay_common::derp::frame::{FrameType, Header};
use relay_common::derp::limits::{self, FrameError};
use relay_common::derp::login::{ClientLoginError, parse_server_info};
use relay_common::derp::message::{FromServer, MessageError};
use relay_common::derp::{HEADER_LEN, PING_LEN};

use crate::mailbox::Lane;
use crate::observe::counters::Counter;
use crate::relay::Relay;
use crate::route::link::Link;

/// Nanoseconds after its first word during which a relay may be listing whom it has. Nothing marks the end of
/// the list; a client that connects there meanwhile is taken for one of the list.
const LISTING_NS: u64 = 1_000_000_000;

/// Nanoseconds without news that end a list which takes longer than that.
const LISTING_GAP_NS: u64 = 200_000_000;

/// How the other relay broke the protocol. This ends its link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkFault {
    /// A frame that is longer than any.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame whose content does not fit its type.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Its first frame is not a ServerInfo for us.
    #[error(transparent)]
    Login(#[from] ClientLoginError),
}

/// The reading half of a link, from ServerInfo on.
#[derive(Debug)]
pub struct Incoming {
    deframer: Deframer,
    is_logged_in: bool,
    /// CLOCK_MONOTONIC nanoseconds until when the relay may be listing whom it has; `None`: it has told of
    /// nobody yet.
    listing_until_ns: Option<u64>,
}

impl Incoming {
    /// Goes on where the login's deframer stopped.
    pub fn new(deframer: Deframer) -> Self {
        Self { deframer, is_logged_in: false, listing_until_ns: None }
    }

    /// Whether the relay has told of a client: of ourselves at least, if it trusts us with the mesh.
    pub fn is_joined(&self) -> bool {
        self.listing_until_ns.is_some()
    }

    /// Handles a run of plaintext.
    ///
    /// # Errors
    /// The relay broke the protocol; the frames before the fault have been handled.
    pub fn feed(
        &mut self,
        plaintext: &[u8],
        link: &Arc<Link>,
        relay: &Relay,
        now_ns: u64,
    ) -> Result<(), LinkFault> {
        link.times.heard_ns.store(now_ns, Ordering::Relaxed);
        let Self { deframer, is_logged_in, listing_until_ns } = self;
        let on_frame = |header: Header, payload: &[u8]| {
            if !*is_logged_in {
                parse_server_info(header, payload, &relay.key, &link.server)?;
                *is_logged_in = true;
                return Ok(());
            }
            frame(header, payload, link, relay, listing_until_ns, now_ns)
        };
        deframer
            .push_with(&mut crate::transport::fitting::Fitting, plaintext, limits::client, on_frame)
            .map_err(|error| match error {
                PushError::Frame(error) => LinkFault::Frame(error),
                PushError::Sink(fault) => fault,
            })
    }
}

fn frame(
    header: Header,
    payload: &[u8],
    link: &Arc<Link>,
    relay: &Relay,
    listing_until_ns: &mut Option<u64>,
    now_ns: u64,
) -> Result<(), LinkFault> {
    // A refusal only means that the link is over, or that the relay takes back what it never said.
    match FromServer::parse(header, payload)? {
        FromServer::PeerPresent { peer, .. } => {
            if listing_until_ns.is_none() {
                tracing::info!(server = %link.server, remote = %link.remote, "linked to another relay");
            }
            let until_ns = listing_until_ns.get_or_insert(now_ns + LISTING_NS);
            let listed = now_ns < *until_ns;
            if listed {
                *until_ns = (*until_ns).max(now_ns + LISTING_GAP_NS);
            }
            // The other relay has our own link among its connections. Nobody's packets are for a relay.
            if *peer != relay.public {
                let _ = relay.claim(link.id, *peer, listed, now_ns);
            }
        }
        FromServer::PeerGone { peer, .. } => {
            let _ = relay.disclaim(link.id, *peer, now_ns);
        }
        FromServer::Ping(data) => say(link, relay, FrameType::Pong, data),
        FromServer::Pong(data) => {
            let sent_ns = u64::from_be_bytes(data);
            // Pongs to other data than ours mean nothing.
            if let Some(round_trip_ns) = now_ns.checked_sub(sent_ns).filter(|_| sent_ns > 0) {
                link.times.round_trip_ns.store(round_trip_ns.max(1), Ordering::Relaxed);
                link.times.answered_ns.store(now_ns, Ordering::Relaxed);
            }
        }
        // Packets for the server's own key, and what only users need to know.
        _ => {}
    }
    Ok(())
}

/// Asks the relay whether it is alive, with the time in the question.
pub fn probe(link: &Arc<Link>, relay: &Relay, now_ns: u64) {
    say(link, relay, FrameType::Ping, now_ns.to_be_bytes());
    link.mailbox.wake();
}

fn say(link: &Arc<Link>, relay: &Relay, kind: FrameType, data: [u8; PING_LEN]) {
    let mut frame = [0; HEADER_LEN + PING_LEN];
    let (head, body) = frame.split_at_mut(HEADER_LEN);
    head.copy_from_slice(&Header::new(kind, PING_LEN as u32).encode());
    body.copy_from_slice(&data);
    if let Ok(pushed) = link.mailbox.push(Lane::Control, &frame, &[], false) {
        relay.budget.add(pushed.growth);
        relay.counters.add(Counter::DropControl, pushed.dropped.frames as u64);
    }
}
