//! Ends sessions before their time.

use super::Router;
use super::session::SessionRoute;
use super::vocabulary::Event;

impl Router {
    /// Ends the session with this VNI, if there is one.
    pub fn end_session(&self, vni: u32) {
        // The time does not matter to an end, and the table refuses it only if the session has ended already.
        let _ = self.apply(&mut self.lock(), Event::End { vni }, 0);
    }

    /// Ends every session that is `wanted`; returns how many ended. Packets of the others go on meanwhile.
    pub fn end_sessions(&self, wanted: impl Fn(&SessionRoute) -> bool) -> usize {
        let (mut ended, mut last) = (0, Some(0));
        while let Some(after) = last {
            last = self.slice(after, &mut |inner, vni| {
                if inner.table.session(vni).is_some_and(|session| wanted(&session.route)) {
                    ended += usize::from(self.apply(inner, Event::End { vni }, 0).is_ok());
                }
            });
        }
        ended
    }
}
