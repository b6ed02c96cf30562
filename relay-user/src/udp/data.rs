//! The way of data through a session.

use std::sync::Arc;

use relay_common::geneve::{GENEVE_LEN, Vni};

use crate::observe::counters::Counter;
use crate::route::Router;
use crate::route::session::SessionRoute;
use crate::route::vocabulary::{LegIndex, LegPath};

/// Where data with this header goes that came by this path.
#[derive(Clone, Debug)]
pub(super) struct DataRoute {
    head: [u8; GENEVE_LEN],
    path: LegPath,
    /// The session.
    pub(super) session: Arc<SessionRoute>,
    /// The leg that it came from.
    pub(super) leg: LegIndex,
    /// The leg that it goes to.
    pub(super) to: LegPath,
}

impl DataRoute {
    /// Looks the session up, and notes that the leg has been heard.
    ///
    /// # Errors
    /// The reason to drop the data.
    pub(super) fn find(
        router: &Router,
        head: [u8; GENEVE_LEN],
        vni: Vni,
        path: LegPath,
        now_ns: u64,
    ) -> Result<Self, Counter> {
        let session = router.session(vni.get()).ok_or(Counter::UdpUnknownVni)?;
        let (leg, to) = across(&session, path)?;
        session.side.counters[leg].seen(now_ns);
        Ok(Self { head, path, session, leg, to })
    }

    /// Whether other data goes the same way.
    pub(super) fn is_for(&self, head: &[u8; GENEVE_LEN], path: &LegPath) -> bool {
        self.head == *head && self.path == *path
    }
}

/// The leg that data came from, and the path of the other one. Only what comes by a bound leg's own path is
/// forwarded.
///
/// # Errors
/// The reason to drop the data.
pub(super) fn across(session: &SessionRoute, path: LegPath) -> Result<(LegIndex, LegPath), Counter> {
    let [Some(a), Some(b)] = session.legs else { return Err(Counter::UdpNotBound) };
    match path {
        path if path == a => Ok((0, b)),
        path if path == b => Ok((1, a)),
        _ => Err(Counter::UdpNotALeg),
    }
}
