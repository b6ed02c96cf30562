//! Two network namespaces with a veth pair between them: the relay's side and a client's.
//!
//! A thread enters a namespace with setns, so that it keeps the host's BPF file system; `ip netns exec` hides
//! it.

use std::{
    fs::File,
    net::IpAddr,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};

/// The relay's interface.
pub const RELAY: &str = "relay0";
/// The client's interface.
pub const CLIENT: &str = "client0";
/// The relay's address, in a /24.
pub const RELAY_IP: &str = "10.77.0.1";
/// The client's address, in the same /24.
pub const CLIENT_IP: &str = "10.77.0.2";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The two namespaces; `Drop` deletes them and thus the veth pair.
pub struct Wire {
    name: String,
}

impl Wire {
    /// Makes the pair with addresses on both ends, up; `Err` has the reason if the machine does not allow it.
    pub fn new() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let name = format!("rf{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let wire = Self { name };
        ip(&["netns", "add", &wire.side('r')])?;
        ip(&["netns", "add", &wire.side('c')])?;
        let (r, c) = (wire.side('r'), wire.side('c'));
        ip(&["link", "add", RELAY, "netns", &r, "type", "veth", "peer", "name", CLIENT, "netns", &c])?;
        for (side, iface, address) in [('r', RELAY, RELAY_IP), ('c', CLIENT, CLIENT_IP)] {
            wire.ip(side, &["link", "set", "lo", "up"])?;
            wire.ip(side, &["link", "set", iface, "up"])?;
            wire.ip(side, &["address", "add", &format!("{address}/24"), "dev", iface])?;
        }
        Ok(wire)
    }

    /// Runs `ip` in the namespace of the relay (`'r'`) or the client (`'c'`).
    pub fn ip(&self, side: char, args: &[&str]) -> Result<String, String> {
        let side = self.side(side);
        let mut all = vec!["-n", &side];
        all.extend(args);
        ip(&all)
    }

    /// The link-layer address of the interface on a side.
    ///
    /// # Panics
    ///
    /// If `ip` does not print one.
    pub fn mac(&self, side: char) -> [u8; 6] {
        let text = self
            .ip(side, &["-o", "link", "show", if side == 'r' { RELAY } else { CLIENT }])
            .expect("the link");
        let mut words = text.split_whitespace().skip_while(|word| *word != "link/ether");
        let bytes: Vec<u8> = words
            .nth(1)
            .expect("a MAC after link/ether")
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
            .collect();
        bytes.try_into().expect("six bytes")
    }

    /// Runs `what` on a thread in the namespace of a side.
    ///
    /// # Panics
    ///
    /// If the namespace cannot be entered, or if `what` panics.
    pub fn on<T: Send>(&self, side: char, what: impl FnOnce() -> T + Send) -> T {
        let path = PathBuf::from("/run/netns").join(self.side(side));
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let namespace = File::open(&path).expect("the namespace of the test");
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter it");
                what()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn side(&self, side: char) -> String {
        format!("{}{side}", self.name)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for side in ['r', 'c'] {
            let _ = ip(&["netns", "delete", &self.side(side)]);
        }
    }
}

/// Parses an address written in a test.
///
/// # Panics
///
/// If `text` is not an address.
pub fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ip(args: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
