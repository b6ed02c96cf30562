//! The two packet paths of a bound session, XDP and userspace, between hosts on an Ethernet of veths: which
//! packets take which path, and that both deliver the same.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use relay_common::{disco, geneve::Protocol, net::datagram::fill_ip_checksum};
use relay_ebpf::lab::Checked;
use relay_tests::{
    daemon::{Daemon, Setup},
    topology::{CLIENT_PORTS, Lab, client_frame},
    udp_client::{DEADLINE, UdpClient},
};

/// Time after which nothing more can arrive, on a wire with delays of microseconds.
const SILENCE: Duration = Duration::from_millis(50);
/// Packets each way in tests where the number does not matter.
const PACKETS: u64 = 200;

#[test]
fn a_bound_session_goes_through_xdp_and_past_userspace() -> Result<()> {
    let Some(lab) = Lab::or_skip("a_bound_session_goes_through_xdp_and_past_userspace")? else {
        return Ok(());
    };
    let daemon = Daemon::start(lab.setup_xdp())?;
    let clients = lab.bound_session(&daemon, CLIENT_PORTS)?;
    let (in_userspace, good) = (daemon.counter("udp_forwarded")?, lab.checked()?);
    exchange(&clients, PACKETS)?;
    clients[0].ping(&clients[1])?;
    clients[1].ping(&clients[0])?;
    let sent = 2 * PACKETS + 4;
    assert_eq!(daemon.reason("forwarded")?, sent);
    assert_eq!(daemon.counter("udp_forwarded")?, in_userspace, "userspace saw nothing");
    let now_good = lab.checked()?;
    assert_eq!(now_good[Checked::Good as usize] - good[Checked::Good as usize], sent);
    assert_eq!(now_good[Checked::BadUdp as usize] + now_good[Checked::BadIp as usize], 0);
    let session = daemon.session(clients[0].endpoint.vni.get())?.context("the session")?;
    for leg in [0, 1] {
        assert_eq!(session["legs"][leg]["xdp_packets"], sent / 2, "{session}");
        assert_eq!(session["legs"][leg]["packets"], 0, "{session}");
    }
    Ok(())
}

#[test]
fn without_xdp_the_same_session_goes_through_userspace() -> Result<()> {
    let Some(lab) = Lab::or_skip("without_xdp_the_same_session_goes_through_userspace")? else {
        return Ok(());
    };
    let daemon = Daemon::start(lab.setup())?;
    let clients = lab.bound_session(&daemon, CLIENT_PORTS)?;
    exchange(&clients, PACKETS)?;
    clients[0].ping(&clients[1])?;
    assert_eq!(daemon.counter("udp_forwarded")?, 2 * PACKETS + 2);
    assert!(daemon.admin().status()?["xdp"]["unavailable"].is_string());
    Ok(())
}

#[test]
fn a_session_goes_on_through_userspace_while_xdp_is_turned_off() -> Result<()> {
    let Some(lab) = Lab::or_skip("a_session_goes_on_through_userspace_while_xdp_is_turned_off")? else {
        return Ok(());
    };
    let daemon = Daemon::start(lab.setup_xdp())?;
    let clients = lab.bound_session(&daemon, CLIENT_PORTS)?;
    for (state, by_xdp, by_userspace) in [("off", 0, 2 * PACKETS), ("on", 2 * PACKETS, 2 * PACKETS)] {
        daemon.switch_xdp(state)?;
        assert_eq!(daemon.admin().status()?["xdp"]["enabled"], state == "on");
        exchange(&clients, PACKETS)?;
        assert_eq!(daemon.reason("forwarded")?, by_xdp, "{state}");
        assert_eq!(daemon.counter("udp_forwarded")?, by_userspace, "{state}");
    }
    ensure!(daemon.reason("disabled")? >= 2 * PACKETS, "what was passed on has its reason");
    Ok(())
}

#[test]
fn a_client_that_binds_anew_takes_its_kernel_entry_along_and_the_old_source_is_dropped() -> Result<()> {
    let test = "a_client_that_binds_anew_takes_its_kernel_entry_along_and_the_old_source_is_dropped";
    let Some(lab) = Lab::or_skip(test)? else { return Ok(()) };
    let daemon = Daemon::start(lab.setup_xdp())?;
    let mut clients = lab.bound_session(&daemon, CLIENT_PORTS)?;
    exchange(&clients, 5)?;
    let before = daemon.admin().status()?;

    let ip = clients[0].local()?.ip();
    let old = clients[0].roam(lab.clients[0].enter(|| UdpSocket::bind((ip, 0)))??);
    clients[0].send(b"from a source that is not bound")?;
    daemon.wait("the unbound source to be counted", |status| {
        status["counters"]["udp_drop_not_a_leg"] == 1 && status["xdp"]["reasons"]["not_a_leg"]["packets"] == 1
    })?;
    assert_eq!(clients[1].recv(SILENCE)?, None);

    clients[0].bind(daemon.admin())?;
    daemon.wait_installed(clients[0].endpoint.vni.get())?;
    exchange(&clients, 5)?;
    let after = daemon.admin().status()?;
    let forwarded = |status: &serde_json::Value| status["xdp"]["reasons"]["forwarded"]["packets"].as_u64();
    assert_eq!(
        forwarded(&after),
        forwarded(&before).map(|before| before + 10),
        "from the new source, by XDP"
    );

    old.send_to(&clients[0].data(b"from the old source"), clients[0].relay)?;
    daemon.wait("the old source to be dropped", |status| status["counters"]["udp_drop_not_a_leg"] == 2)?;
    assert_eq!(clients[1].recv(SILENCE)?, None);
    old.set_read_timeout(Some(SILENCE))?;
    assert!(old.recv(&mut [0; 64]).is_err(), "nothing goes to the old address");
    Ok(())
}

#[test]
fn the_relay_answers_and_forwards_from_the_address_that_was_asked() -> Result<()> {
    let Some(lab) = Lab::or_skip("the_relay_answers_and_forwards_from_the_address_that_was_asked")? else {
        return Ok(());
    };
    // A second address on the relay's interface, which the kernel would not choose as a source by itself.
    lab.relay.ip(&["address", "add", "10.77.0.9/24", "dev", "r0"])?;
    for setup in [lab.setup(), lab.setup_xdp()] {
        let daemon = Daemon::start(setup)?;
        let mut clients = lab.session(&daemon, CLIENT_PORTS)?;
        clients[0].relay.set_ip([10, 77, 0, 9].into());
        for client in &mut clients {
            client.bind(daemon.admin())?;
        }
        if daemon.has_xdp() {
            daemon.wait_installed(clients[0].endpoint.vni.get())?;
        }
        // The clients refuse packets from any address but the relay's address that they use.
        exchange(&clients, 5)?;
    }
    Ok(())
}

#[test]
fn both_paths_deliver_the_same_bytes_from_the_same_addresses() -> Result<()> {
    let Some(lab) = Lab::or_skip("both_paths_deliver_the_same_bytes_from_the_same_addresses")? else {
        return Ok(());
    };
    let by_xdp = deliveries(&lab, lab.setup_xdp())?;
    let by_userspace = deliveries(&lab, lab.setup())?;
    assert_eq!(by_xdp.arrived.len(), by_userspace.arrived.len());
    for (xdp, userspace) in by_xdp.arrived.iter().zip(&by_userspace.arrived) {
        // TTL and IP identification are not compared: in userspace's case the kernel sets them, and no socket
        // shows them.
        assert!(xdp == userspace, "{}: other bytes or addresses", xdp.class);
    }
    // A missing UDP checksum stays missing with XDP; a socket computes one. Both are valid over IPv4.
    assert_eq!(by_xdp.unchecksummed, 2);
    assert_eq!(by_userspace.unchecksummed, 0);
    Ok(())
}

/// What arrived for one datagram.
#[derive(PartialEq)]
struct Arrived {
    class: String,
    payload: Vec<u8>,
    from: SocketAddr,
    to: SocketAddr,
}

struct Deliveries {
    arrived: Vec<Arrived>,
    unchecksummed: u64,
}

/// Sends every class of packet both ways through a new daemon; each must arrive whole, with a correct
/// checksum.
fn deliveries(lab: &Lab, setup: Setup) -> Result<Deliveries> {
    let daemon = Daemon::start(setup)?;
    // With fixed ports and the first VNI of a daemon, both runs send the same datagrams.
    let clients = lab.bound_session(&daemon, CLIENT_PORTS)?;
    ensure!(clients[0].endpoint.vni.get() == 1, "a fresh daemon starts with the first VNI");
    let (before, mut on_fast_path) = (lab.checked()?, 0);
    let mut arrived = Vec::new();
    for (index, sender) in clients.iter().enumerate() {
        let receiver = &clients[1 - index];
        for (class, protocol, body) in classes() {
            sender.send_raw(&sender.framed(protocol, &body))?;
            on_fast_path += u64::from(body.len() <= LARGEST_WHOLE);
            arrived.push(receive(receiver, class, &sender.framed(protocol, &body))?);
        }
        for Made { class, body, frame } in frames(index, sender)? {
            lab.raw_sender(index)?.send(&frame)?;
            on_fast_path += 1;
            arrived.push(receive(receiver, class.to_owned(), &sender.data(body))?);
        }
    }
    if daemon.has_xdp() {
        ensure!(daemon.reason("forwarded")? == on_fast_path, "all but the fragmented went through XDP");
    } else {
        let forwarded = daemon.counter("udp_forwarded")?;
        ensure!(forwarded == arrived.len() as u64, "all of them went through userspace, not {forwarded}");
    }
    let after = lab.checked()?;
    for bad in [Checked::BadIp, Checked::BadUdp] {
        ensure!(after[bad as usize] == before[bad as usize], "{bad:?} at the far end");
    }
    let unchecksummed = after[Checked::NoChecksum as usize] - before[Checked::NoChecksum as usize];
    Ok(Deliveries { arrived, unchecksummed })
}

fn receive(client: &UdpClient, class: String, sent: &[u8]) -> Result<Arrived> {
    client.socket.set_read_timeout(Some(DEADLINE))?;
    let mut payload = vec![0; 1 << 16];
    let (len, from) =
        client.socket.recv_from(&mut payload).with_context(|| format!("{class} did not arrive"))?;
    payload.truncate(len);
    ensure!(payload == sent, "{class}: not the bytes that were sent");
    Ok(Arrived { class, payload, from, to: client.local()? })
}

/// Bytes behind the Geneve header that fit into one packet of the lab's MTU.
const LARGEST_WHOLE: usize = 1500 - 20 - 8 - 8;

/// Offsets of the type of service and the UDP checksum in a frame.
const TOS: usize = 15;
const UDP_CHECKSUM: usize = 40;

/// The classes: odd and even sizes, empty, WireGuard's four messages, sizes around the MTU and beyond it.
fn classes() -> Vec<(String, Protocol, Vec<u8>)> {
    let sizes =
        [0, 1, 2, 3, 32, 64, 92, 148, 1311, 1312, LARGEST_WHOLE - 1, LARGEST_WHOLE, LARGEST_WHOLE + 1, 4000];
    let contents = ["zeros", "ones", "a count"];
    let mut classes = Vec::new();
    for size in sizes {
        for what in contents {
            let byte = |at| match what {
                "zeros" => 0,
                "ones" => 0xff,
                _ => at as u8,
            };
            let body: Vec<u8> = (0..size).map(byte).collect();
            classes.push((format!("WireGuard, {size} bytes of {what}"), Protocol::WireGuard, body));
        }
    }
    let ping = [&disco::MAGIC[..], &[0x5a; 118]].concat();
    classes.push(("disco between the clients".to_owned(), Protocol::Disco, ping));
    classes
}

/// A frame that a socket would not send.
struct Made {
    class: &'static str,
    body: &'static [u8],
    frame: Vec<u8>,
}

fn frames(index: usize, sender: &UdpClient) -> Result<[Made; 3]> {
    let index = u8::try_from(index)?;
    let make = |class, body| -> Result<Made> {
        let frame = client_frame(index, sender.local()?, sender.relay, &sender.data(body))?;
        Ok(Made { class, body, frame })
    };
    let mut without_checksum = make("no UDP checksum", b"unchecked")?;
    without_checksum.frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].fill(0);
    let mut marked = make("DSCP and ECN set", b"expedited, congestion seen")?;
    marked.frame[TOS] = 0xbb;
    fill_ip_checksum(&mut marked.frame);
    let mut padded = make("link-layer padding", b"")?;
    padded.frame.resize(60, 0xee);
    Ok([without_checksum, marked, padded])
}

fn exchange(clients: &[UdpClient; 2], count: u64) -> Result<()> {
    let [alice, bob] = clients;
    for number in 0..count {
        for (from, to) in [(alice, bob), (bob, alice)] {
            let payload = number.to_be_bytes();
            from.send(&payload)?;
            let received = to.recv(DEADLINE)?.with_context(|| format!("packet {number} did not arrive"))?;
            ensure!(received == payload, "packet {number} is not what was sent");
        }
    }
    Ok(())
}
