//! Network namespaces and veth pairs for a test; they are removed when the test ends.

use std::{
    fs::{self, File},
    io,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};

/// A network namespace with its loopback up. It has no IPv6, because IPv6 sends packets by itself and would
/// change counters.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace whose name contains this process's id and `label`.
    pub fn new(label: &str) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("relayd-{}-{}-{label}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        command("ip", &["netns", "add", &name])?;
        let netns = Self { name };
        netns.enter(|| match fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })??;
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// A namespace with IPv6.
    pub fn dual_stack(label: &str) -> Result<Self> {
        let netns = Self::new(label)?;
        netns.enter(|| {
            ["default", "all"]
                .iter()
                .try_for_each(|which| fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "0"))
        })??;
        Ok(netns)
    }

    /// A namespace whose TCP sockets have small buffers, 128 KiB to send and 64 KiB to receive, because
    /// loopback's 4 MiB would hide every slow reader.
    pub fn narrow(label: &str) -> Result<Self> {
        let netns = Self::new(label)?;
        netns.enter(|| -> Result<()> {
            for (limit, bytes) in [("tcp_wmem", "4096 16384 131072"), ("tcp_rmem", "4096 16384 65536")] {
                let path = format!("/proc/sys/net/ipv4/{limit}");
                fs::write(&path, bytes).with_context(|| format!("writing {path}"))?;
            }
            Ok(())
        })??;
        Ok(netns)
    }

    /// The name for `ip netns` and `nsenter --net=/run/netns/NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on this namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        command("ip", &[&["-n", &self.name], arguments].concat())
    }

    /// Runs a command inside. Unlike `ip netns exec`, it keeps the host's /sys and thus the BPF file system.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<()> {
        self.enter(|| command(program, arguments))?
    }

    /// Runs a command inside and returns its output.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.enter(|| output(program, arguments))?
    }

    /// Turns off checksum offload on the interface, so that its frames have complete checksums on the wire.
    pub fn complete_checksums(&self, interface: &str) -> Result<()> {
        self.command("ethtool", &["-K", interface, "tx", "off"])
    }

    /// The index of an interface.
    pub fn index(&self, interface: &str) -> Result<u32> {
        self.enter(|| if_nametoindex(interface))?.with_context(|| format!("no {interface} in {}", self.name))
    }

    /// Calls `inside` on a thread that has entered the namespace. Sockets, programs and processes that it
    /// opens, attaches or starts belong to the namespace.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.name);
        let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
        thread::scope(|scope| {
            let entered = scope.spawn(move || -> Result<T> {
                setns(namespace, CloneFlags::CLONE_NEWNET).context("entering a namespace")?;
                Ok(inside())
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = command("ip", &["netns", "delete", &self.name]) {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct End<'n> {
    /// The namespace of the end.
    pub netns: &'n Netns,
    /// The interface's name in it.
    pub name: &'n str,
    /// The interface's link-layer address.
    pub mac: [u8; 6],
}

/// Makes a veth pair and brings both ends up. The pair is removed with either namespace.
pub fn veth(one: End<'_>, other: End<'_>) -> Result<()> {
    let [one_mac, other_mac] = [one.mac, other.mac].map(mac_text);
    one.netns.ip(&[
        "link",
        "add",
        one.name,
        "address",
        &one_mac,
        "type",
        "veth",
        "peer",
        "name",
        other.name,
        "netns",
        other.netns.name(),
        "address",
        &other_mac,
    ])?;
    for end in [one, other] {
        end.netns.ip(&["link", "set", end.name, "up"])?;
    }
    Ok(())
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Runs a command to its end; its output is reported only if it fails.
fn command(program: &str, arguments: &[&str]) -> Result<()> {
    output(program, arguments).map(drop)
}

/// Runs a command to its end and returns its output.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("starting {program}"))?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let told = String::from_utf8_lossy(&output.stderr);
    bail!("`{program} {}` failed ({}): {}", arguments.join(" "), output.status, told.trim());
}
