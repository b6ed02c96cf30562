//! The kernel's entry for a session, derived from the session alone.

use std::net::{IpAddr, SocketAddr};

use relay_common::fastpath::{LegEntry, SessionEntry, Tag};

use super::{Limits, Session};
use crate::route::next_hop::HopNumber;
use crate::route::vocabulary::{Change, LegPath};

/// An installed entry is rewritten when its expiry has moved by this part of the lifetime.
const REFRESH_FRACTION: u64 = 10;

/// Installs, replaces or removes the kernel's entry after a bind or a change of a next hop.
pub(super) fn reconcile(session: &mut Session, limits: &Limits, out: &mut Vec<Change>) {
    let expires_ns = session.expires_ns(limits);
    match wanted(session, expires_ns) {
        Some(entry) => {
            out.push(Change::Install { vni: session.vni(), entry, fresh: !session.slot_used });
            session.slot_used = true;
            session.installed_until_ns = Some(expires_ns);
        }
        None if session.installed_until_ns.take().is_some() => {
            out.push(Change::Uninstall { vni: session.vni() });
        }
        None => {}
    }
}

/// Moves the expiry of an installed entry once the change is worth a system call.
pub(super) fn refresh(session: &mut Session, limits: &Limits, out: &mut Vec<Change>) {
    let Some(until_ns) = session.installed_until_ns else { return };
    let moved = session.expires_ns(limits).saturating_sub(until_ns);
    if moved >= limits.steady_lifetime_ns / REFRESH_FRACTION {
        reconcile(session, limits, out);
    }
}

/// The entry that was last given to the kernel; `None`: userspace forwards the session.
pub(super) fn installed(session: &Session) -> Option<SessionEntry> {
    wanted(session, session.installed_until_ns?)
}

/// Whether the program can forward packets between these addresses: it knows IPv4 only.
pub(super) fn is_eligible(path: &LegPath) -> bool {
    path.remote.is_ipv4() && path.local.is_ipv4()
}

/// The entry for the kernel. `None` while a leg is unbound, lacks its next hop, or does not use IPv4.
fn wanted(session: &Session, expires_ns: u64) -> Option<SessionEntry> {
    let route = &session.route;
    let tag = Tag { vni: route.vni, generation: route.generation() };
    let leg = |leg: usize| leg_entry(route.legs[leg]?, session.legs[leg].hop?);
    Some(SessionEntry {
        head: tag,
        expires_ns,
        stats_slot: session.stats_slot,
        reserved: 0,
        legs: [leg(0)?, leg(1)?],
        tail: tag,
    })
}

fn leg_entry(path: LegPath, hop: HopNumber) -> Option<LegEntry> {
    is_eligible(&path).then(|| LegEntry {
        remote_ip: octets(path.remote),
        local_ip: octets(path.local),
        remote_port: path.remote.port().to_be_bytes(),
        local_port: path.local.port().to_be_bytes(),
        next_hop: hop.0,
    })
}

fn octets(addr: SocketAddr) -> [u8; 16] {
    match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
