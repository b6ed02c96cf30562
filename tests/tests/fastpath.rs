//! Loading, attaching, pinning and refusals of the embedded program, in private namespaces.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use aya::maps::{HashMap, MapData};
use relay_common::fastpath::map;
use relay_tests::{
    fastpath::{BpfDir, attached, dumped, lab, options, refused, start, started},
    skip,
    wire::{RELAY, Wire},
};
use relay_user::fastpath::{LinkState, Mode, StartError, XdpOptions};

#[test]
fn start_attaches_and_pins_and_stop_leaves_nothing() {
    lab("start_attaches_and_pins_and_stop_leaves_nothing", |wire, dir| {
        let fast_path = started(wire, dir);
        assert_eq!(fast_path.maps_dir(), Some(dir.0.as_path()));
        assert_eq!((fast_path.iface(), fast_path.mode()), (RELAY, Mode::Native));
        assert_eq!(dir.pins(), [map::CONFIG, map::LEG_STATS, map::NEXTHOPS, map::REASONS, map::SESSIONS]);
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
        let error = refused(wire, &XdpOptions { iface: "lo".into(), ..options(dir) });
        assert!(
            matches!(&error, StartError::Locked { pid: Some(pid), .. } if *pid == std::process::id()),
            "{error}"
        );
        assert_eq!(dir.pins().len(), 5, "the pins of the first are untouched");
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
            let error = refused(wire, &XdpOptions { mode, ..options(&other) });
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
        let error = refused(wire, &XdpOptions { iface: "eth77".into(), ..options(dir) });
        let StartError::NoInterface { existing, .. } = &error else { panic!("{error}") };
        assert_eq!(*existing, ["lo", RELAY]);
        assert!(!dir.0.exists());
    });
}

#[test]
fn a_mode_the_driver_lacks_is_refused_and_generic_mode_works_there() {
    lab("a_mode_the_driver_lacks_is_refused_and_generic_mode_works_there", |wire, dir| {
        let native = XdpOptions { iface: "lo".into(), ..options(dir) };
        let error = refused(wire, &native);
        assert!(matches!(error, StartError::ModeNotSupported { mode: Mode::Native, .. }), "{error}");
        assert!(error.to_string().contains("--xdp-mode generic"), "{error}");
        wire.command('r', "ethtool", &["-K", "lo", "gro", "off"]).expect("turned off");
        let fast_path =
            start(wire, &XdpOptions { mode: Mode::Generic, ..native }).expect("generic works everywhere");
        let link = wire.ip('r', &["-d", "link", "show", "lo"]).expect("the link");
        assert!(link.contains("xdpgeneric"), "{link}");
        drop(fast_path);
    });
}

#[test]
fn a_bridge_has_no_native_mode() {
    lab("a_bridge_has_no_native_mode", |wire, dir| {
        if let Err(reason) = wire.ip('r', &["link", "add", "bridge0", "type", "bridge"]) {
            return skip("a_bridge_has_no_native_mode", &format!("{reason:#}"));
        }
        let error = refused(wire, &XdpOptions { iface: "bridge0".into(), ..options(dir) });
        assert!(matches!(error, StartError::ModeNotSupported { .. }), "{error}");
    });
}

#[test]
fn generic_mode_is_refused_where_the_kernel_merges_packets_and_native_mode_is_not() {
    lab("generic_mode_is_refused_where_the_kernel_merges_packets_and_native_mode_is_not", |wire, dir| {
        wire.command('r', "ethtool", &["-K", RELAY, "gro", "on"]).expect("turned on");
        let generic = XdpOptions { mode: Mode::Generic, ..options(dir) };
        let error = refused(wire, &generic);
        assert!(matches!(error, StartError::Merges { .. }), "{error}");
        assert!(error.to_string().contains("ethtool -K relay0 gro off"), "{error}");
        assert!(!dir.0.exists(), "a refused start leaves nothing");
        drop(started(wire, dir));
        wire.command('r', "ethtool", &["-K", RELAY, "gro", "off"]).expect("turned off");
        let fast_path = start(wire, &generic).expect("nothing is merged");

        wire.command('r', "ethtool", &["-K", RELAY, "gro", "on"]).expect("turned on");
        assert_eq!(wire.on('r', || fast_path.watch(1, 0, || 0)), 1);
        let LinkState::Lost(reason) = fast_path.link_status().state else { panic!("still attached") };
        assert!(reason.contains("gro off"), "{reason}");
        assert!(!attached(wire).contains("prog/xdp"), "a program that would do harm does not stay");
        wire.command('r', "ethtool", &["-K", RELAY, "gro", "off"]).expect("turned off");
        assert_eq!(wire.on('r', || fast_path.watch(2, 0, || 0)), 0);
        assert_eq!(fast_path.link_status().state, LinkState::Up);
        assert!(attached(wire).contains("prog/xdp"));
    });
}

#[test]
fn a_member_of_a_bridge_is_refused_with_the_bridge() {
    lab("a_member_of_a_bridge_is_refused_with_the_bridge", |wire, dir| {
        if let Err(reason) = wire.ip('r', &["link", "add", "bridge0", "type", "bridge"]) {
            return skip("a_member_of_a_bridge_is_refused_with_the_bridge", &format!("{reason:#}"));
        }
        let fast_path = started(wire, dir);
        wire.ip('r', &["link", "set", RELAY, "master", "bridge0"]).expect("a member");
        wire.on('r', || fast_path.watch(1, 0, || 0));
        let LinkState::Lost(reason) = fast_path.link_status().state else { panic!("still attached") };
        assert!(reason.contains("member of the bridge bridge0"), "{reason}");
        drop(fast_path);
        for mode in [Mode::Native, Mode::Generic] {
            let error = refused(wire, &XdpOptions { mode, ..options(dir) });
            assert!(matches!(error, StartError::Member { .. }), "{error}");
            assert!(error.to_string().contains("--xdp bridge0 --xdp-mode generic"), "{error}");
        }
        wire.command('r', "ethtool", &["-K", "bridge0", "gro", "off"]).expect("turned off");
        let on_the_bridge = XdpOptions { iface: "bridge0".into(), mode: Mode::Generic, ..options(dir) };
        start(wire, &on_the_bridge).expect("what the error says works");
    });
}

#[test]
fn an_interface_that_was_deleted_and_made_anew_gets_the_program_again() {
    lab("an_interface_that_was_deleted_and_made_anew_gets_the_program_again", |wire, dir| {
        let fast_path = started(wire, dir);
        let look = |now_ns| {
            let losses = wire.on('r', || fast_path.watch(now_ns, 0, || 0));
            (losses, fast_path.link_status())
        };
        let (losses, status) = look(1);
        assert_eq!((losses, &status.state, status.losses), (0, &LinkState::Up, 0));
        let first = status.ifindex;

        wire.ip('r', &["link", "delete", RELAY]).expect("deleted");
        let (losses, status) = look(2);
        let LinkState::Lost(reason) = &status.state else { panic!("{status:?}") };
        assert!(reason.contains("no such interface") && reason.contains("lo"), "{reason}");
        assert_eq!((losses, status.losses, status.since_ns), (1, 1, 2));
        let (losses, status) = look(3);
        assert_eq!((losses, status.losses, status.since_ns), (0, 1, 2), "lost once");

        wire.connect().expect("made anew");
        let (losses, status) = look(4);
        assert_eq!((losses, &status.state, status.losses), (0, &LinkState::Up, 1));
        assert_ne!(status.ifindex, first, "another interface of that name");
        assert!(attached(wire).contains(&format!("prog/xdp id {} ", fast_path.program_id())));

        // Between two looks: deleted and made anew.
        wire.ip('r', &["link", "delete", RELAY]).expect("deleted");
        wire.connect().expect("made anew");
        assert!(!attached(wire).contains("prog/xdp"));
        let (losses, status) = look(5);
        assert_eq!((losses, &status.state, status.losses), (1, &LinkState::Up, 2));
        assert!(attached(wire).contains("prog/xdp"));
        drop(fast_path);
        assert!(!attached(wire).contains("prog/xdp"));
    });
}

#[test]
fn an_interface_that_is_down_or_has_no_carrier_is_said_to_be() {
    lab("an_interface_that_is_down_or_has_no_carrier_is_said_to_be", |wire, dir| {
        let fast_path = started(wire, dir);
        let look = |now_ns| {
            wire.on('r', || fast_path.watch(now_ns, 0, || 0));
            fast_path.link_status()
        };
        assert_eq!(look(1).state, LinkState::Up);
        wire.ip('c', &["link", "set", "client0", "down"]).expect("down");
        assert_eq!((look(2).state, look(3).since_ns), (LinkState::NoCarrier, 2));
        wire.ip('r', &["link", "set", RELAY, "down"]).expect("down");
        assert_eq!(look(4).state, LinkState::Down);
        wire.ip('c', &["link", "set", "client0", "up"]).expect("up");
        wire.ip('r', &["link", "set", RELAY, "up"]).expect("up");
        let status = look(5);
        assert_eq!((status.state, status.losses), (LinkState::Up, 0));
    });
}

#[test]
fn a_program_that_somebody_detached_is_attached_again() {
    lab("a_program_that_somebody_detached_is_attached_again", |wire, dir| {
        let fast_path = started(wire, dir);
        let links = wire.command_output('r', "bpftool", &["-j", "link", "show"]);
        let Ok(links) = links else {
            return skip("a_program_that_somebody_detached_is_attached_again", "there is no bpftool");
        };
        let links: serde_json::Value = serde_json::from_str(&links).expect("JSON");
        let ours = links
            .as_array()
            .expect("a list")
            .iter()
            .find(|link| link["prog_id"].as_u64() == Some(u64::from(fast_path.program_id())));
        let id = ours.expect("the link").get("id").expect("its id").to_string();
        wire.command('r', "bpftool", &["link", "detach", "id", &id]).expect("detached");
        assert!(!attached(wire).contains("prog/xdp"));
        assert_eq!(wire.on('r', || fast_path.watch(1, 0, || 0)), 1);
        assert!(attached(wire).contains("prog/xdp"));
        assert_eq!(fast_path.link_status().state, LinkState::Up);
    });
}

#[test]
fn jumbo_frames_are_no_reason_to_refuse() {
    lab("jumbo_frames_are_no_reason_to_refuse", |wire, dir| {
        for (side, end) in [('c', "client0"), ('r', RELAY)] {
            wire.ip(side, &["link", "set", end, "mtu", "9000"]).expect("an MTU");
        }
        let fast_path = started(wire, dir);
        assert!(attached(wire).contains(" xdp "), "native mode: {}", attached(wire));
        drop(fast_path);
    });
}

#[test]
fn a_directory_off_the_bpf_file_system_costs_the_pins_only() {
    lab("a_directory_off_the_bpf_file_system_costs_the_pins_only", |wire, _| {
        let place = tempfile::tempdir().expect("a directory");
        let dir = BpfDir(place.path().join("not-there"));
        let fast_path = started(wire, &dir);
        assert_eq!(fast_path.maps_dir(), None);
        assert!(attached(wire).contains("prog/xdp"));
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

/// A process that holds the fast path; `Drop` kills it if the test has not done so.
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
        assert_eq!(dir.pins().len(), 5, "the maps stay");
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
