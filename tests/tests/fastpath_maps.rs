//! The values that the daemon writes to the kernel's maps and reads from them, and the output of `relayd
//! inspect`.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::UdpSocket,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use aya::maps::{Array, HashMap, Map, MapData};
use bytemuck::Zeroable as _;
use relay_common::fastpath::{MAX_NEXT_HOPS, NextHopEntry, SessionEntry, SessionStats, Tag, map};
use relay_tests::{
    fastpath::{MAX_SESSIONS, dumped, lab, options, start, started},
    wire::{CLIENT_IP, RELAY_IP},
};
use relay_user::{
    clock,
    fastpath::{XdpOptions, bpf_sessions::BpfSessions, inspect, next_hop_map::NextHopValue},
    route::{
        audit::Audit,
        session_map::{MapError, SessionMap as _},
    },
};

const DEADLINE: Duration = Duration::from_secs(10);

fn entry(generation: u32, slot: u32) -> SessionEntry {
    let tag = Tag { vni: 7, generation };
    let mut entry = SessionEntry { head: tag, tail: tag, stats_slot: slot, ..SessionEntry::zeroed() };
    entry.expires_ns = clock::monotonic_ns() + 60_000_000_000;
    entry.legs[0].remote_ip = std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
    entry.legs[0].remote_port = 41641_u16.to_be_bytes();
    entry
}

#[test]
fn the_session_map_holds_what_was_installed_and_no_more_than_its_limit() {
    lab("the_session_map_holds_what_was_installed_and_no_more_than_its_limit", |wire, dir| {
        let mut fast_path = started(wire, dir);
        let mut sessions = fast_path.session_map();
        for vni in 1..=MAX_SESSIONS {
            sessions.install(vni, &entry(1, vni - 1)).expect("there is room");
        }
        assert_eq!(sessions.install(99, &entry(1, 0)), Err(MapError::Full));
        let rebound = entry(2, 0);
        sessions.install(1, &rebound).expect("a full map still takes a rebind");
        let (held, next) = sessions.list().part(None, 100).expect("a list");
        assert_eq!((held.len(), next), (MAX_SESSIONS as usize, None));
        assert_eq!(sessions.get(1), Ok(Some(rebound)));
        assert_eq!(sessions.get(77), Ok(None));
        assert_eq!(sessions.remove(1), Ok(true));
        assert_eq!(sessions.remove(1), Ok(false));
        sessions.install(99, &entry(1, 0)).expect("room again");

        assert_eq!(sessions.zero_stats(0), Ok(()));
        assert_eq!(sessions.stats(0), Ok(SessionStats::zeroed()));
        let past = MapError::Slot { slot: MAX_SESSIONS, limit: MAX_SESSIONS };
        assert_eq!(sessions.zero_stats(MAX_SESSIONS), Err(past.clone()));
        assert_eq!(sessions.stats(MAX_SESSIONS), Err(past));
    });
}

#[test]
fn a_walk_in_parts_finds_every_session_that_stays_while_others_come_and_go() {
    lab("a_walk_in_parts_finds_every_session_that_stays_while_others_come_and_go", |wire, dir| {
        const STAYING: u32 = 1_000;
        let options = XdpOptions { max_sessions: 4_096, ..options(dir) };
        let mut fast_path = start(wire, &options).unwrap_or_else(|error| panic!("{error}"));
        let mut sessions = fast_path.session_map();
        for vni in 1..=2 * STAYING {
            sessions.install(vni, &entry(1, vni)).expect("there is room");
        }
        let (mut found, mut after, mut parts) = (BTreeSet::new(), None, 0);
        loop {
            let (vnis, next) = sessions.list().part(after, 100).expect("a part");
            assert!(vnis.len() <= 100, "{} at a time", vnis.len());
            // Those of even numbers stay; of the others, one that was found and some that were not leave.
            for vni in vnis.iter().filter(|vni| *vni % 2 == 1) {
                sessions.remove(*vni).expect("removed");
                let _ = sessions.remove((vni * 7) % STAYING / 2 * 2 + 1).expect("removed, if it was there");
                sessions.install(3_000 + vni, &entry(1, 0)).expect("there is room");
            }
            found.extend(vnis);
            parts += 1;
            match next {
                Some(_) if parts < 500 => after = next,
                Some(_) => panic!("no end after {parts} parts"),
                None => break,
            }
        }
        assert!(parts >= 10, "{parts} parts");
        let missing: Vec<u32> =
            (1..=STAYING).map(|half| 2 * half).filter(|vni| !found.contains(vni)).collect();
        assert_eq!(missing, [0; 0], "of those that stayed");
        assert!(sessions.list().part(Some(u64::MAX), 100).is_err(), "no such place");
    });
}

#[test]
fn a_next_hop_is_in_the_kernels_map_as_soon_as_it_is_written() {
    lab("a_next_hop_is_in_the_kernels_map_as_soon_as_it_is_written", |wire, dir| {
        let mut fast_path = started(wire, dir);
        let mut hops = fast_path.next_hop_map();
        assert_eq!(hops.limit(), MAX_NEXT_HOPS);
        let hop = NextHopValue {
            ifindex: 3,
            mtu: 1400,
            egress_mac: [2, 0, 0, 0, 0, 1],
            next_hop_mac: [2, 0, 0, 0, 0, 2],
        };
        let last = MAX_NEXT_HOPS - 1;
        hops.write(0, Some(hop)).expect("the first");
        hops.write(last, Some(hop)).expect("the last");
        hops.write(last, None).expect("the last");
        assert_eq!(
            hops.write(MAX_NEXT_HOPS, None),
            Err(MapError::Slot { slot: MAX_NEXT_HOPS, limit: MAX_NEXT_HOPS })
        );
        // As the kernel has it, through a system call.
        let pinned = MapData::from_pin(dir.0.join(map::NEXTHOPS)).expect("pinned");
        let array = Array::<_, [u8; 32]>::try_from(Map::Array(pinned)).expect("of that size");
        let read = |number| -> NextHopEntry {
            bytemuck::pod_read_unaligned(&array.get(&number, 0).expect("an element"))
        };
        let first = read(0);
        assert_eq!((first.version, first.ifindex, first.mtu), (2, 3, 1400));
        assert_eq!((first.egress_mac, first.next_hop_mac), (hop.egress_mac, hop.next_hop_mac));
        assert_eq!((read(last).version, read(last).ifindex), (4, 0));
        assert_eq!(read(1), NextHopEntry::zeroed());
        let text = dumped(dir);
        for part in ["NEXTHOPS          2 of 65536", "02:00:00:00:00:02", "no way now"] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
    });
}

#[test]
fn counters_that_a_program_writes_are_read_and_zeroed_without_a_system_call() {
    lab("counters_that_a_program_writes_are_read_and_zeroed_without_a_system_call", |wire, dir| {
        let mut fast_path = started(wire, dir);
        let mut sessions = fast_path.session_map();
        let pinned = MapData::from_pin(dir.0.join(map::LEG_STATS)).expect("pinned");
        let mut array = Array::<_, [u8; 128]>::try_from(Map::Array(pinned)).expect("of that size");
        let mut stats = SessionStats::zeroed();
        stats.legs[1].packets = 77;
        array.set(3, <[u8; 128]>::try_from(bytemuck::bytes_of(&stats)).expect("its size"), 0).expect("set");
        assert_eq!(sessions.stats(3), Ok(stats));
        assert_eq!(sessions.stats(2), Ok(SessionStats::zeroed()));
        sessions.zero_stats(3).expect("there is such a slot");
        assert_eq!(array.get(&3, 0).expect("an element"), [0; 128]);
    });
}

/// Audits the whole map, as the router does a few sessions at a time.
fn audit(map: &mut BpfSessions, wanted: &BTreeMap<u32, SessionEntry>) -> Audit {
    let mut found = Audit::default();
    let (held, _) = map.list().part(None, 100).expect("a list");
    let stale = held.into_iter().filter(|vni| !wanted.contains_key(vni));
    stale.for_each(|vni| found.check(map, vni, None));
    wanted.iter().for_each(|(vni, entry)| found.check(map, *vni, Some(*entry)));
    found
}

#[test]
fn an_audit_repairs_the_kernels_map() {
    lab("an_audit_repairs_the_kernels_map", |wire, dir| {
        let mut sessions = started(wire, dir).session_map();
        let wanted: BTreeMap<u32, SessionEntry> =
            (1..=MAX_SESSIONS).map(|vni| (vni, entry(1, vni - 1))).collect();
        sessions.install(1, &wanted[&1]).expect("there is room");
        sessions.install(2, &entry(9, 1)).expect("there is room");
        for vni in [70, 71] {
            sessions.install(vni, &entry(1, 0)).expect("there is room");
        }
        let found = audit(&mut sessions, &wanted);
        assert_eq!((found.missing, found.stale, found.different, found.repaired), (2, 2, 1, 5));
        assert_eq!(found.error, None);
        assert_eq!(audit(&mut sessions, &wanted).drift(), 0);
    });
}

#[test]
fn inspect_shows_sessions_and_the_kill_switch_of_a_running_daemon() {
    lab("inspect_shows_sessions_and_the_kill_switch_of_a_running_daemon", |wire, dir| {
        let mut fast_path = started(wire, dir);
        let mut sessions = fast_path.session_map();
        sessions.install(7, &entry(3, 2)).expect("there is room");
        let text = dumped(dir);
        for part in [
            "(forwarding)",
            "SESSIONS          1 of 4",
            "vni 7",
            "generation    3",
            "remote        192.0.2.1:41641",
        ] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
        fast_path.set_enabled(false, clock::monotonic_ns()).expect("written");
        assert!(dumped(dir).contains("(passing everything)"));
        fast_path.set_enabled(true, 1).expect("written");
        assert!(dumped(dir).contains("stale"));
        fast_path.heartbeat(clock::monotonic_ns()).expect("written");
        assert!(dumped(dir).contains("(forwarding)"));

        let only =
            |vni, verbose| inspect::InspectOptions { only: inspect::Only::Vni(vni), limit: 0, verbose };
        let mut out = Vec::new();
        inspect::dump(&dir.0, &only(7, true), &mut out).expect("it is there");
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("stats_slot    2") && !text.contains("CONFIG"), "{text}");
        let error =
            inspect::dump(&dir.0, &only(8, false), &mut Vec::new()).expect_err("not there").to_string();
        assert!(error.contains("VNI 8"), "{error}");
    });
}

#[test]
fn reasons_count_the_frames_that_arrive() {
    lab("reasons_count_the_frames_that_arrive", |wire, dir| {
        const FRAMES: u64 = 100;
        let fast_path = started(wire, dir);
        let count = || fast_path.reasons().expect("read").iter().map(|(_, count)| count.packets).sum::<u64>();
        let before = count();
        wire.on('c', || {
            let socket = UdpSocket::bind((CLIENT_IP, 0)).expect("a socket");
            for _ in 0..FRAMES {
                socket.send_to(b"to nobody", (RELAY_IP, 9)).expect("sent");
            }
        });
        let until = Instant::now() + DEADLINE;
        while count() < before + FRAMES {
            assert!(Instant::now() < until, "{} of {FRAMES} counted", count() - before);
            std::thread::yield_now();
        }
        let text = dumped(dir);
        assert!(text.contains("REASONS") && text.contains("(all)"), "{text}");
    });
}

#[test]
fn the_programs_own_log_lines_reach_the_daemons_log() {
    lab("the_programs_own_log_lines_reach_the_daemons_log", |wire, dir| {
        let (sender, lines) = mpsc::channel::<String>();
        let log = tracing_subscriber::fmt().with_writer(Mutex::new(Lines(sender))).finish();
        tracing_subscriber::util::SubscriberInitExt::try_init(log)
            .expect("the only subscriber of these tests");
        let fast_path = started(wire, dir);
        fast_path.heartbeat(1).expect("written");
        wire.on('c', || {
            let socket = UdpSocket::bind((CLIENT_IP, 0)).expect("a socket");
            // Geneve data of VNI 7: the program checks the heartbeat only for packets that could belong to a
            // session.
            socket.send_to(&[0, 0, 0x7a, 0x12, 0, 0, 7, 0, 1, 2], (RELAY_IP, 3478)).expect("sent");
        });
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = lines.recv_timeout(left).expect("the program warns of the stale heartbeat");
            if line.contains("relayd::xdp") && line.contains("heartbeat is stale") {
                break;
            }
        }
    });
}

/// Sends each log line to a channel.
struct Lines(mpsc::Sender<String>);

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Sending fails after the test, when nobody receives lines.
        let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_map_of_another_size_is_refused_unread() {
    lab("a_map_of_another_size_is_refused_unread", |wire, dir| {
        // The first start mounts the BPF file system if it is missing.
        drop(started(wire, dir));
        fs::create_dir(&dir.0).expect("a directory of the BPF file system");
        let other = HashMap::<MapData, u32, [u8; 64]>::create(4, 0).expect("a map");
        other.pin(dir.0.join(map::SESSIONS)).expect("pinned");
        let error =
            inspect::dump(&dir.0, &inspect::InspectOptions::default(), &mut Vec::new()).expect_err("refused");
        let sentence = error.to_string();
        assert!(matches!(error, inspect::InspectError::Layout { .. }), "{sentence}");
        assert!(sentence.contains("64 bytes") && sentence.contains("112 bytes"), "{sentence}");
        // A start does not open the map either: it clears the directory.
        drop(started(wire, dir));
        assert!(!dir.0.exists());
    });
}
