//! Sends whole Ethernet frames unchanged, also frames that no kernel socket would send.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket},
};

use crate::lab::Netns;

/// A packet socket on one interface.
#[derive(Debug)]
pub struct RawSender(OwnedFd);

impl RawSender {
    /// Opens the socket.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        netns.enter(|| {
            // Without a protocol the socket receives nothing; it is used only for sending.
            let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            let mut addresses = getifaddrs()?.filter(|address| address.interface_name == interface);
            let link = addresses.find_map(|address| address.address?.as_link_addr().copied());
            let link = link.with_context(|| format!("{interface} has no link-layer address"))?;
            bind(fd.as_raw_fd(), &link).with_context(|| format!("binding to {interface}"))?;
            Ok(Self(fd))
        })?
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.0.as_raw_fd(), frame, MsgFlags::empty()).context("sending a frame")?;
        ensure!(sent == frame.len(), "a frame was cut");
        Ok(())
    }
}
