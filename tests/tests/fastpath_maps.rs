//! The values that the daemon writes to the kernel's maps and reads from them, and the output of `relayd
//! inspect`.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs, io,
    net::UdpSocket,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData};
use bytemuck::Zeroable as _;
use relay_common::fastpath::{SessionEntry, SessionStats, map};
use relay_tests::{
    fastpath::{MAX_SESSIONS, dumped, lab, started},
    wire::{CLIENT_IP, RELAY_IP},
};
use relay_user::{
    clock,
    fastpath::inspect,
    route::{
        audit::audit,
        session_map::{MapError, SessionMap as _},
    },
};

const DEADLINE: Duration = Duration::from_secs(10);

fn entry(generation: u64, slot: u32) -> SessionEntry {
    let mut entry = SessionEntry { generation, stats_slot: slot, ..SessionEntry::zeroed() };
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
        let held: BTreeMap<_, _> = sessions.entries().expect("a list").into_iter().collect();
        assert_eq!(held.len(), MAX_SESSIONS as usize);
        assert_eq!(held[&1], rebound);
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
        assert!(sentence.contains("64 bytes") && sentence.contains("136 bytes"), "{sentence}");
        // A start does not open the map either: it clears the directory.
        drop(started(wire, dir));
        assert!(!dir.0.exists());
    });
}
