//! relayd's XDP program as the kernel runs it (BPF_PROG_TEST_RUN): the same reasons, the same bytes and the
//! same counts as the rules on the host.

use anyhow::Result;
use relay_common::{
    fastpath::{
        Config,
        reason::{Verdict, XdpReason},
    },
    forward::{
        Decision, apply,
        sample::{self, StillMaps},
    },
    net::SliceFrame,
};
use relay_tests::{
    bpf::{Objects, Relayd, now_ns, run},
    packet::{Random, damaged_frame, good_frame},
    program_cost::Programs,
    skip,
};

/// The interface of a test run in the kernel: the loopback of its namespace.
const INTERFACE: u32 = 1;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

fn action(reason: XdpReason) -> u32 {
    match reason.verdict() {
        Verdict::Drop => XDP_DROP,
        Verdict::Pass => XDP_PASS,
        Verdict::Tx => XDP_TX,
    }
}

/// Applies the host's rules to a frame.
fn on_the_host(frame: &mut [u8], config: &Config, maps: &StillMaps) -> Result<Decision, XdpReason> {
    let mut maps = StillMaps { now_ns: now_ns(), ..*maps };
    apply(&mut SliceFrame(frame), config, INTERFACE, &mut maps)
}

/// The loaded program, or `None` after reporting why the test is skipped.
fn relayd(test: &str) -> Result<Option<Relayd>> {
    match Objects::find() {
        Ok(objects) => Relayd::load(&objects.relayd).map(Some),
        Err(reason) => {
            skip(test, &reason);
            Ok(None)
        }
    }
}

/// The program with the sample session and the configuration of a running daemon.
fn relayd_with_session(test: &str) -> Result<Option<(Relayd, Config, StillMaps)>> {
    let Some(mut relayd) = relayd(test)? else { return Ok(None) };
    let (config, maps) = (sample::config(now_ns()), StillMaps::new(now_ns(), INTERFACE));
    relayd.configure(&config)?;
    relayd.install(sample::VNI, &maps.session)?;
    relayd.set_sample_hops(&maps.next_hops)?;
    Ok(Some((relayd, config, maps)))
}

#[test]
fn every_case_takes_the_host_s_exit_leaves_the_host_s_bytes_and_is_counted_once() -> Result<()> {
    let test = "every_case_takes_the_host_s_exit_leaves_the_host_s_bytes_and_is_counted_once";
    let Some(mut relayd) = relayd(test)? else { return Ok(()) };
    for case in sample::cases(now_ns(), INTERFACE) {
        relayd.configure(&case.config)?;
        relayd.install(sample::VNI, &case.session)?;
        relayd.set_sample_hops(&case.next_hops)?;
        let maps = StillMaps { now_ns: 0, session: case.session, next_hops: case.next_hops };
        let mut expected_frame = case.frame.clone();
        let on_host = on_the_host(&mut expected_frame, &case.config, &maps);
        assert_eq!(on_host.err().unwrap_or(XdpReason::Forwarded), case.reason, "{}: host", case.name);

        let mut expected_counts = relayd.reasons()?;
        let (ran, frame) = run(relayd.program()?, &case.frame)?;
        assert_eq!(ran, action(case.reason), "{}: action", case.name);
        assert_eq!(frame, expected_frame, "{}: frame", case.name);

        let count = &mut expected_counts[case.reason as usize];
        count.packets += 1;
        count.bytes += case.frame.len() as u64;
        assert_eq!(relayd.reasons()?, expected_counts, "{}: counts", case.name);
    }
    Ok(())
}

#[test]
fn thousands_of_good_and_damaged_frames_come_out_as_on_the_host() -> Result<()> {
    let test = "thousands_of_good_and_damaged_frames_come_out_as_on_the_host";
    let Some((mut relayd, config, maps)) = relayd_with_session(test)? else { return Ok(()) };
    let mut random = Random::new(0x7265_6c61_7964);
    let mut expected_counts = vec![0u64; XdpReason::ALL.len()];
    let mut expected_legs = [(0u64, 0u64); 2];
    const FRAMES: u64 = 8_000;
    for number in 0..FRAMES {
        let original = if number % 4 == 0 { good_frame(&mut random) } else { damaged_frame(&mut random) };
        let mut expected_frame = original.clone();
        let on_host = on_the_host(&mut expected_frame, &config, &maps);
        let reason = on_host.err().unwrap_or(XdpReason::Forwarded);
        expected_counts[reason as usize] += 1;
        if let Ok(decision) = on_host {
            let (packets, bytes) = &mut expected_legs[usize::from(decision.from_leg)];
            *packets += 1;
            *bytes += u64::from(decision.payload_length);
        }
        let (ran, frame) = run(relayd.program()?, &original)?;
        assert_eq!(ran, action(reason), "frame {number}, {reason:?}: {original:02x?}");
        assert_eq!(frame, expected_frame, "frame {number}, {reason:?}: {original:02x?}");
    }
    let counts: Vec<u64> = relayd.reasons()?.iter().map(|count| count.packets).collect();
    assert_eq!(counts, expected_counts);
    assert_eq!(counts.iter().sum::<u64>(), FRAMES, "every exit counts one reason");
    let legs = relayd.stats(sample::STATS_SLOT)?.legs.map(|leg| (leg.packets, leg.bytes));
    assert_eq!(legs, expected_legs);
    let reached = counts.iter().filter(|&&count| count > 0).count();
    assert!(reached >= 12, "the corpus reaches most exits, not {reached}: {counts:?}");
    Ok(())
}

#[test]
fn every_runt_the_kernel_can_make_comes_out_as_on_the_host() -> Result<()> {
    let test = "every_runt_the_kernel_can_make_comes_out_as_on_the_host";
    let Some((mut relayd, config, maps)) = relayd_with_session(test)? else { return Ok(()) };
    let whole = sample::frame(1, &sample::geneve(sample::VNI, &[5; 14]));
    // A test run needs a whole Ethernet header; tests of the rules on the host use shorter frames.
    for length in 14..=whole.len() {
        let mut expected_frame = whole[..length].to_vec();
        let reason = on_the_host(&mut expected_frame, &config, &maps).err();
        let (ran, frame) = run(relayd.program()?, &whole[..length])?;
        assert_eq!(ran, action(reason.unwrap_or(XdpReason::Forwarded)), "{length} bytes");
        assert_eq!(frame, expected_frame, "{length} bytes");
    }
    Ok(())
}

#[test]
fn a_right_checksum_that_looks_partial_is_summed_at_every_length_and_in_every_piece() -> Result<()> {
    let test = "a_right_checksum_that_looks_partial_is_summed_at_every_length_and_in_every_piece";
    let Some((mut relayd, config, mut maps)) = relayd_with_session(test)? else { return Ok(()) };
    maps.next_hops[1].mtu = 65_535;
    relayd.set_sample_hops(&maps.next_hops)?;
    // Around the chunks in which the program sums, and around the pieces in which a frame lies.
    let lengths = (2..300).chain(3_300..3_500).chain(8_000..8_010).chain([1_000, 9_000, 30_001]);
    for length in lengths {
        let body: Vec<u8> = (0..length).map(|at: usize| (at * 31) as u8).collect();
        let right = sample::looks_partial(&body);
        let mut partial = right.clone();
        partial[50] ^= 1;
        for (frame, reason) in [(right, XdpReason::Forwarded), (partial, XdpReason::PartialChecksum)] {
            let mut expected_frame = frame.clone();
            let on_host = on_the_host(&mut expected_frame, &config, &maps);
            assert_eq!(on_host.err().unwrap_or(XdpReason::Forwarded), reason, "{length} bytes, host");
            let (ran, frame) = run(relayd.program()?, &frame)?;
            assert_eq!(ran, action(reason), "{length} bytes");
            assert!(frame == expected_frame, "{length} bytes");
        }
    }
    Ok(())
}

#[test]
fn a_forwarded_packet_is_noted_for_the_leg_that_sent_it() -> Result<()> {
    let test = "a_forwarded_packet_is_noted_for_the_leg_that_sent_it";
    let Some((mut relayd, _, _)) = relayd_with_session(test)? else { return Ok(()) };
    let before = now_ns();
    run(relayd.program()?, &sample::frame(1, &sample::geneve(sample::VNI, &[9; 92])))?;
    let after = now_ns();
    let [first, second] = relayd.stats(sample::STATS_SLOT)?.legs;
    assert_eq!((first.packets, first.bytes, first.last_seen_ns), (0, 0, 0));
    assert_eq!((second.packets, second.bytes), (1, 100));
    assert!((before..=after).contains(&second.last_seen_ns));

    let mut stranger = sample::frame(0, &sample::geneve(sample::VNI, &[9; 92]));
    stranger[34] ^= 1;
    run(relayd.program()?, &stranger)?;
    let [first, _] = relayd.stats(sample::STATS_SLOT)?.legs;
    assert_eq!(first.packets, 0, "a packet that is not forwarded is no sign of life");
    Ok(())
}

#[test]
fn without_a_configuration_everything_passes() -> Result<()> {
    let test = "without_a_configuration_everything_passes";
    let Some(mut relayd) = relayd(test)? else { return Ok(()) };
    relayd.install(sample::VNI, &sample::session())?;
    let frame = sample::frame(0, &sample::geneve(sample::VNI, &[]));
    assert_eq!(run(relayd.program()?, &frame)?, (XDP_PASS, frame));
    assert_eq!(relayd.reasons()?[XdpReason::Disabled as usize].packets, 1);
    Ok(())
}

#[test]
fn two_relays_that_send_to_each_other_stop_when_the_ttl_does() -> Result<()> {
    let test = "two_relays_that_send_to_each_other_stop_when_the_ttl_does";
    let Some((mut relayd, _, mut maps)) = relayd_with_session(test)? else { return Ok(()) };
    // The rewrite of such a packet gives the same packet with a lower TTL.
    maps.session.legs[1] = sample::leg(sample::RELAY, sample::CLIENTS[0], sample::NEXT_HOPS[1]);
    relayd.install(sample::VNI, &maps.session)?;
    relayd.set_next_hop(sample::NEXT_HOPS[1], &sample::next_hop(sample::RELAY_MAC, INTERFACE))?;
    let frame = sample::frame(0, &sample::geneve(sample::VNI, &[0; 1000]));
    const REPEAT: u32 = 100;
    let result = aya::programs::TestRun::test_run(
        relayd.program()?,
        aya::programs::TestRunOptions {
            data_in: Some(&frame),
            repeat: REPEAT,
            ..aya::programs::TestRunOptions::new()
        },
    )?;
    assert_eq!(result.return_value, XDP_DROP);
    let counts = relayd.reasons()?;
    assert_eq!(counts[XdpReason::Forwarded as usize].packets, 63, "from a TTL of 64 down to 1");
    assert_eq!(counts[XdpReason::TtlExpired as usize].packets, u64::from(REPEAT) - 63);
    Ok(())
}

#[test]
fn the_packet_of_the_benchmark_is_forwarded_in_every_run() -> Result<()> {
    let test = "the_packet_of_the_benchmark_is_forwarded_in_every_run";
    let objects = match Objects::find() {
        Ok(objects) => objects,
        Err(reason) => {
            skip(test, &reason);
            return Ok(());
        }
    };
    let mut programs = Programs::load(&objects, 1300)?;
    let sample = programs.sample(20)?;
    let [relayd, look] = programs.sizes()?;
    println!("{sample:?}\nrelayd: {relayd:?}\nparse, clock and lookup: {look:?}");
    assert!(look.instructions < relayd.instructions && look.verified > 0);
    // The kernel's limit is a million; older kernels verify more of the same program.
    assert!(relayd.verified < 50_000, "{} instructions verified", relayd.verified);
    Ok(())
}
