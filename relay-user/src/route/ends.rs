//! Ends sessions before their time.

use super::Router;
use super::sessions::Session;
use super::vocabulary::Event;

impl Router {
    /// Ends the session with this VNI, if there is one.
    pub fn end_session(&self, vni: u32) {
        // The time does not matter to an end, and the table refuses it only if the session has ended already.
        let _ = self.apply(&mut self.lock(), Event::End { vni }, 0);
    }

    /// Ends every session that is `wanted`; returns how many ended. Packets of the others go on meanwhile.
    pub fn end_sessions(&self, wanted: impl Fn(&Session) -> bool) -> usize {
        let mut ended = 0;
        self.walk(|inner, vni| {
            if inner.table.session(vni).is_some_and(&wanted) {
                ended += usize::from(self.apply(inner, Event::End { vni }, 0).is_ok());
            }
        });
        ended
    }
}
