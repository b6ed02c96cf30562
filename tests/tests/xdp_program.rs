//! relayd's XDP program as the kernel runs it (BPF_PROG_TEST_RUN): the same reasons, the same bytes and the
//! same counts as the rules on the host.

use anyhow::Result;
use relay_common::{
    fastpath::{
        Config, SessionEntry,
        reason::{Verdict, XdpReason},
    },
    forward::{Decision, apply, sample},
    net::SliceFrame,
};
use relay_tests::{
    bpf::{Objects, Relayd, now_ns, run},
    packet::{Random, damaged_frame, good_frame},
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
fn on_the_host(frame: &mut [u8], config: &Config, session: &SessionEntry) -> Result<Decision, XdpReason> {
    let find = |vni| (vni == sample::VNI).then_some(session);
    apply(&mut SliceFrame(frame), config, INTERFACE, now_ns, find)
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
fn relayd_with_session(test: &str) -> Result<Option<(Relayd, Config, SessionEntry)>> {
    let Some(mut relayd) = relayd(test)? else { return Ok(None) };
    let (config, session) = (sample::config(now_ns()), sample::session(INTERFACE));
    relayd.configure(&config)?;
    relayd.install(sample::VNI, &session)?;
    Ok(Some((relayd, config, session)))
}

#[test]
fn every_case_takes_the_host_s_exit_leaves_the_host_s_bytes_and_is_counted_once() -> Result<()> {
    let test = "every_case_takes_the_host_s_exit_leaves_the_host_s_bytes_and_is_counted_once";
    let Some(mut relayd) = relayd(test)? else { return Ok(()) };
    for case in sample::cases(now_ns(), INTERFACE) {
        relayd.configure(&case.config)?;
        relayd.install(sample::VNI, &case.session)?;
        let mut expected_frame = case.frame.clone();
        let on_host = on_the_host(&mut expected_frame, &case.config, &case.session);
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
    let Some((mut relayd, config, session)) = relayd_with_session(test)? else { return Ok(()) };
    let mut random = Random::new(0x7265_6c61_7964);
    let mut expected_counts = vec![0u64; XdpReason::ALL.len()];
    let mut expected_legs = [(0u64, 0u64); 2];
    const FRAMES: u64 = 8_000;
    for number in 0..FRAMES {
        let original = if number % 4 == 0 { good_frame(&mut random) } else { damaged_frame(&mut random) };
        let mut expected_frame = original.clone();
        let on_host = on_the_host(&mut expected_frame, &config, &session);
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
    let Some((mut relayd, config, session)) = relayd_with_session(test)? else { return Ok(()) };
    let whole = sample::frame(1, &sample::geneve(sample::VNI, &[5; 14]));
    // A test run needs a whole Ethernet header; tests of the rules on the host use shorter frames.
    for length in 14..=whole.len() {
        let mut expected_frame = whole[..length].to_vec();
        let reason = on_the_host(&mut expected_frame, &config, &session).err();
        let (ran, frame) = run(relayd.program()?, &whole[..length])?;
        assert_eq!(ran, action(reason.unwrap_or(XdpReason::Forwarded)), "{length} bytes");
        assert_eq!(frame, expected_frame, "{length} bytes");
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
    relayd.install(sample::VNI, &sample::session(INTERFACE))?;
    let frame = sample::frame(0, &sample::geneve(sample::VNI, &[]));
    assert_eq!(run(relayd.program()?, &frame)?, (XDP_PASS, frame));
    assert_eq!(relayd.reasons()?[XdpReason::Disabled as usize].packets, 1);
    Ok(())
}

#[test]
fn two_relays_that_send_to_each_other_stop_when_the_ttl_does() -> Result<()> {
    let test = "two_relays_that_send_to_each_other_stop_when_the_ttl_does";
    let Some((mut relayd, _, mut session)) = relayd_with_session(test)? else { return Ok(()) };
    // The rewrite of such a packet gives the same packet with a lower TTL.
    session.legs[1] = sample::leg(sample::RELAY, sample::CLIENTS[0], sample::RELAY_MAC, INTERFACE);
    relayd.install(sample::VNI, &session)?;
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
