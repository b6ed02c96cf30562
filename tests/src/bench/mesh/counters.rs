//! What a relay counts, by its own account: packets dropped, and clients of the other relays.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::region::Relay;

/// derper's counter of dropped packets, by reason and kind.
const DERPER_DROPS: &str = "derp_packets_dropped";
/// derper's number of clients of other relays.
const DERPER_REMOTE: &str = "derp_clients_remote";

/// Counters of packets, by name.
pub(super) type Counts = BTreeMap<String, u64>;

/// The packets that a relay has dropped so far, by reason, and those that it has forwarded.
pub(super) fn packets(relay: &Relay) -> Result<Counts> {
    let Some(admin) = relay.admin() else {
        let page = relay.varz()?;
        let wanted = |name: &str| name.contains(DERPER_DROPS) || name.contains("packets_forwarded_out");
        return Ok(samples(&page).filter(|(name, _)| wanted(name)).collect());
    };
    let status = admin.status()?;
    let counters = status["counters"].as_object().context("no counters")?;
    let wanted = |name: &str| name.starts_with("drop_") || name == "packets_forwarded_out";
    let counters = counters.iter().filter(|(name, _)| wanted(name));
    Ok(counters.map(|(name, value)| (name.clone(), value.as_u64().unwrap_or_default())).collect())
}

/// What was counted between two readings.
pub(super) fn since(before: &Counts, after: &Counts) -> Counts {
    let grown = |(name, value): (&String, &u64)| {
        let grown = value - before.get(name).copied().unwrap_or_default().min(*value);
        (grown > 0).then(|| (name.clone(), grown))
    };
    after.iter().filter_map(grown).collect()
}

/// In one line.
pub(super) fn text(counts: &Counts) -> String {
    let all: Vec<_> = counts.iter().map(|(name, value)| format!("`{name}` {value}")).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

/// How many clients of relay `other` a relay knows. derper counts those of all other relays together.
pub(super) fn known(relay: &Relay, other: &str) -> Result<u64> {
    let Some(admin) = relay.admin() else {
        let page = relay.varz()?;
        return samples(&page).find(|(name, _)| name == DERPER_REMOTE).map(|(_, n)| n).context("no number");
    };
    let mesh = admin.get("/v1/mesh")?;
    let places = mesh["places"].as_array().context("no places")?;
    let place = places.iter().find(|place| place["host"].as_str().is_some_and(|host| host.contains(other)));
    place.and_then(|place| place["link"]["clients"].as_u64()).with_context(|| format!("no link: {mesh}"))
}

/// Whether relayd knows a key as another relay's client.
pub(super) fn is_elsewhere(relay: &Relay, key: &str) -> Result<bool> {
    let admin = relay.admin().context("only relayd says where a key is")?;
    let answer = admin.get(&format!("/v1/why?key={}", key.replace(':', "%3A")))?;
    let found = answer["found"].as_array().context("no places")?;
    Ok(found.iter().any(|place| place["rung"] == "mesh"))
}

/// The whole numbers of a metrics page, with their labels.
fn samples(page: &str) -> impl Iterator<Item = (String, u64)> + '_ {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_compared() {
        let page = "# TYPE a counter\na{reason=\"x\"} 3\nb 1.5\nc 4\n";
        let after: Counts = samples(page).collect();
        assert_eq!(after.len(), 2);
        let before = Counts::from([("c".to_owned(), 4)]);
        assert_eq!(text(&since(&before, &after)), "`a{reason=\"x\"}` 3");
        assert_eq!(text(&since(&after, &after)), "nothing");
    }
}
