//! The floors of the daemon: each folder uses only folders on a lower floor.

use std::collections::BTreeSet;

use super::imports::Imports;

/// The floors, from the top. Folders on the same floor do not import from each other.
const FLOORS: &[&[&str]] = &[
    &["main"],
    &["app"],
    &["admin", "upkeep"],
    &["listen", "mesh"],
    &["conn", "udp"],
    &["relay"],
    &["fastpath", "transport"],
    &["access", "route"],
    &["mailbox"],
    &["workers"],
    &["cli", "keyfile", "log", "observe"],
    &["clock", "columns", "files", "host", "lockfile", "newfile", "threads"],
];

/// The forbidden imports between the daemon's folders, in sentences.
pub(super) fn complaints(imports: &Imports) -> Vec<String> {
    let between = between(imports);
    let mut complaints = BTreeSet::new();
    for (who, from) in &between {
        match (floor(who), floor(from)) {
            (Some(above), Some(below)) if above < below => {}
            (Some(_), Some(_)) => {
                _ = complaints.insert(format!("{who} imports from {from}, which is not below it"));
            }
            (None, _) => _ = complaints.insert(format!("{who} has no floor; give it one in floors.rs")),
            (_, None) => _ = complaints.insert(format!("{from} has no floor; give it one in floors.rs")),
        }
    }
    complaints.into_iter().collect()
}

/// The pairs of folders (importer, imported).
pub(super) fn between(imports: &Imports) -> BTreeSet<(&str, &str)> {
    let folders =
        imports.arrows().filter_map(|(who, from)| Some((who.first()?.as_str(), from.first()?.as_str())));
    folders.filter(|(who, from)| who != from).collect()
}

/// The number of a folder's floor, from the top.
fn floor(folder: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&folder))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::imports::Module;
    use super::*;

    fn complaints_of(who: &str, text: &str) -> Vec<String> {
        let files = [who, "route", "mailbox", "cellar"].map(|name| (vec![name.to_owned()], String::new()));
        let mut texts: BTreeMap<Module, String> = files.into();
        texts.insert(vec![who.to_owned()], text.to_owned());
        complaints(&Imports::of(&texts, "relay_user").expect("parsed"))
    }

    #[test]
    fn arrows_go_down_only() {
        assert!(complaints_of("conn", "use crate::route::Router; use crate::mailbox::Mailbox;").is_empty());
        assert_eq!(complaints_of("clock", "use crate::route::Router;").len(), 1, "up");
        assert_eq!(complaints_of("conn", "use crate::cellar;").len(), 1, "no floor");
        assert_eq!(complaints_of("attic", "use crate::route;").len(), 1, "no floor");
    }
}
