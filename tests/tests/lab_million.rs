//! A million packets of a session that was bound through the daemon's own handshake: native XDP on a veth
//! forwards all of them, every reason is accounted for, every checksum is right at the far end, and userspace
//! gets none.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use relay_ebpf::lab::{Checked, LabConfig};
use relay_tests::{
    bpf::{LabPrograms, Objects},
    daemon::{Daemon, Setup},
    lab::{End, Netns, veth},
    skip,
    topology::{
        CLIENT_PORTS, CLIENTS, RELAY, RELAY_INTERFACE, client_frame, clients_of, mac, objects,
        reasons_and_frames,
    },
    udp_client::UdpClient,
};

const PACKETS: u64 = 1_000_000;
/// Frames per run of the generator; after a run, all of them must have arrived. Each run costs one RCU grace
/// period.
const RUN: u64 = 50_000;
/// Frames that the generator sends before they are received; the rings of a veth hold 256.
const BATCH: u32 = 32;
/// The bytes behind the Geneve header; the first eight become the packet's number.
const BODY: [u8; 92] = [0; 92];
/// The interface at the far end, which has both clients' addresses.
const FAR: &str = "f0";

#[test]
fn a_million_packets_of_a_bound_session_pass_and_userspace_sees_none() -> Result<()> {
    let objects = match objects() {
        Ok(objects) => objects,
        Err(reason) => {
            skip("a_million_packets_of_a_bound_session_pass_and_userspace_sees_none", &reason);
            return Ok(());
        }
    };
    let (relay, far) = (Netns::new("relay")?, Netns::new("far")?);
    let mut checker = wire(&relay, &far, &objects)?;
    let daemon = Daemon::start(Setup::in_netns(relay.name(), RELAY.into()).xdp(RELAY_INTERFACE))?;
    let clients = bind(&daemon, &far)?;
    let vni = clients[0].endpoint.vni.get();

    let frames = [0, 1].map(|index| template(&clients[index]));
    let [first, second] = frames;
    let (first, second) = (first?, second?);
    checker.set_template(0, &first)?;
    checker.set_template(1, &second)?;
    // From here on, arriving frames are counted and dropped, because a socket cannot hold a million
    // datagrams.
    checker.configure(&LabConfig { egress: far.index(FAR)?, template_mask: 1, drop: 1, reserved: 0 })?;
    let (before, checked_before) = (daemon.admin().status()?, checker.checked()?);
    let session_before = checker.checked_vni(vni)?;
    let started = Instant::now();
    far.enter(|| send_in_runs(&mut checker, &first))??;
    let elapsed = started.elapsed();
    println!("{PACKETS} packets in {elapsed:?}: {} ns each", elapsed.as_nanos() / u128::from(PACKETS));

    let (reasons, frames) = reasons_and_frames(&relay, &daemon)?;
    let after = daemon.admin().status()?;
    assert_eq!(checker.generated()?, PACKETS, "sent");
    let grown = |of: &dyn Fn(&serde_json::Value) -> Option<u64>| Some(of(&after)? - of(&before)?);
    let forwarded = grown(&|status| status["xdp"]["reasons"]["forwarded"]["packets"].as_u64());
    assert_eq!(forwarded, Some(PACKETS), "forwarded");
    let bytes = grown(&|status| status["xdp"]["reasons"]["forwarded"]["bytes"].as_u64());
    assert_eq!(bytes, Some(PACKETS * first.len() as u64), "bytes");
    assert_eq!(reasons, frames, "the reasons sum to the frames the driver handed to the program");

    let mut expected = checked_before;
    expected[Checked::Good as usize] += PACKETS;
    let checked = checker.checked()?;
    for checked_as in [Checked::Good, Checked::BadIp, Checked::BadUdp, Checked::NoChecksum] {
        assert_eq!(
            checked[checked_as as usize], expected[checked_as as usize],
            "{checked_as:?} at the far end"
        );
    }
    // The challenges of the handshake also have the session's VNI.
    assert_eq!(checker.checked_vni(vni)?.packets - session_before.packets, PACKETS, "of this session");
    assert_eq!(before["counters"], after["counters"], "userspace counted nothing");
    let session = daemon.session(vni)?.context("the session")?;
    for leg in [0, 1] {
        assert_eq!(session["legs"][leg]["xdp_packets"], PACKETS / 2, "leg {leg}");
        assert_eq!(session["legs"][leg]["packets"], 0, "leg {leg} in userspace");
    }
    Ok(())
}

/// Makes one veth pair: the relay's interface, and a far end with both clients' addresses, a checker and a
/// generator.
fn wire(relay: &Netns, far: &Netns, objects: &Objects) -> Result<LabPrograms> {
    veth(
        End { netns: relay, name: RELAY_INTERFACE, mac: mac(1) },
        // Both clients' frames have the same link-layer address, because one interface has both clients' IP
        // addresses.
        End { netns: far, name: FAR, mac: mac(2) },
    )?;
    relay.ip(&["address", "add", &format!("{RELAY}/24"), "dev", RELAY_INTERFACE])?;
    for client in CLIENTS {
        far.ip(&["address", "add", &format!("{client}/24"), "dev", FAR])?;
    }
    relay.complete_checksums(RELAY_INTERFACE)?;
    far.complete_checksums(FAR)?;
    let mut checker = LabPrograms::load(&objects.lab)?;
    checker.configure(&LabConfig { egress: 0, template_mask: 0, drop: 0, reserved: 0 })?;
    far.enter(|| -> Result<_> { Ok(checker.checker()?.attach(FAR, XdpMode::Driver)?) })?
        .context("attaching natively to the far end")?;
    Ok(checker)
}

fn bind(daemon: &Daemon, far: &Netns) -> Result<[UdpClient; 2]> {
    let mut clients = clients_of(daemon, [far, far], CLIENT_PORTS)?;
    for client in &mut clients {
        client.bind(daemon.admin())?;
    }
    daemon.wait_installed(clients[0].endpoint.vni.get())?;
    Ok(clients)
}

fn template(client: &UdpClient) -> Result<Vec<u8>> {
    client_frame(0, client.local()?, client.relay, &client.data(&BODY))
}

/// Sends [`PACKETS`] in runs, and waits after each run until the checker has seen all of its frames.
fn send_in_runs(far: &mut LabPrograms, frame: &[u8]) -> Result<()> {
    let seen_before = seen(far)?;
    let mut sent = 0;
    while sent < PACKETS {
        let frames = RUN.min(PACKETS - sent);
        far.generate(frame, u32::try_from(frames)?, BATCH)?;
        sent += frames;
        let deadline = Instant::now() + Duration::from_secs(5);
        while seen(far)? - seen_before < sent {
            ensure!(Instant::now() < deadline, "sent {sent}, and of them came back: {:?}", far.checked()?);
            thread::yield_now();
        }
    }
    Ok(())
}

/// UDP frames that the checker has counted, with any result.
fn seen(far: &LabPrograms) -> Result<u64> {
    let checked = far.checked()?;
    Ok(checked.iter().sum::<u64>() - checked[Checked::Other as usize])
}
