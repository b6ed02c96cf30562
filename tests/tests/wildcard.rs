//! Listening on all addresses: every service serves both families, each answer leaves from the address that
//! was asked, and a host without IPv6 is served too.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;
use relay_common::stun::{TxId, binding_request, parse_binding_response};
use relay_tests::{
    bare::refused_command,
    client::{Client, Dial, Start, Transport},
    daemon::{COMPANION_PORT, Daemon, STUN_PORT, Setup, binary},
    lab::Netns,
    skip,
    wire::addr,
};

/// The kernel's switches for IPv6, by interface.
const SWITCHES: &str = "/proc/sys/net/ipv6/conf";
const REFUSING: &str = env!("CARGO_BIN_EXE_refusing");
const DERP_PORT: u16 = 8443;

#[test]
fn all_addresses_are_those_of_both_families() -> Result<()> {
    let test = "all_addresses_are_those_of_both_families";
    let Some(netns) = host(test, "0")? else { return Ok(()) };
    if !netns.enter(|| UdpSocket::bind("[::1]:0").is_ok())? {
        skip(test, "the kernel has no IPv6");
        return Ok(());
    }
    for all in ["::", "0.0.0.0"] {
        let daemon = Daemon::start(Setup::in_netns(netns.name(), addr(all)).plain())?;
        netns.enter(|| {
            // 127.0.0.77 is an address that the kernel would not choose by itself as the source of an answer.
            for asked in ["127.0.0.1", "127.0.0.77", "::1"].map(addr) {
                stun(asked).with_context(|| format!("-a {all}: STUN at {asked}"))?;
                derp(asked).with_context(|| format!("-a {all}: DERP at {asked}"))?;
            }
            anyhow::Ok(())
        })??;
        assert_eq!(daemon.counter("stun_answered")?, 3);
    }
    Ok(())
}

#[test]
fn the_companion_takes_both_families_too() -> Result<()> {
    let Some(netns) = host("the_companion_takes_both_families_too", "0")? else { return Ok(()) };
    let _daemon = Daemon::start(Setup::in_netns(netns.name(), addr("0.0.0.0")))?;
    for asked in ["127.0.0.1", "::1"].map(addr) {
        netns.enter(|| TcpStream::connect((asked, COMPANION_PORT)))?.with_context(|| asked.to_string())?;
    }
    Ok(())
}

#[test]
fn a_kernel_without_ipv6_serves_ipv4() -> Result<()> {
    let Some(netns) = host("a_kernel_without_ipv6_serves_ipv4", "0")? else { return Ok(()) };
    for all in ["::", "0.0.0.0"] {
        let setup = Setup::in_netns(netns.name(), addr(all)).plain().under(&[REFUSING, "ipv6"]);
        let daemon = Daemon::start(setup)?;
        netns.enter(|| stun(addr("127.0.0.77")).and_then(|()| derp(addr("127.0.0.77"))))??;
        ensure!(daemon.log().contains("no IPv6 on this host"), "{}", daemon.log());
    }
    Ok(())
}

#[test]
fn ipv6_that_is_turned_off_leaves_ipv4() -> Result<()> {
    let Some(netns) = host("ipv6_that_is_turned_off_leaves_ipv4", "1")? else { return Ok(()) };
    for all in ["::", "0.0.0.0"] {
        let _daemon = Daemon::start(Setup::in_netns(netns.name(), addr(all)).plain())?;
        netns.enter(|| stun(addr("127.0.0.77")).and_then(|()| derp(addr("127.0.0.77"))))??;
    }
    Ok(())
}

#[test]
fn a_stun_port_that_is_taken_costs_stun_and_nothing_else() -> Result<()> {
    let setup = Setup::loopback();
    let _taken = UdpSocket::bind((setup.ip, STUN_PORT))?;
    let daemon = Daemon::start(setup)?;
    assert_eq!(daemon.counter("stun_bind_failed")?, 1);
    ensure!(daemon.log().contains("-stun-port"), "{}", daemon.log());
    Client::connect(&daemon.dial(Start::Fast)?)?.ping()?;
    Ok(())
}

#[test]
fn a_second_relay_on_the_same_udp_port_is_refused() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let port = daemon.udp()?.port().to_string();
    let dir = tempfile::tempdir()?;
    let mut second = Command::new(binary()?);
    second.args(["-dev", "-a", "127.0.0.1:0", "-stun=false", "--relay-server-port", &port, "--admin-socket"]);
    second.arg(dir.path().join("admin.sock"));
    let said = refused_command(second)?;
    ensure!(said.contains("--relay-server-port"), "{said}");
    ensure!(said.contains(&port), "{said}");
    Ok(())
}

#[test]
fn a_socket_that_stays_broken_costs_no_core() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback().under(&[REFUSING, "recvmmsg"]))?;
    let socket = UdpSocket::bind((daemon.ip(), 0))?;
    let (stun, relay) = (SocketAddr::new(daemon.ip(), STUN_PORT), daemon.udp()?);
    // Each datagram makes its socket readable, but every read fails.
    for port in [stun, relay] {
        socket.send_to(&[0; 20], port)?;
    }
    daemon.wait("several receives to fail", |status| {
        ["stun_recv_failed", "udp_recv_failed"].iter().all(|name| status["counters"][name].as_u64() > Some(8))
    })?;
    let before = cpu_ticks(daemon.pid())?;
    let count = daemon.counter("stun_recv_failed")?;
    daemon.wait("two more", |status| status["counters"]["stun_recv_failed"].as_u64() >= Some(count + 2))?;
    let used = cpu_ticks(daemon.pid())? - before;
    // There are at least two pauses of 250 ms, in which a busy loop would use 50 ticks.
    ensure!(used < 20, "{used} ticks of 10 ms");
    Ok(())
}

#[test]
fn an_answer_that_was_not_sent_is_not_counted_as_one() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback().under(&[REFUSING, "sendmmsg"]))?;
    let socket = UdpSocket::bind((daemon.ip(), 0))?;
    socket.send_to(&binding_request(TxId([7; 12])), (daemon.ip(), STUN_PORT))?;
    let status = daemon.wait("the failure", |status| status["counters"]["stun_send_failed"] == 1)?;
    assert_eq!(status["counters"]["stun_answered"], 0);
    Ok(())
}

/// A network namespace whose loopback has IPv6 (`disabled` is 0) or not (1).
fn host(test: &str, disabled: &str) -> Result<Option<Netns>> {
    if !geteuid().is_root() {
        skip(test, "needs root, for a network namespace");
        return Ok(None);
    }
    let netns = Netns::new("wildcard")?;
    netns.enter(|| {
        for interface in ["all", "lo"] {
            let switch = format!("{SWITCHES}/{interface}/disable_ipv6");
            if fs::exists(&switch)? {
                fs::write(switch, disabled)?;
            }
        }
        anyhow::Ok(())
    })??;
    Ok(Some(netns))
}

/// Asks `asked` for the client's own address, and checks the source and the content of the answer.
fn stun(asked: IpAddr) -> Result<()> {
    let own = if asked.is_ipv4() { addr("127.0.0.1") } else { addr("::1") };
    let socket = UdpSocket::bind((own, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let transaction = TxId([7; 12]);
    socket.send_to(&binding_request(transaction), (asked, STUN_PORT))?;
    let mut answer = [0; 128];
    let (len, from) = socket.recv_from(&mut answer).context("no answer")?;
    ensure!((from.ip(), from.port()) == (asked, STUN_PORT), "answered from {from}");
    let told = parse_binding_response(&answer[..len]).context("no STUN answer")?;
    ensure!(told == (transaction, socket.local_addr()?), "told {told:?}");
    Ok(())
}

fn derp(asked: IpAddr) -> Result<()> {
    let addr = SocketAddr::new(asked, DERP_PORT);
    Client::connect(&Dial { addr, transport: Transport::Plain, start: Start::Normal })?.ping()?;
    Ok(())
}

/// User and system time of a process, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = procfs::process::Process::new(pid.cast_signed())?.stat()?;
    Ok(stat.utime + stat.stime)
}
