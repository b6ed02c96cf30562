//! Rows about scatter-gather: datagrams that arrived apart are sent as one train, each from its own place in
//! memory, beside the same path with a copy of all of them into one buffer.
//!
//! In this process, over loopback, through the daemon's own [`Slab`] and [`Headers`]. Only what differs is
//! timed: making the message and handing it to the kernel.

use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use nix::time::ClockId;
use relay_user::udp::batch::{Headers, Slab};
use relay_user::udp::cmsg::Wishes;

use super::datagrams::{Inbox, longest_train, send_singles};
use crate::bench::report::Row;
use crate::bench::{Settings, keep};

/// Bytes of the datagrams.
const SIZES: [usize; 4] = [108, 308, 708, 1308];
/// Bytes of the sockets' buffers.
const BUFFER: usize = 8 << 20;
/// Bytes of a slot of the slab, as for datagrams that come alone.
const SLOT: usize = 2048;

/// The rows.
pub(super) fn rows(settings: &Settings, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    for size in SIZES {
        let name = format!("udp-gather-{size}");
        if !settings.wants(&name) {
            continue;
        }
        let mut bench = Bench::new(size)?;
        let turns = if settings.quick { 300 } else { 1000 };
        let mut row = Row {
            name,
            load: format!("{} datagrams of {size} bytes a message, {turns} messages a sample", bench.count),
            unit: "ns of CPU per datagram sent".to_owned(),
            rival_name: "the same with copies".to_owned(),
            goal: "no size slower".to_owned(),
            at_most: Some(1.0),
            ..Row::default()
        };
        bench.sample(turns)?;
        for _ in 0..settings.pairs() {
            let [gathered, copied] = bench.sample(turns)?;
            row.ours.push(gathered);
            row.rival.push(copied);
        }
        keep(rows, settings, row);
    }
    Ok(())
}

struct Bench {
    size: usize,
    count: usize,
    source: UdpSocket,
    relay: UdpSocket,
    sink: UdpSocket,
    slab: Slab,
    headers: Headers,
    joined: Vec<u8>,
    inbox: Inbox,
}

impl Bench {
    fn new(size: usize) -> anyhow::Result<Bench> {
        let [source, relay, sink] = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0"));
        let (source, relay, sink) = (source?, relay?, sink?);
        for socket in [&source, &relay, &sink] {
            socket.set_nonblocking(true)?;
            setsockopt(socket, sockopt::RcvBufForce, &BUFFER)?;
            setsockopt(socket, sockopt::SndBufForce, &BUFFER)?;
        }
        setsockopt(&sink, sockopt::UdpGroSegment, &true)?;
        source.connect(relay.local_addr()?)?;
        let count = longest_train(size);
        Ok(Bench {
            size,
            count,
            source,
            relay,
            sink,
            slab: Slab::new(count, SLOT),
            headers: Headers::default(),
            joined: Vec::with_capacity(count * size),
            inbox: Inbox::new(),
        })
    }

    /// Nanoseconds per datagram: gathered, and copied; in turn, so that both see the same machine.
    fn sample(&mut self, turns: usize) -> anyhow::Result<[f64; 2]> {
        let mut times = [Duration::ZERO; 2];
        let all: Vec<u8> = (0..self.count * self.size).map(|at| at as u8).collect();
        for turn in 0..2 * turns {
            ensure!(send_singles(&self.source, &all, self.size)? == self.count, "loopback is full");
            let arrived = self.slab.recv(self.relay.as_fd(), SLOT, self.count)?;
            ensure!(arrived == self.count, "{arrived} of {} datagrams arrived", self.count);
            let before = clock()?;
            self.send(turn.is_multiple_of(2))?;
            times[turn % 2] += clock()?.saturating_sub(before);
            let mut got = 0;
            while self.inbox.receive(&self.sink, true, |datagram| got += datagram.len())? > 0 {}
            ensure!(got == all.len(), "{got} of {} bytes arrived", all.len());
        }
        Ok(times.map(|time| time.as_nanos() as f64 / (turns * self.count) as f64))
    }

    fn send(&mut self, gathered: bool) -> anyhow::Result<()> {
        let to = self.sink.local_addr()?;
        let wishes = Wishes { segment: self.size, ..Wishes::default() };
        let slab = &self.slab;
        let parts = slab.arrivals().iter().map(|arrival| slab.bytes(arrival.at, arrival.len));
        let mut loading = self.headers.load();
        if gathered {
            loading.push(to, &wishes, parts);
        } else {
            self.joined.clear();
            parts.for_each(|part| self.joined.extend_from_slice(part));
            loading.push(to, &wishes, std::iter::once(&self.joined[..]));
        }
        let sent = loading.done().send(self.relay.as_fd(), 0..1).context("sending a train")?;
        ensure!(sent == 1, "the train was not sent");
        Ok(())
    }
}

fn clock() -> anyhow::Result<Duration> {
    Ok(Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_deliver_every_byte() -> anyhow::Result<()> {
        for size in SIZES {
            let [gathered, copied] = Bench::new(size)?.sample(3)?;
            assert!(gathered > 0.0 && copied > 0.0);
        }
        Ok(())
    }
}
