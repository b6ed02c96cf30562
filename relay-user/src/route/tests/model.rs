//! The table as it should be, in the simplest form: lists that are searched from end to end.

use super::*;

/// The expected content of the table, in the simplest form: lists that are searched from end to end.
#[derive(Default)]
pub(super) struct Model {
    pub(super) conns: Vec<(u64, u8)>,
    pub(super) sessions: Vec<ModelSession>,
}

pub(super) struct ModelSession {
    pub(super) vni: u32,
    pub(super) pair: [DiscoPublic; 2],
    pub(super) asked_ns: u64,
    pub(super) legs: [ModelLeg; 2],
}

#[derive(Clone, Default)]
pub(super) struct ModelLeg {
    pub(super) challenges: u64,
    pub(super) answered: u64,
    pub(super) binds: u32,
    pub(super) path: Option<LegPath>,
    pub(super) hop: Option<HopNumber>,
    pub(super) seen_ns: u64,
}

impl ModelSession {
    pub(super) fn is_over(&self, now_ns: u64) -> bool {
        let bound = self.legs.iter().all(|leg| leg.path.is_some());
        match bound {
            true => {
                let silent = self.legs.iter().any(|leg| leg.seen_ns + 300 * SECOND < now_ns);
                silent && self.asked_ns + 30 * SECOND < now_ns
            }
            false => self.asked_ns + 30 * SECOND < now_ns,
        }
    }
}
