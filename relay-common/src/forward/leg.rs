//! A leg as words, which a processor compares at once. Byte by byte, which is how the compiler for BPF treats
//! arrays of bytes, the comparison would cost more than the lookup.

use super::Endpoint;
use crate::fastpath::LegEntry;

/// Bytes 8 to 11 of an IPv4 address in IPv6 form, `::ffff:a.b.c.d`; those in front are zero.
const MAPPED: [u8; 4] = [0, 0, 0xff, 0xff];

/// A leg in the words of the map's value.
#[derive(Clone, Copy)]
pub(super) struct LegWords {
    remote_ip: [u64; 2],
    local_ip: [u64; 2],
    /// Remote port and local port, then the number of the next hop.
    rest: [u32; 2],
}

/// Two IPv4 endpoints in the same words.
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    remote_ip: u64,
    local_ip: u64,
    ports: u32,
}

impl Addresses {
    #[inline(always)]
    pub(super) fn of(remote: Endpoint, local: Endpoint) -> Self {
        let ([a, b], [c, d]) = (remote.port, local.port);
        Self {
            remote_ip: mapped(remote.ip),
            local_ip: mapped(local.ip),
            ports: u32::from_ne_bytes([a, b, c, d]),
        }
    }
}

impl LegWords {
    #[inline(always)]
    pub(super) fn of(leg: LegEntry) -> Self {
        let [a, b, c, d, rest]: [u64; 5] = bytemuck::must_cast(leg);
        Self { remote_ip: [a, b], local_ip: [c, d], rest: bytemuck::must_cast(rest) }
    }

    /// Whether the leg is between these two.
    #[inline(always)]
    pub(super) fn is_of(&self, addresses: Addresses) -> bool {
        let Addresses { remote_ip, local_ip, ports } = addresses;
        self.rest[0] == ports && self.remote_ip == [0, remote_ip] && self.local_ip == [0, local_ip]
    }

    /// The relay's end and the client's; `None` if one of them is not IPv4.
    #[inline(always)]
    pub(super) fn endpoints(&self) -> Option<(Endpoint, Endpoint)> {
        let [a, b, c, d] = self.rest[0].to_ne_bytes();
        let local = Endpoint { ip: unmapped(self.local_ip)?, port: [c, d] };
        Some((local, Endpoint { ip: unmapped(self.remote_ip)?, port: [a, b] }))
    }

    /// The number of the way to the client.
    #[inline(always)]
    pub(super) fn next_hop(&self) -> u32 {
        self.rest[1]
    }
}

#[inline(always)]
fn mapped(ip: [u8; 4]) -> u64 {
    bytemuck::must_cast([MAPPED, ip])
}

#[inline(always)]
fn unmapped([first, second]: [u64; 2]) -> Option<[u8; 4]> {
    let [prefix, ip]: [u32; 2] = bytemuck::must_cast(second);
    let is_mapped = first == 0 && prefix == u32::from_ne_bytes(MAPPED);
    is_mapped.then(|| ip.to_ne_bytes())
}

const _: () = assert!(core::mem::offset_of!(LegEntry, local_ip) == 16);
const _: () = assert!(core::mem::offset_of!(LegEntry, remote_port) == 32);
const _: () = assert!(core::mem::offset_of!(LegEntry, local_port) == 34);
const _: () = assert!(core::mem::offset_of!(LegEntry, next_hop) == 36);
