//! `NEXTHOPS`, as its one writer sees it: elements in mapped memory, each with a version that tells the
//! program whether its copy is whole.
//!
//! The program reads the version, the rest, and the version again. The writer makes the version odd, writes
//! the rest, and makes it even: a copy between two equal even versions is of one write.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use relay_common::fastpath::NextHopEntry;

use super::mapped::MappedArray;
use crate::route::session_map::MapError;

/// Words of an element.
const WORDS: usize = size_of::<NextHopEntry>() / size_of::<u64>();

/// Version first, then the rest of the element.
const _: () = assert!(std::mem::offset_of!(NextHopEntry, version) == 0);

/// What the program needs to send a packet on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHopValue {
    /// Index of the outgoing interface; not 0.
    pub ifindex: u32,
    /// Largest IP packet, in bytes, that may leave this way.
    pub mtu: u32,
    /// Link-layer address of that interface.
    pub egress_mac: [u8; 6],
    /// Link-layer address of the neighbour.
    pub next_hop_mac: [u8; 6],
}

/// The kernel's next hops, by number. There is one per fast path, and its owner is the map's only writer.
#[derive(Debug)]
pub struct NextHopMap(MappedArray<WORDS>);

impl NextHopMap {
    pub(super) fn new(array: MappedArray<WORDS>) -> Self {
        Self(array)
    }

    /// How many numbers there are: every number is below.
    pub fn limit(&self) -> u32 {
        self.0.len()
    }

    /// Writes the next hop with that number; `None`: there is no way now, and userspace forwards. This is no
    /// system call, and the program uses it from its next packet on.
    ///
    /// # Errors
    /// There is no such number.
    pub fn write(&mut self, number: u32, hop: Option<NextHopValue>) -> Result<(), MapError> {
        let limit = self.limit();
        let element = self.0.element(number).ok_or(MapError::Slot { slot: number, limit })?;
        write_whole(element, bytemuck::must_cast(entry(hop)));
        Ok(())
    }

    /// The element with that number as its writer left it; `None` if there is no such number.
    pub fn read(&self, number: u32) -> Option<NextHopEntry> {
        self.0.read(number).map(bytemuck::must_cast)
    }
}

/// Writes all words but the first, which is the version.
fn write_whole([version, rest @ ..]: &[AtomicU64; WORDS], [_, words @ ..]: [u64; WORDS]) {
    // Odd already if an earlier writer died here; then this goes on from that.
    let odd = version.load(Ordering::Relaxed) | 1;
    version.store(odd, Ordering::Relaxed);
    // Whoever sees a new word sees the odd version, too.
    fence(Ordering::Release);
    for (place, word) in rest.iter().zip(words) {
        place.store(word, Ordering::Relaxed);
    }
    // Whoever sees the even version sees all new words, too.
    version.store(odd.wrapping_add(1), Ordering::Release);
}

fn entry(hop: Option<NextHopValue>) -> NextHopEntry {
    let none = NextHopValue { ifindex: 0, mtu: 0, egress_mac: [0; 6], next_hop_mac: [0; 6] };
    let NextHopValue { ifindex, mtu, egress_mac, next_hop_mac } = hop.unwrap_or(none);
    NextHopEntry {
        version: 0,
        ifindex,
        mtu,
        egress_mac,
        reserved: [0; 2],
        next_hop_mac,
        reserved_too: [0; 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(byte: u8) -> NextHopValue {
        let number = u32::from_ne_bytes([byte; 4]);
        NextHopValue { ifindex: number, mtu: number, egress_mac: [byte; 6], next_hop_mac: [byte; 6] }
    }

    #[test]
    fn every_write_makes_a_whole_element_of_a_new_even_version() {
        let mut map = NextHopMap::new(MappedArray::in_memory(3));
        assert_eq!(map.read(2).expect("it is there").version, 0, "never written");
        map.write(2, Some(hop(7))).expect("it is there");
        let seen = map.read(2).expect("it is there");
        assert_eq!(seen, NextHopEntry { version: 2, ..entry(Some(hop(7))) });
        map.write(2, None).expect("it is there");
        let seen = map.read(2).expect("it is there");
        assert_eq!((seen.version, seen.ifindex), (4, 0));
        assert_eq!(map.read(1).expect("it is there").version, 0, "others are left alone");
        assert_eq!(map.write(3, None), Err(MapError::Slot { slot: 3, limit: 3 }));
        assert_eq!(map.read(3), None);
    }

    #[test]
    fn an_element_left_half_written_is_whole_after_the_next_write() {
        let mut map = NextHopMap::new(MappedArray::in_memory(1));
        map.0.element(0).expect("it is there")[0].store(5, Ordering::Relaxed);
        map.write(0, Some(hop(1))).expect("it is there");
        assert_eq!(map.read(0).expect("it is there").version, 6);
    }

    #[test]
    fn a_copy_between_two_equal_even_versions_is_of_one_write() {
        const WRITES: u64 = 200_000;
        let element = [const { AtomicU64::new(0) }; WORDS];
        let (mut copies, mut whole) = (0_u64, 0_u64);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 0..WRITES {
                    write_whole(&element, [number; WORDS]);
                }
            });
            while !writer.is_finished() {
                // As the program reads: in the order of the words, then the version again.
                let [before, rest @ ..] = element.each_ref().map(|word| word.load(Ordering::Acquire));
                fence(Ordering::Acquire);
                let after = element[0].load(Ordering::Relaxed);
                copies += 1;
                if before == after && before.is_multiple_of(2) && before != 0 {
                    whole += 1;
                    assert!(rest.iter().all(|word| *word == rest[0]), "{rest:?} of version {before}");
                    assert_eq!(rest[0], before / 2 - 1, "the write of that version");
                }
            }
        });
        assert_eq!(element[0].load(Ordering::Relaxed), 2 * WRITES);
        println!("{whole} of {copies} copies were whole");
    }
}
