//! Frames in several pieces: a datagram of 8,000 bytes through the program, natively, on a veth with an MTU
//! of 9,000, arrives byte for byte.

use std::{net::UdpSocket, time::Duration};

use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use relay_common::{
    fastpath::reason::XdpReason,
    forward::sample,
    net::{IPV4_PAYLOAD_OFFSET, datagram::Datagram},
};
use relay_ebpf::lab::PASS;
use relay_tests::{
    bpf::{Objects, Relayd, load_object, load_program, loaded_program, now_ns},
    lab::{End, Netns, veth},
    raw::RawSender,
    skip,
};

const MTU: u32 = 9_000;
const FAR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// The frame that the far end sends for client `leg` with that UDP payload.
fn frame(leg: usize, payload: &[u8]) -> Vec<u8> {
    Datagram {
        source_mac: FAR_MAC,
        destination_mac: sample::RELAY_MAC,
        source: sample::CLIENTS[leg],
        destination: sample::RELAY,
        tos: 0,
        id: 7,
        ttl: 64,
        payload,
    }
    .to_frame()
}

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
    let (relay_ns, far_ns) = (Netns::new("relay")?, Netns::new("far")?);
    veth(
        End { netns: &relay_ns, name: "r0", mac: sample::RELAY_MAC },
        End { netns: &far_ns, name: "f0", mac: FAR_MAC },
    )?;
    for (netns, end) in [(&relay_ns, "r0"), (&far_ns, "f0")] {
        netns.ip(&["link", "set", end, "mtu", &MTU.to_string()])?;
    }
    // The receiving client is the far end itself.
    let receiver = sample::CLIENTS[1];
    far_ns.ip(&["address", "add", &format!("{}/32", receiver.ip()), "dev", "f0"])?;
    far_ns.ip(&["route", "add", "default", "dev", "f0"])?;

    let mut relayd = Relayd::load(&objects.relayd)?;
    relayd.configure(&sample::config(now_ns()))?;
    relayd.install(sample::VNI, &sample::session())?;
    let mut hop = sample::next_hop(FAR_MAC, relay_ns.index("r0")?);
    hop.mtu = MTU;
    relayd.set_sample_hops(&[hop; 2])?;
    relay_ns
        .enter(|| -> Result<_> { Ok(relayd.program()?.attach("r0", XdpMode::Driver)?) })?
        .context("attaching natively to r0")?;
    let mut lab = load_object(&objects.lab)?;
    load_program(&mut lab, PASS)?;
    far_ns
        .enter(|| -> Result<_> { Ok(loaded_program(&mut lab, PASS)?.attach("f0", XdpMode::Driver)?) })?
        .context("attaching natively to f0")?;

    let socket = far_ns.enter(|| UdpSocket::bind(receiver))??;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let sender = RawSender::open(&far_ns, "f0")?;
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
