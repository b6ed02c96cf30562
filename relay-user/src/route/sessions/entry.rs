//! The kernel's entry for a session, derived from the session alone.

use std::net::{IpAddr, SocketAddr};

use relay_common::fastpath::{LegEntry, SessionEntry};

use super::{Limits, Session};
use crate::route::next_hop::NextHop;
use crate::route::vocabulary::{Change, LegPath};

/// An installed entry is rewritten when its expiry has moved by this part of the lifetime.
const REFRESH_FRACTION: u64 = 10;

/// Installs, replaces or removes the kernel's entry after a bind or a change of a next hop.
pub(super) fn reconcile(session: &mut Session, limits: &Limits, out: &mut Vec<Change>) {
    let wanted = wanted(session, limits);
    if wanted == session.installed {
        return;
    }
    match wanted {
        Some(entry) => {
            out.push(Change::Install { vni: session.vni, entry, fresh: !session.slot_used });
            session.slot_used = true;
        }
        None => out.push(Change::Uninstall { vni: session.vni }),
    }
    session.installed = wanted;
}

/// Moves the expiry of an installed entry once the change is worth a system call.
pub(super) fn refresh(session: &mut Session, limits: &Limits, out: &mut Vec<Change>) {
    let Some(installed) = session.installed else { return };
    let moved = session.expires_ns(limits).saturating_sub(installed.expires_ns);
    if moved >= limits.steady_lifetime_ns / REFRESH_FRACTION {
        reconcile(session, limits, out);
    }
}

/// The entry for the kernel. `None` while a leg is unbound, lacks its next hop, or does not use IPv4.
fn wanted(session: &Session, limits: &Limits) -> Option<SessionEntry> {
    let [a, b] = &session.legs;
    Some(SessionEntry {
        generation: session.generation,
        expires_ns: session.expires_ns(limits),
        stats_slot: session.stats_slot,
        reserved: 0,
        legs: [leg_entry(a.path?, a.hop?)?, leg_entry(b.path?, b.hop?)?],
    })
}

fn leg_entry(path: LegPath, hop: NextHop) -> Option<LegEntry> {
    // The program forwards IPv4 only; an IPv6 leg keeps its session in userspace.
    if !path.remote.is_ipv4() || !path.local.is_ipv4() {
        return None;
    }
    Some(LegEntry {
        remote_ip: octets(path.remote),
        local_ip: octets(path.local),
        remote_port: path.remote.port().to_be_bytes(),
        local_port: path.local.port().to_be_bytes(),
        mtu: hop.mtu,
        egress: hop.ifindex,
        next_hop_mac: hop.next_hop_mac,
        egress_mac: hop.egress_mac,
    })
}

fn octets(addr: SocketAddr) -> [u8; 16] {
    match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
