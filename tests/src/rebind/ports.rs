//! The clients' ports: whose each is now, and what arrives there.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use relay_common::geneve::{self, GENEVE_LEN};

use super::Outcome;
use crate::packet::Random;

/// How long a port rests: longer than any packet is on its way.
const REST: Duration = Duration::from_millis(300);
/// A packet that comes to a port so long after its client left it was sent there after the client had moved.
const STOLEN: Duration = Duration::from_secs(1);
/// Wrong packets that are told in words.
const TOLD: usize = 10;
/// Bytes behind the Geneve header.
pub(super) const BODY: usize = 64;

/// A client of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The number of the session within the run.
    pub(super) serial: u64,
    /// The client's leg.
    pub(super) leg: usize,
}

impl Owner {
    /// The body of a packet for this client.
    pub(super) fn body(self, number: u64) -> [u8; BODY] {
        let mut body = [0x33; BODY];
        // WireGuard's type.
        body[..4].copy_from_slice(&[4, 0, 0, 0]);
        body[16..24].copy_from_slice(&self.serial.to_be_bytes());
        body[24..32].copy_from_slice(&(self.leg as u64).to_be_bytes());
        body[32..40].copy_from_slice(&number.to_be_bytes());
        body
    }

    /// Whom a body names.
    fn named(body: &[u8]) -> Option<Owner> {
        let word = |at: usize| Some(u64::from_be_bytes(*body.get(at..)?.first_chunk()?));
        Some(Owner { serial: word(16)?, leg: usize::try_from(word(24)?).ok()? })
    }
}

#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    owner: Option<Owner>,
    /// When its owner left it.
    left: Option<Instant>,
}

/// All ports, by leg: the two clients of a session are on different addresses.
#[derive(Debug)]
pub(super) struct Ports {
    all: [Vec<Port>; 2],
    free: [Vec<usize>; 2],
    resting: VecDeque<(usize, usize)>,
    epoll: Epoll,
    buffer: Vec<u8>,
}

impl Ports {
    /// Opens `count` ports for each leg; call it in the clients' namespace.
    pub(super) fn open(clients: [Ipv4Addr; 2], relay: SocketAddr, count: usize) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut all = [Vec::new(), Vec::new()];
        for (leg, ip) in clients.into_iter().enumerate() {
            for port in 0..count {
                let socket = UdpSocket::bind((ip, 0)).with_context(|| format!("no socket on {ip}"))?;
                socket.connect(relay)?;
                socket.set_nonblocking(true)?;
                let token = (port * 2 + leg) as u64;
                epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token))?;
                all[leg].push(Port { socket, owner: None, left: None });
            }
        }
        let free = [(); 2].map(|()| (0..count).collect());
        Ok(Self { all, free, resting: VecDeque::new(), epoll, buffer: vec![0; 2048] })
    }

    /// Any free port, if there is one. What had come to a port for its last owner is judged before it is
    /// free.
    pub(super) fn take(&mut self, leg: usize, random: &mut Random, outcome: &mut Outcome) -> Option<usize> {
        while let Some(&(leg, port)) = self.resting.front() {
            if self.all[leg][port].left.is_some_and(|left| left.elapsed() < REST) {
                break;
            }
            self.resting.pop_front();
            self.drain(leg, port, outcome);
            self.free[leg].push(port);
        }
        let free = &mut self.free[leg];
        (!free.is_empty()).then(|| free.swap_remove(random.below(free.len())))
    }

    /// Gives a port to a client.
    pub(super) fn own(&mut self, leg: usize, port: usize, owner: Owner) {
        let port = &mut self.all[leg][port];
        (port.owner, port.left) = (Some(owner), None);
    }

    /// Its client has left a port.
    pub(super) fn rest(&mut self, leg: usize, port: usize) {
        self.all[leg][port].left = Some(Instant::now());
        self.resting.push_back((leg, port));
    }

    /// The socket of a port.
    pub(super) fn socket(&self, leg: usize, port: usize) -> &UdpSocket {
        &self.all[leg][port].socket
    }

    /// Sends from a port. What the kernel has no room for is lost.
    pub(super) fn send(&self, leg: usize, port: usize, datagram: &[u8]) -> Result<()> {
        match self.all[leg][port].socket.send(datagram) {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {
                Err(error).context("sending")
            }
            _ => Ok(()),
        }
    }

    /// Receives and judges all that is there.
    pub(super) fn receive(&mut self, outcome: &mut Outcome) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
        for event in &events[..count] {
            let token = usize::try_from(event.data())?;
            let (port, leg) = (token / 2, token % 2);
            self.drain(leg, port, outcome);
        }
        Ok(())
    }

    fn drain(&mut self, leg: usize, port: usize, outcome: &mut Outcome) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Ok(len) = self.all[leg][port].socket.recv(&mut buffer) {
            self.judge(leg, port, &buffer[..len], outcome);
        }
        self.buffer = buffer;
    }

    /// Judges a datagram that arrived at a port.
    pub(super) fn judge(&self, leg: usize, port: usize, datagram: &[u8], outcome: &mut Outcome) {
        let Ok((header, body)) = geneve::parse(datagram) else {
            outcome.wrong_count += 1;
            outcome.wrong.push("a datagram that is no Geneve".to_owned());
            return;
        };
        // Challenges are sealed for their client, and name nobody.
        if header.control || datagram.len() != GENEVE_LEN + BODY {
            return;
        }
        let (named, port) = (Owner::named(body), &self.all[leg][port]);
        if named != port.owner {
            outcome.wrong_count += 1;
            if outcome.wrong.len() < TOLD {
                let (owner, local) = (port.owner, port.socket.local_addr());
                outcome.wrong.push(format!("{local:?} of {owner:?} got a packet for {named:?}"));
            }
        } else if let Some(left) = port.left {
            outcome.late += 1;
            outcome.stolen += u64::from(left.elapsed() > STOLEN);
        } else {
            outcome.right += 1;
        }
    }
}
