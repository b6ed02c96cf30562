//! A million packets of a bound session through the program in native mode on a veth: all arrive, all are
//! counted, and every checksum is right at the far end.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use relay_common::{
    fastpath::{NextHopEntry, ReasonCount, reason::XdpReason},
    forward::sample,
};
use relay_ebpf::lab::{Checked, LabConfig};
use relay_tests::{
    bpf::{LabPrograms, Objects, Relayd, now_ns},
    pair::{FAR_END, FAR_MAC, Pair, RELAY_END, frame},
    skip,
};

const PACKETS: u64 = 1_000_000;
/// Frames per test run; its setup takes the kernel milliseconds.
const RUN: u64 = 50_000;
/// Frames on their way at once: far fewer than the 256 that the ring of a veth holds. Each batch has crossed
/// both rings before the next is made.
const BATCH: u32 = 32;
const BODY: [u8; 92] = [0; 92];

/// The sample's next hops with both clients behind the far end of the veth.
fn next_hops(interface: u32) -> [NextHopEntry; 2] {
    [sample::next_hop(FAR_MAC, interface); 2]
}

/// A frame of client `leg`.
fn client_frame(leg: usize) -> Vec<u8> {
    frame(leg, &sample::geneve(sample::VNI, &BODY))
}

#[test]
fn a_million_packets_of_a_session_pass_a_native_veth_with_right_checksums() -> Result<()> {
    let test = "a_million_packets_of_a_session_pass_a_native_veth_with_right_checksums";
    let objects = match Objects::find() {
        Ok(objects) => objects,
        Err(reason) => {
            skip(test, &reason);
            return Ok(());
        }
    };
    let Pair { relay: relay_ns, far: far_ns } = Pair::new()?;

    let mut relayd = Relayd::load(&objects.relayd)?;
    relayd.install(sample::VNI, &sample::session())?;
    relayd.set_sample_hops(&next_hops(relay_ns.index(RELAY_END)?))?;
    relay_ns
        .enter(|| -> Result<_> { Ok(relayd.program()?.attach(RELAY_END, XdpMode::Driver)?) })?
        .context("attaching to the relay's end")?;

    let mut far = LabPrograms::load(&objects.lab)?;
    far.configure(&LabConfig { egress: far_ns.index(FAR_END)?, template_mask: 1, drop: 1, reserved: 0 })?;
    for (index, leg) in [(0, 0), (1, 1)] {
        far.set_template(index, &client_frame(leg))?;
    }
    far_ns
        .enter(|| -> Result<_> { Ok(far.checker()?.attach(FAR_END, XdpMode::Driver)?) })?
        .context("attaching to the far end")?;

    let before = now_ns();
    let started = Instant::now();
    far_ns.enter(|| send_in_runs(&mut relayd, &mut far))??;
    let elapsed = started.elapsed();
    println!("{PACKETS} packets in {elapsed:?}: {} ns each", elapsed.as_nanos() / u128::from(PACKETS));

    assert_eq!(far.generated()?, PACKETS, "sent");
    let reasons = relayd.reasons()?;
    let payload = 8 + BODY.len() as u64;
    let forwarded = ReasonCount { packets: PACKETS, bytes: PACKETS * (42 + payload) };
    assert_eq!(reasons[XdpReason::Forwarded as usize], forwarded);
    assert_eq!(
        reasons.iter().map(|count| count.packets).sum::<u64>(),
        PACKETS,
        "reasons sum to the packets seen"
    );

    let mut expected = [0; Checked::COUNT as usize];
    expected[Checked::Good as usize] = PACKETS;
    assert_eq!(far.checked()?, expected, "every checksum at the far end is right");
    let by_vni = far.checked_vni(sample::VNI)?;
    assert_eq!((by_vni.packets, by_vni.bytes), (PACKETS, PACKETS * payload));

    for leg in relayd.stats(sample::STATS_SLOT)?.legs {
        assert_eq!((leg.packets, leg.bytes), (PACKETS / 2, PACKETS / 2 * payload));
        assert!((before..=now_ns()).contains(&leg.last_seen_ns));
    }
    Ok(())
}

/// Sends [`PACKETS`] in runs, and waits after each run until the checker has seen all of its frames. It also
/// writes the daemon's heartbeat.
fn send_in_runs(relayd: &mut Relayd, far: &mut LabPrograms) -> Result<()> {
    let data = client_frame(0);
    let mut sent = 0;
    while sent < PACKETS {
        relayd.configure(&sample::config(now_ns()))?;
        let frames = RUN.min(PACKETS - sent);
        far.generate(&data, u32::try_from(frames)?, BATCH)?;
        sent += frames;
        let deadline = Instant::now() + Duration::from_secs(5);
        while far.checked()?.iter().sum::<u64>() < sent {
            ensure!(
                Instant::now() < deadline,
                "sent {sent}, generated {}, relay {:?}, far end {:?}",
                far.generated()?,
                relayd.reasons()?,
                far.checked()?
            );
            thread::yield_now();
        }
    }
    Ok(())
}
