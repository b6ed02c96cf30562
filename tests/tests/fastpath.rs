//! Loading, attaching, pinning and refusing, with the embedded program in private namespaces.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData};
use bytemuck::Zeroable as _;
use relay_common::fastpath::{SessionEntry, SessionStats, map};
use relay_tests::{
    skip,
    wire::{CLIENT_IP, RELAY, RELAY_IP, Wire},
};
use relay_user::{
    clock,
    fastpath::{
        FastPath, Mode, OBJECT, Options, StartError, audit, inspect,
        sessions::{MapError, SessionMap as _},
    },
};

const DEADLINE: Duration = Duration::from_secs(10);
const MAX_SESSIONS: u32 = 4;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A pin directory of the test's own; emptied in `Drop`, whatever the test left.
struct BpfDir(PathBuf);

impl BpfDir {
    fn new() -> Self {
        let name = format!("relayd-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(Path::new("/sys/fs/bpf").join(name))
    }

    fn pins(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

impl Drop for BpfDir {
    fn drop(&mut self) {
        for name in self.pins() {
            let _ = fs::remove_file(self.0.join(name));
        }
        let _ = fs::remove_dir(&self.0);
    }
}

fn options(dir: &BpfDir) -> Options {
    Options {
        iface: RELAY.to_owned(),
        mode: Mode::Native,
        bpf_dir: Some(dir.0.clone()),
        max_sessions: MAX_SESSIONS,
        udp_port: 3478,
    }
}

/// Runs a test with a wire and a pin directory, or reports what is missing for it.
fn lab(name: &str, test: impl FnOnce(&Wire, &BpfDir)) {
    if OBJECT.is_none() {
        return skip(name, "built without the eBPF object");
    }
    match Wire::new() {
        Ok(wire) => test(&wire, &BpfDir::new()),
        Err(reason) => skip(name, &reason),
    }
}

fn start(wire: &Wire, options: &Options) -> Result<FastPath, StartError> {
    wire.on('r', || FastPath::start(options))
}

fn started(wire: &Wire, dir: &BpfDir) -> FastPath {
    start(wire, &options(dir)).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(wire: &Wire, options: &Options) -> StartError {
    start(wire, options).expect_err("must be refused")
}

fn dumped(dir: &BpfDir) -> String {
    let mut out = Vec::new();
    inspect::dump(&dir.0, &mut out).unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8(out).expect("text")
}

fn entry(generation: u64, slot: u32) -> SessionEntry {
    let mut entry = SessionEntry { generation, stats_slot: slot, ..SessionEntry::zeroed() };
    entry.expires_ns = clock::monotonic_ns() + 60_000_000_000;
    entry.legs[0].remote_ip = std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
    entry.legs[0].remote_port = 41641_u16.to_be_bytes();
    entry
}

fn attached(wire: &Wire) -> String {
    wire.ip('r', &["-d", "link", "show", RELAY]).expect("the link")
}

#[test]
fn start_attaches_and_pins_and_stop_leaves_nothing() {
    lab("start_attaches_and_pins_and_stop_leaves_nothing", |wire, dir| {
        let fast_path = started(wire, dir);
        assert_eq!(fast_path.maps_dir(), Some(dir.0.as_path()));
        assert_eq!((fast_path.iface(), fast_path.mode()), (RELAY, Mode::Native));
        assert_eq!(dir.pins(), [map::CONFIG, map::LEG_STATS, map::REASONS, map::SESSIONS]);
        let link = attached(wire);
        assert!(link.contains(&format!("prog/xdp id {} ", fast_path.program_id())), "{link}");
        assert!(link.contains(" xdp ") && !link.contains("xdpgeneric"), "native mode: {link}");
        assert!(link.starts_with(&format!("{}:", fast_path.ifindex())), "{link}");
        fast_path.stop();
        assert!(!attached(wire).contains("prog/xdp"));
        assert!(!dir.0.exists());
    });
}

#[test]
fn the_maps_can_be_used_again_after_a_stop() {
    lab("the_maps_can_be_used_again_after_a_stop", |wire, dir| {
        for _ in 0..3 {
            drop(started(wire, dir));
        }
        assert!(!dir.0.exists());
    });
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused() {
    lab("a_second_daemon_on_the_same_directory_is_refused", |wire, dir| {
        let first = started(wire, dir);
        let error = refused(wire, &Options { iface: "lo".into(), mode: Mode::Generic, ..options(dir) });
        assert!(
            matches!(&error, StartError::Locked { pid: Some(pid), .. } if *pid == std::process::id()),
            "{error}"
        );
        assert_eq!(dir.pins().len(), 4, "the pins of the first are untouched");
        drop(first);
        drop(started(wire, dir));
    });
}

#[test]
fn an_occupied_interface_is_refused_with_the_occupant_in_either_mode() {
    lab("an_occupied_interface_is_refused_with_the_occupant_in_either_mode", |wire, dir| {
        let first = started(wire, dir);
        for mode in [Mode::Native, Mode::Generic] {
            let other = BpfDir::new();
            let error = refused(wire, &Options { mode, ..options(&other) });
            assert!(matches!(error, StartError::Occupied { .. }), "{mode}: {error}");
            let sentence = error.to_string();
            assert!(sentence.contains("\"relayd_xdp\""), "{sentence}");
            assert!(sentence.contains(&format!("id {}, native mode", first.program_id())), "{sentence}");
            assert!(!other.0.exists(), "a failed start leaves nothing");
        }
        assert!(attached(wire).contains(&format!("prog/xdp id {} ", first.program_id())));
    });
}

#[test]
fn a_missing_interface_is_refused_with_those_of_this_namespace() {
    lab("a_missing_interface_is_refused_with_those_of_this_namespace", |wire, dir| {
        let error = refused(wire, &Options { iface: "eth77".into(), ..options(dir) });
        let StartError::NoInterface { existing, .. } = &error else { panic!("{error}") };
        assert_eq!(*existing, ["lo", RELAY]);
        assert!(!dir.0.exists());
    });
}

#[test]
fn a_mode_the_driver_lacks_is_refused_and_generic_mode_works_there() {
    lab("a_mode_the_driver_lacks_is_refused_and_generic_mode_works_there", |wire, dir| {
        let native = Options { iface: "lo".into(), ..options(dir) };
        let error = refused(wire, &native);
        assert!(matches!(error, StartError::ModeNotSupported { mode: Mode::Native, .. }), "{error}");
        assert!(error.to_string().contains("--xdp-mode generic"), "{error}");
        let fast_path =
            start(wire, &Options { mode: Mode::Generic, ..native }).expect("generic works everywhere");
        let link = wire.ip('r', &["-d", "link", "show", "lo"]).expect("the link");
        assert!(link.contains("xdpgeneric"), "{link}");
        drop(fast_path);
    });
}

#[test]
fn a_bridge_has_no_native_mode() {
    lab("a_bridge_has_no_native_mode", |wire, dir| {
        if let Err(reason) = wire.ip('r', &["link", "add", "bridge0", "type", "bridge"]) {
            return skip("a_bridge_has_no_native_mode", &reason);
        }
        let error = refused(wire, &Options { iface: "bridge0".into(), ..options(dir) });
        assert!(matches!(error, StartError::ModeNotSupported { .. }), "{error}");
    });
}

#[test]
fn frames_too_large_for_the_driver_are_refused_as_such() {
    lab("frames_too_large_for_the_driver_are_refused_as_such", |wire, dir| {
        wire.ip('c', &["link", "set", "client0", "mtu", "9000"]).expect("an MTU");
        let error = refused(wire, &options(dir));
        assert!(matches!(error, StartError::MtuTooLarge { .. }), "{error}");
        assert!(!dir.0.exists());
    });
}

#[test]
fn a_directory_off_the_bpf_file_system_costs_the_pins_only() {
    lab("a_directory_off_the_bpf_file_system_costs_the_pins_only", |wire, _| {
        let elsewhere = std::env::temp_dir().join(format!("relayd-test-unpinned-{}", std::process::id()));
        let dir = BpfDir(elsewhere);
        let fast_path = started(wire, &dir);
        assert_eq!(fast_path.maps_dir(), None);
        assert!(attached(wire).contains("prog/xdp"));
        assert!(!dir.0.exists());
    });
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

        let mut out = Vec::new();
        inspect::session(&dir.0, 7, &mut out).expect("it is there");
        assert!(String::from_utf8(out).expect("text").contains("stats_slot    2"));
        let error = inspect::session(&dir.0, 8, &mut Vec::new()).expect_err("not there").to_string();
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
fn a_map_of_another_size_is_refused_unread() {
    lab("a_map_of_another_size_is_refused_unread", |wire, dir| {
        // A first start mounts the BPF file system where it is missing.
        drop(started(wire, dir));
        fs::create_dir(&dir.0).expect("a directory of the BPF file system");
        let other = HashMap::<MapData, u32, [u8; 64]>::create(4, 0).expect("a map");
        other.pin(dir.0.join(map::SESSIONS)).expect("pinned");
        let error = inspect::dump(&dir.0, &mut Vec::new()).expect_err("refused");
        let sentence = error.to_string();
        assert!(matches!(error, inspect::InspectError::Layout { .. }), "{sentence}");
        assert!(sentence.contains("64 bytes") && sentence.contains("136 bytes"), "{sentence}");
        // A start does not open it either: it clears the directory.
        drop(started(wire, dir));
        assert!(!dir.0.exists());
    });
}

#[test]
fn somebody_elses_pin_in_the_directory_is_left_alone() {
    lab("somebody_elses_pin_in_the_directory_is_left_alone", |wire, dir| {
        drop(started(wire, dir));
        fs::create_dir(&dir.0).expect("a directory of the BPF file system");
        let other = HashMap::<MapData, u32, [u8; 64]>::create(4, 0).expect("a map");
        other.pin(dir.0.join("NOT_OURS")).expect("pinned");
        drop(started(wire, dir));
        assert_eq!(dir.pins(), ["NOT_OURS"]);
    });
}

/// A process that holds the fast path; killed in `Drop` if the test has not done so.
struct Holder(Child);

impl Holder {
    fn start(wire: &Wire, dir: &BpfDir) -> Self {
        let mut child = wire.on('r', || {
            Command::new(env!("CARGO_BIN_EXE_fastpath-holder"))
                .arg(RELAY)
                .arg(&dir.0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the holder is built with the tests")
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says something");
        let holder = Self(child);
        assert_eq!(line.trim(), "ready");
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_daemon_takes_its_program_along_and_leaves_its_maps_to_the_next_start() {
    lab("a_killed_daemon_takes_its_program_along_and_leaves_its_maps_to_the_next_start", |wire, dir| {
        let mut holder = Holder::start(wire, dir);
        assert!(attached(wire).contains("prog/xdp"));
        let error = refused(wire, &options(dir));
        assert!(
            matches!(&error, StartError::Locked { pid: Some(pid), .. } if *pid == holder.0.id()),
            "{error}"
        );
        holder.0.kill().expect("SIGKILL");
        holder.0.wait().expect("its end");

        assert!(!attached(wire).contains("prog/xdp"), "the program goes with its process");
        assert_eq!(dir.pins().len(), 4, "the maps stay");
        assert!(dumped(dir).contains("SESSIONS          0 of 16"));

        let fast_path = started(wire, dir);
        assert!(dumped(dir).contains("SESSIONS          0 of 4"), "the next start has maps of its own");
        drop(fast_path);
        assert!(!dir.0.exists());
    });
}

#[test]
fn a_holder_whose_input_ends_stops_cleanly() {
    lab("a_holder_whose_input_ends_stops_cleanly", |wire, dir| {
        let mut holder = Holder::start(wire, dir);
        drop(holder.0.stdin.take());
        assert!(holder.0.wait().expect("its end").success());
        assert!(!attached(wire).contains("prog/xdp"));
        assert!(!dir.0.exists());
    });
}
