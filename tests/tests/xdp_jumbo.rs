//! Frames in several pieces: a datagram of 8,000 bytes through the program, natively, on a veth with an MTU
//! of 9,000, arrives byte for byte.

use std::{net::UdpSocket, time::Duration};

use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use relay_common::{fastpath::reason::XdpReason, forward::sample, net::IPV4_PAYLOAD_OFFSET};
use relay_ebpf::lab::PASS;
use relay_tests::{
    bpf::{Objects, Relayd, load_object, load_program, loaded_program, now_ns},
    pair::{FAR_END, FAR_MAC, Pair, RELAY_END, frame},
    raw::RawSender,
    skip,
};

const MTU: u32 = 9_000;

#[test]
fn a_datagram_of_8000_bytes_is_forwarded_natively_byte_for_byte() -> Result<()> {
    let test = "a_datagram_of_8000_bytes_is_forwarded_natively_byte_for_byte";
    let objects = match Objects::find() {
        Ok(objects) => objects,
        Err(reason) => {
            skip(test, &reason);
            return Ok(());
        }
    };
    let Pair { relay: relay_ns, far: far_ns } = Pair::new()?;
    for (netns, end) in [(&relay_ns, RELAY_END), (&far_ns, FAR_END)] {
        netns.ip(&["link", "set", end, "mtu", &MTU.to_string()])?;
    }
    // The receiving client is the far end itself.
    let receiver = sample::CLIENTS[1];
    far_ns.ip(&["address", "add", &format!("{}/32", receiver.ip()), "dev", FAR_END])?;
    far_ns.ip(&["route", "add", "default", "dev", FAR_END])?;

    let mut relayd = Relayd::load(&objects.relayd)?;
    relayd.configure(&sample::config(now_ns()))?;
    relayd.install(sample::VNI, &sample::session())?;
    let mut hop = sample::next_hop(FAR_MAC, relay_ns.index(RELAY_END)?);
    hop.mtu = MTU;
    relayd.set_sample_hops(&[hop; 2])?;
    relay_ns
        .enter(|| -> Result<_> { Ok(relayd.program()?.attach(RELAY_END, XdpMode::Driver)?) })?
        .context("attaching to the relay's end")?;
    let mut lab = load_object(&objects.lab)?;
    load_program(&mut lab, PASS)?;
    far_ns
        .enter(|| -> Result<_> { Ok(loaded_program(&mut lab, PASS)?.attach(FAR_END, XdpMode::Driver)?) })?
        .context("attaching to the far end")?;

    let socket = far_ns.enter(|| UdpSocket::bind(receiver))??;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let sender = RawSender::open(&far_ns, FAR_END)?;
    let body: Vec<u8> = (0..7_992).map(|at: usize| (at * 7 + at / 256) as u8).collect();
    let payload = sample::geneve(sample::VNI, &body);
    assert_eq!(payload.len(), 8_000);
    // The second has a right checksum that looks as if it was left to the device, so the program sums it.
    let summed = sample::looks_partial(&body)[IPV4_PAYLOAD_OFFSET..].to_vec();
    for (number, payload) in [payload, summed].iter().enumerate() {
        sender.send(&frame(0, payload))?;
        let mut got = vec![0; 10_000];
        let (length, from) = socket.recv_from(&mut got).with_context(|| {
            format!("datagram {number} did not arrive: {:?}", relayd.reasons().unwrap_or_default())
        })?;
        assert_eq!(from, sample::RELAY.into());
        assert!(got[..length] == **payload, "datagram {number}: {length} bytes");
    }
    let reasons = relayd.reasons()?;
    assert_eq!(reasons[XdpReason::Forwarded as usize].packets, 2);
    assert_eq!(reasons[XdpReason::Forwarded as usize].bytes, 2 * (42 + 8_000), "the whole frames");
    let [leg, _] = relayd.stats(sample::STATS_SLOT)?.legs;
    assert_eq!((leg.packets, leg.bytes), (2, 16_000));
    Ok(())
}
