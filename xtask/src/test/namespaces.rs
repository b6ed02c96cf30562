//! Removes what a lab test left behind: Ctrl-C or a crash ends a test program before it cleans up.
//!
//! The name of a lab's namespace contains the process id of the program that made it. If that process is
//! gone, a namespace that appeared during the run is removed, with the daemons that still run in it. Its veth
//! pairs and XDP programs disappear with it.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::process;

/// Prefix of the names of lab namespaces; the maker's process id follows.
const PREFIX: &str = "relayd-";

/// Removes orphaned namespaces when dropped, except those that existed when it was made.
#[derive(Debug)]
pub(super) struct Sweep {
    before: BTreeSet<String>,
}

impl Sweep {
    /// Remembers the existing namespaces.
    pub(super) fn new() -> Self {
        Self { before: names().collect() }
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        for name in names().filter(|name| !self.before.contains(name)) {
            if maker(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                println!("removing the namespace {name}, whose test program is gone");
                remove(&name);
            }
        }
    }
}

fn names() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// The process id in the name of a lab namespace.
fn maker(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

fn remove(name: &str) {
    let mut list = Command::new("ip");
    let inside = process::as_root(list.args(["netns", "pids", name]));
    let inside = inside.and_then(|mut list| process::stdout_of(&mut list)).unwrap_or_default();
    process::end(inside.split_whitespace().filter_map(|pid| pid.parse().ok()));
    if let Some(mut delete) = process::as_root(Command::new("ip").args(["netns", "delete", name])) {
        let _gone = delete.status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_labs_name_holds_its_makers_process_id() {
        assert_eq!(maker("relayd-123-0-relay"), Some(123));
        for other in ["vpn0", "relayd-demo", "123", "rf77-1c"] {
            assert_eq!(maker(other), None, "{other}");
        }
    }
}
