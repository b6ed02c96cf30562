//! The words of the table: connections, legs, events, and the changes that events cause.

use std::sync::Arc;

use relay_common::fastpath::SessionEntry;
use relay_common::key::{DiscoPublic, NodePublic};

pub use super::leg::{LegIndex, LegPath};
use super::next_hop::HopNumber;
use super::session::SessionRoute;

/// A connection's name; it is never used twice in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// A link's name: a connection to another relay of the mesh. It is never used twice in the life of the
/// process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// A leg that was bound, whose next hop must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundLeg {
    /// The session.
    pub vni: u32,
    /// The leg.
    pub leg: LegIndex,
    /// The path that the leg is bound to.
    pub path: LegPath,
}

/// An event for the table.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are the words of the sentence above them")]
pub enum Event {
    /// A connection proved a node key.
    Login { conn: ConnId, key: NodePublic },
    /// A connection that shares its key sent a frame.
    Frame { conn: ConnId },
    /// A connection ended.
    Leave { conn: ConnId },
    /// A link to another relay is up, and its relay is about to tell which keys it has.
    LinkUp { link: LinkId },
    /// The link's relay has a connection of the key. `listed`: it lists whom it has since nobody knows when;
    /// otherwise the key has just connected there.
    Claim { link: LinkId, key: NodePublic, listed: bool },
    /// The link's relay no longer has a connection of the key.
    Disclaim { link: LinkId, key: NodePublic },
    /// A link ended: some of its claims end with it, and when it has none, the link itself.
    LinkDown { link: LinkId },
    /// Two clients want a session.
    Allocate { pair: [DiscoPublic; 2] },
    /// A client opened a handshake; it has been authenticated.
    Bind { vni: u32, leg: LegIndex },
    /// A client returned, from this path, the challenge with this number; it has been authenticated.
    Answer { vni: u32, leg: LegIndex, number: u64, path: LegPath },
    /// The kernel's routing reports the next hop of a leg's path; `None`: it has no next hop.
    NextHop { vni: u32, leg: LegIndex, path: LegPath, hop: Option<HopNumber> },
    /// When each leg was last heard, on either packet path; 0: never. This refreshes the session or ends it.
    Tick { vni: u32, last_seen_ns: [u64; 2] },
    /// The session must end now, whoever is bound.
    End { vni: u32 },
}

/// A change for the mirrors; changes are written in order.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the words of the sentence above them")]
pub enum Change {
    /// Packets for the key now go to this connection.
    Route { key: NodePublic, conn: ConnId },
    /// The key has left: no connection holds it.
    Unroute { key: NodePublic },
    /// Packets for the key go to this link, unless a connection here has the key.
    Remote { key: NodePublic, link: LinkId },
    /// No link reaches the key.
    NoRemote { key: NodePublic },
    /// Whether the connection is one of several with the same key.
    Shared { conn: ConnId, shared: bool },
    /// A session exists, or its legs have moved.
    Session { route: Arc<SessionRoute> },
    /// A session is gone.
    NoSession { vni: u32 },
    /// The kernel forwards this session; `fresh`: another session used its stats slot before.
    Install { vni: u32, entry: SessionEntry, fresh: bool },
    /// The kernel must not forward this session.
    Uninstall { vni: u32 },
}

/// Why an event changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A connection logged in twice.
    #[error("the connection is logged in already")]
    ConnInUse,
    /// The connection is not logged in, or no longer.
    #[error("no such connection")]
    UnknownConn,
    /// A link is up already.
    #[error("the link is up already")]
    LinkInUse,
    /// The link is not up, or no longer.
    #[error("no such link")]
    UnknownLink,
    /// The link's relay never said that it has the key.
    #[error("the link does not claim the key")]
    NotClaimed,
    /// The session does not exist, or no longer.
    #[error("no such session")]
    UnknownSession,
    /// `--relay-max-sessions` sessions exist.
    #[error("all sessions are taken")]
    Full,
    /// A disco key is zero, is the server's own, or is named twice.
    #[error("not a pair of client keys")]
    BadPair,
    /// The challenge was made before the one that bound the leg, or never.
    #[error("not a handshake in progress")]
    WrongHandshake,
    /// Both legs would have one address.
    #[error("the other client is bound to this address")]
    SameAddress,
    /// The next hop is for a path that the leg no longer has.
    #[error("the leg has moved on")]
    StalePath,
}
