//! Userspace's counters, in groups by their names, as a reader looks for them.

use std::collections::BTreeMap;

/// A heading, and the counters under it.
pub(super) type Group<'a> = (&'static str, Vec<(&'a str, u64)>);

/// Which counters appear under which heading. The first group with a prefix of the counter's name gets the
/// counter, so a new counter joins a group or comes last.
const GROUPS: &[(&str, &[&str])] = &[
    ("UDP DROPS", &["udp_drop", "udp_send_failed"]),
    ("UDP RELAY", &["udp_"]),
    ("STUN", &["stun_"]),
    ("LOGINS", &["login"]),
    ("DERP DROPS", &["drop_"]),
    (
        "DERP",
        &[
            "packets_",
            "bytes_",
            "pings",
            "keepalives",
            "unknown_frames",
            "write_timeouts",
            "protocol_",
            "queue_memory_",
        ],
    ),
    ("CONNECTIONS", &["accept", "http_", "tls_", "refused_", "task_"]),
];

/// The headings, in the order in which a packet meets the groups.
const ORDER: &[&str] =
    &["CONNECTIONS", "LOGINS", "DERP", "DERP DROPS", "STUN", "UDP RELAY", "UDP DROPS", OTHER];

const OTHER: &str = "OTHER";

/// The groups that have a counter to show: one above zero or, with `all`, any.
pub(super) fn groups(counters: &BTreeMap<String, u64>, all: bool) -> Vec<Group<'_>> {
    let shown = || counters.iter().filter(|(_, n)| all || **n > 0).map(|(label, n)| (label.as_str(), *n));
    let group = |title: &&'static str| -> Group<'_> {
        (*title, shown().filter(|(label, _)| group_of(label) == *title).collect())
    };
    ORDER.iter().map(group).filter(|(_, counters)| !counters.is_empty()).collect()
}

fn group_of(label: &str) -> &'static str {
    let found = GROUPS.iter().find(|(_, names)| names.iter().any(|name| label.starts_with(name)));
    found.map_or(OTHER, |(title, _)| title)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::counters::Counter;

    #[test]
    fn every_counter_is_in_one_group_and_none_of_todays_in_the_last() {
        let counters: BTreeMap<_, _> = Counter::ALL.iter().map(|one| (one.label().to_owned(), 0)).collect();
        let groups = groups(&counters, true);
        assert_eq!(groups.iter().map(|(_, counters)| counters.len()).sum::<usize>(), counters.len());
        assert!(GROUPS.iter().all(|(title, _)| ORDER.contains(title)));
        let others: Vec<_> = counters.keys().filter(|label| group_of(label) == OTHER).collect();
        assert!(others.is_empty(), "{others:?}");
        for name in GROUPS.iter().flat_map(|(_, names)| *names) {
            assert!(counters.keys().any(|label| label.starts_with(name)), "no counter begins with {name}");
        }
        assert_eq!(group_of("udp_drop_short"), "UDP DROPS");
        assert_eq!(group_of("udp_forwarded"), "UDP RELAY");
        assert_eq!(group_of("something_new"), OTHER);
    }

    #[test]
    fn zeros_are_left_out_with_their_headings() {
        let counters = [("logins".to_owned(), 3), ("stun_answered".to_owned(), 0)].into();
        assert_eq!(groups(&counters, false), [("LOGINS", vec![("logins", 3)])]);
        assert_eq!(groups(&counters, true).len(), 2);
    }
}
