//! Compares the BPF map with the table and repairs the map.
//!
//! The table is the truth and the map is its mirror (law 4 of the table). A difference means that a write was
//! lost or that another process writes. Both are faults, so the sum is a metric that must stay zero.

use std::collections::BTreeMap;

use relay_common::fastpath::SessionEntry;

use super::session_map::{MapError, SessionMap};

/// What an audit found, in sessions, and what it repaired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "drift is a fault to count and report"]
pub struct Audit {
    /// Sessions in the table, but not in the map.
    pub missing: usize,
    /// Sessions in the map, but not in the table.
    pub stale: usize,
    /// Sessions in both, with different values.
    pub different: usize,
    /// How many of these the audit repaired.
    pub repaired: usize,
    /// The first error met; the audit goes on after an error.
    pub error: Option<MapError>,
}

impl Audit {
    /// How many sessions the map had wrong.
    pub fn drift(&self) -> usize {
        self.missing + self.stale + self.different
    }
}

/// Makes `map` equal to `wanted`, by VNI, and returns the differences.
///
/// Call this under the table's lock: it would undo a write that came between the comparison and the repair.
pub fn audit(map: &mut dyn SessionMap, wanted: &BTreeMap<u32, SessionEntry>) -> Audit {
    let mut found = Audit::default();
    let held: BTreeMap<u32, SessionEntry> = match map.entries() {
        Ok(entries) => entries.into_iter().collect(),
        Err(error) => return Audit { error: Some(error), ..found },
    };
    // Stale entries first: removing them makes room where the map is full.
    for vni in held.keys().filter(|vni| !wanted.contains_key(vni)) {
        found.stale += 1;
        let done = map.remove(*vni).map(|_| ());
        found.note(done);
    }
    for (vni, entry) in wanted {
        match held.get(vni) {
            Some(other) if other == entry => continue,
            Some(_) => found.different += 1,
            None => found.missing += 1,
        }
        let done = map.install(*vni, entry);
        found.note(done);
    }
    found
}

impl Audit {
    fn note(&mut self, repair: Result<(), MapError>) {
        match repair {
            Ok(()) => self.repaired += 1,
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use proptest::prelude::*;

    use super::*;
    use crate::route::model_sessions::ModelSessions;

    fn entry(generation: u64) -> SessionEntry {
        SessionEntry { generation, ..SessionEntry::zeroed() }
    }

    fn sessions(list: &[(u32, u64)]) -> BTreeMap<u32, SessionEntry> {
        list.iter().map(|(vni, generation)| (*vni, entry(*generation))).collect()
    }

    #[test]
    fn equal_maps_are_left_alone() {
        let wanted = sessions(&[(1, 1), (2, 1)]);
        let mut map = ModelSessions::new(2);
        map.sessions = wanted.clone();
        map.fail_next = Some(MapError::Full);
        assert_eq!(audit(&mut map, &wanted), Audit::default());
        assert!(map.fail_next.is_some(), "nothing was written");
    }

    #[test]
    fn each_kind_of_drift_is_counted_and_repaired() {
        let wanted = sessions(&[(1, 1), (2, 2), (3, 1)]);
        let mut map = ModelSessions::new(3);
        map.sessions = sessions(&[(2, 1), (3, 1), (9, 1)]);
        let found = audit(&mut map, &wanted);
        assert_eq!(found, Audit { missing: 1, stale: 1, different: 1, repaired: 3, error: None });
        assert_eq!(found.drift(), 3);
        assert_eq!(map.sessions, wanted);
    }

    #[test]
    fn a_failed_repair_is_reported_and_the_others_still_happen() {
        let wanted = sessions(&[(1, 1), (2, 1)]);
        let mut map = ModelSessions::new(2);
        map.fail_next = Some(MapError::Full);
        let found = audit(&mut map, &wanted);
        assert_eq!((found.missing, found.repaired), (2, 1));
        assert_eq!(found.error, Some(MapError::Full));
        assert_eq!(audit(&mut map, &wanted), Audit { missing: 1, repaired: 1, ..Audit::default() });
        assert_eq!(audit(&mut map, &wanted), Audit::default());
    }

    #[test]
    fn a_map_that_cannot_be_read_is_reported_and_left_alone() {
        let mut map = ModelSessions::new(2);
        map.unreadable = Some(MapError::Full);
        let found = audit(&mut map, &sessions(&[(1, 1)]));
        assert_eq!(found, Audit { error: Some(MapError::Full), ..Audit::default() });
        assert!(map.sessions.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_the_map_held_it_equals_the_table_afterwards(
            held in proptest::collection::btree_map(0u32..32, 0u64..3, 0..32),
            wanted in proptest::collection::btree_map(0u32..32, 0u64..3, 0..32),
        ) {
            let held: Vec<_> = held.into_iter().collect();
            let wanted: Vec<_> = wanted.into_iter().collect();
            let wanted = sessions(&wanted);
            let mut map = ModelSessions::new(32);
            map.sessions = sessions(&held);
            let found = audit(&mut map, &wanted);
            prop_assert_eq!(found.drift(), found.repaired);
            prop_assert_eq!(&map.sessions, &wanted);
        }
    }
}
