//! Every malformed Ethernet frame that can reach the relay's interface: the XDP program's reason for it, and
//! the userspace counter if it is passed on. Afterwards the session still goes through XDP.

use anyhow::{Context as _, Result, ensure};
use relay_common::net::{
    IPV4_PAYLOAD_OFFSET, IPV4_UDP_OFFSET, Ipv4UdpHeaders,
    datagram::{fill_checksums, fill_ip_checksum},
};
use relay_ebpf::lab::Checked;
use relay_tests::{
    daemon::Daemon,
    process::until,
    raw::RawSender,
    topology::{CLIENT_PORTS, Lab, client_frame},
    udp_client::{DEADLINE, UdpClient},
};
use serde_json::Value;

/// Offsets in a frame without options.
const DESTINATION_MAC: usize = 0;
const ETHERTYPE: usize = 12;
const IHL: usize = 14;
const FRAGMENT: usize = 20;
const TTL: usize = 22;
const PROTOCOL: usize = 23;
const IP_CHECKSUM: usize = 24;
const SOURCE_PORT: usize = IPV4_UDP_OFFSET;
const DESTINATION_PORT: usize = IPV4_UDP_OFFSET + 2;
const UDP_LENGTH: usize = IPV4_UDP_OFFSET + 4;
const UDP_CHECKSUM: usize = IPV4_UDP_OFFSET + 6;
const GENEVE: usize = IPV4_PAYLOAD_OFFSET;

/// A frame, the program's reason, and the userspace counter that grows if the frame gets that far.
struct Case {
    what: &'static str,
    frame: Vec<u8>,
    reason: &'static str,
    counter: Option<&'static str>,
}

#[test]
fn every_malformed_frame_leaves_the_program_by_its_reason_and_the_session_goes_on() -> Result<()> {
    let test = "every_malformed_frame_leaves_the_program_by_its_reason_and_the_session_goes_on";
    let Some(lab) = Lab::or_skip(test)? else { return Ok(()) };
    let daemon = Daemon::start(lab.setup_xdp())?;
    let clients = lab.bound_session(&daemon, CLIENT_PORTS)?;
    let raw = lab.raw_sender(0)?;
    serves(&daemon, &clients)?;
    for case in cases(&clients[0])? {
        send(&daemon, &raw, &case).with_context(|| case.what)?;
    }
    wrong_udp_checksum(&lab, &daemon, &raw, &clients)?;
    serves(&daemon, &clients)?;
    ensure!(daemon.counter("udp_forwarded")? == 0, "nothing of all that was forwarded by userspace");
    Ok(())
}

fn cases(client: &UdpClient) -> Result<Vec<Case>> {
    let good = client_frame(0, client.local()?, client.relay, &client.data(b"good but for one thing"))?;
    // Changes the frame and corrects its checksums.
    let fixed = |change: &dyn Fn(&mut [u8])| {
        let mut frame = good.clone();
        change(&mut frame);
        fill_checksums(&mut frame);
        frame
    };
    // Changes the frame and keeps its old checksums.
    let left = |change: &dyn Fn(&mut [u8])| {
        let mut frame = good.clone();
        change(&mut frame);
        frame
    };
    let ip_fixed = |change: &dyn Fn(&mut [u8])| {
        let mut frame = left(change);
        fill_ip_checksum(&mut frame);
        frame
    };
    let with_options =
        [&good[..IHL], &[0x46], &good[IHL + 1..IPV4_UDP_OFFSET], &[1; 4], &good[IPV4_UDP_OFFSET..]].concat();
    let case = |what, frame, reason, counter| Case { what, frame, reason, counter };
    Ok(vec![
        case("cut within the IP header", good[..ETHERTYPE + 2 + 10].to_vec(), "truncated", None),
        case("cut within the UDP header", good[..IPV4_UDP_OFFSET + 4].to_vec(), "truncated", None),
        case("a type that is not IP", left(&|frame| frame[ETHERTYPE] = 0x88), "not_ipv4", None),
        case("IP options", with_options, "ip_options", None),
        case("IP version 5", left(&|frame| frame[IHL] = 0x55), "ip_options", None),
        case("a protocol for experiments", ip_fixed(&|frame| frame[PROTOCOL] = 253), "not_udp", None),
        case("a first fragment", ip_fixed(&|frame| frame[FRAGMENT] = 0x20), "fragment", None),
        case("a later fragment", ip_fixed(&|frame| frame[FRAGMENT + 1] = 9), "fragment", None),
        case("another port", fixed(&|frame| frame[DESTINATION_PORT + 1] ^= 1), "other_port", None),
        case(
            "a UDP length beyond the packet",
            fixed(&|frame| frame[UDP_LENGTH + 1] += 1),
            "bad_length",
            None,
        ),
        case("a UDP length of zero", fixed(&|frame| frame[UDP_LENGTH + 1] = 0), "bad_length", None),
        case("a frame shorter than its IP length", good[..good.len() - 1].to_vec(), "bad_length", None),
        case("a wrong IP checksum", left(&|frame| frame[IP_CHECKSUM] ^= 1), "bad_ip_checksum", None),
        case("a checksum left to the device", left(&leave_checksum), "partial_checksum", None),
        case(
            "Geneve version 1",
            fixed(&|frame| frame[GENEVE] = 0x40),
            "not_geneve",
            Some("udp_drop_version"),
        ),
        case("Geneve options", fixed(&|frame| frame[GENEVE] = 1), "not_geneve", Some("udp_drop_options")),
        case(
            "a reserved bit",
            fixed(&|frame| frame[GENEVE + 1] = 1),
            "not_geneve",
            Some("udp_drop_reserved"),
        ),
        case(
            "the reserved byte",
            fixed(&|frame| frame[GENEVE + 7] = 1),
            "not_geneve",
            Some("udp_drop_reserved"),
        ),
        case(
            "another protocol",
            fixed(&|frame| frame[GENEVE + 3] = 0x13),
            "not_geneve",
            Some("udp_drop_protocol"),
        ),
        case(
            "VNI zero",
            fixed(&|frame| frame[GENEVE + 4..GENEVE + 7].fill(0)),
            "not_geneve",
            Some("udp_drop_reserved"),
        ),
        case("control without disco", fixed(&control), "control", Some("udp_drop_not_disco")),
        case(
            "an unknown VNI",
            fixed(&|frame| frame[GENEVE + 6] = 0xee),
            "unknown_vni",
            Some("udp_drop_unknown_vni"),
        ),
        case(
            "a source that is no leg",
            fixed(&|frame| frame[SOURCE_PORT] ^= 1),
            "not_a_leg",
            Some("udp_drop_not_a_leg"),
        ),
        case("for another host", left(&|frame| frame[DESTINATION_MAC + 5] = 0x99), "other_mac", None),
        case("a last hop", ip_fixed(&|frame| frame[TTL] = 1), "ttl_expired", None),
    ])
}

fn control(frame: &mut [u8]) {
    frame[GENEVE + 1] = 0x80;
    frame[GENEVE + 3] = 0x11;
}

/// Writes the sum of the pseudo-header, as a sender does that leaves the checksum to its device.
fn leave_checksum(frame: &mut [u8]) {
    let Some(headers) = frame.first_chunk() else { return };
    let headers = Ipv4UdpHeaders::view(headers);
    let sum = headers.ip.pseudo_header(headers.udp.length).fold();
    frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Sends the frame; its reason must grow by one, `forwarded` must not grow, and then its counter must grow.
fn send(daemon: &Daemon, raw: &RawSender, case: &Case) -> Result<()> {
    let before = daemon.admin().status()?;
    raw.send(&case.frame)?;
    let grown = |after: &Value, path: &str| {
        let number = |status: &Value| status.pointer(path).and_then(Value::as_u64);
        Some(number(after)? - number(&before)?)
    };
    let by_reason = format!("/xdp/reasons/{}/packets", case.reason);
    let after =
        daemon.wait(case.reason, |status| grown(status, &by_reason) != Some(0)).with_context(|| {
            let reasons =
                before["xdp"]["reasons"].as_object().into_iter().flatten().filter(|(_, n)| n["packets"] != 0);
            format!("before: {:?}", reasons.map(|(label, n)| (label, &n["packets"])).collect::<Vec<_>>())
        })?;
    // ARP and similar frames may arrive at any time; they all count under one reason.
    ensure!(
        grown(&after, &by_reason) == Some(1) || case.reason == "not_ipv4",
        "more than one {}",
        case.reason
    );
    if let Some(counter) = case.counter {
        daemon.wait(counter, |status| grown(status, &format!("/counters/{counter}")) == Some(1))?;
    }
    ensure!(grown(&after, "/xdp/reasons/forwarded/packets") == Some(0), "it was forwarded");
    Ok(())
}

/// XDP updates checksums and does not check them: a wrong one stays wrong, and the receiver's kernel drops
/// the datagram.
fn wrong_udp_checksum(lab: &Lab, daemon: &Daemon, raw: &RawSender, clients: &[UdpClient; 2]) -> Result<()> {
    let payload = clients[0].data(b"damaged on the way");
    let mut frame = client_frame(0, clients[0].local()?, clients[0].relay, &payload)?;
    frame[UDP_CHECKSUM] ^= 0x5a;
    let (forwarded, bad) = (daemon.reason("forwarded")?, lab.checked()?[Checked::BadUdp as usize]);
    raw.send(&frame)?;
    until("the damaged datagram to be forwarded", || Ok(daemon.reason("forwarded")? == forwarded + 1))?;
    until("the checker to see it", || Ok(lab.checked()?[Checked::BadUdp as usize] == bad + 1))?;
    // The wrong datagram did not arrive if the receiver's next datagram is the next one sent.
    serves(daemon, clients)
}

/// Checks that the session carries packets both ways through XDP.
fn serves(daemon: &Daemon, clients: &[UdpClient; 2]) -> Result<()> {
    let forwarded = daemon.reason("forwarded")?;
    for (from, to) in [(0, 1), (1, 0)] {
        clients[from].send(b"still served")?;
        let received = clients[to].recv(DEADLINE)?;
        ensure!(
            received.as_deref() == Some(b"still served"),
            "the session is not served any more: {received:?}"
        );
    }
    ensure!(daemon.reason("forwarded")? == forwarded + 2, "not through XDP");
    Ok(())
}
