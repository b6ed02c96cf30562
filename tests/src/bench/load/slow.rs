//! A client reads slowly and steadily while another floods it: how old are the frames that it reads?
//!
//! Frames wait in the socket's buffers, which is the same for every server. The server's own queue and the
//! data that it has sealed already add to that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use hdrhistogram::Histogram;
use nix::sys::socket::{setsockopt, sockopt};
use relay_common::derp::frame::Header;
use relay_common::derp::message::{FromClient, FromServer};
use relay_common::derp::{HEADER_LEN, MAX_CLIENT_FRAME, is_disco_packet};
use relay_common::disco;
use relay_common::key::NodePublic;
use serde::{Deserialize, Serialize};

use super::client::{Client, Dialer, SCRATCH_BYTES};
use super::pace::Pace;
use super::steady::{Schedule, histogram};
use super::{Outcome, Plan};
use crate::bench::usage;

/// Receive buffer that the slow client requests, in bytes; the kernel doubles it and uses half for itself.
const RECEIVE_BUFFER: usize = 16 * 1024;
/// Time between two readings of the clock, for reader and sender.
const TICK: Duration = Duration::from_millis(2);
/// Pings per second of the slow client.
const PINGS: f64 = 5.0;
/// Disco packets per second that the sender adds to its flood.
const DISCOS: f64 = 10.0;
/// Bytes of a disco packet, the size of a usual ping between clients.
const DISCO_BYTES: usize = 130;
/// Offset of the time in a disco packet, after its header.
const DISCO_TIME_AT: usize = 64;
/// Bytes of a time.
const TIME_LEN: usize = 8;

/// Ages of frames of one kind, from sending until the whole frame was read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Age {
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// How many were read.
    pub read: u64,
    /// How many were sent (for pongs: requested) while these were read.
    pub sent: u64,
}

/// What a slow client read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ages {
    /// Pongs of the server; the age starts when the Ping was sent.
    pub pong: Age,
    /// Disco packets.
    pub disco: Age,
    /// Packets of the flood.
    pub data: Age,
    /// Bytes per second that the client read.
    pub drained: f64,
}

/// Kinds of frames whose age is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pong,
    Disco,
    Data,
}

/// State that both clients share.
struct Shared {
    start: Instant,
    stop: AtomicBool,
    measuring: AtomicBool,
    /// Frames by kind, during the measurement.
    sent: [AtomicU64; 3],
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn sent(&self, kind: Kind) {
        if self.measuring.load(Ordering::Relaxed) {
            self.sent[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Runs the load to its end, or until the server cuts the slow client.
pub(super) fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let dialer = Dialer::new(plan)?;
    let (receiver, sender) = (dialer.dial()?, dialer.dial()?);
    let tcp = &receiver.wire.tcp;
    setsockopt(tcp, sockopt::RcvBuf, &RECEIVE_BUFFER).context("a small receive buffer")?;
    tcp.set_read_timeout(None)?;
    tcp.set_nonblocking(true)?;
    let shared = Shared {
        start: Instant::now(),
        stop: AtomicBool::new(false),
        measuring: AtomicBool::new(false),
        sent: Default::default(),
    };
    let to = receiver.key;
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let flooded = flood(plan, sender, &to, &shared);
            // A failure must end the measurement at once.
            shared.stop.store(true, Ordering::Relaxed);
            flooded
        });
        let outcome = read(plan, receiver, &shared);
        shared.stop.store(true, Ordering::Relaxed);
        flood.join().map_err(|_| anyhow!("a thread panicked"))?.context("flooding")?;
        outcome
    })
}

/// Sends packets at the plan's rate, and disco packets between them.
fn flood(plan: &Plan, mut sender: Client, to: &NodePublic, shared: &Shared) -> anyhow::Result<()> {
    let mut data = (vec![0x5a; plan.size], 0, Schedule::new(plan.rate, 0), Kind::Data);
    let mut disco = (disco_packet(), DISCO_TIME_AT, Schedule::new(DISCOS, 0), Kind::Disco);
    let (mut frame, mut out) = (Vec::new(), Vec::new());
    while !shared.stop.load(Ordering::Relaxed) {
        for (packet, time_at, schedule, kind) in [&mut data, &mut disco] {
            while schedule.due(shared.now_ns()).is_some() {
                packet[*time_at..*time_at + TIME_LEN].copy_from_slice(&shared.now_ns().to_le_bytes());
                frame.clear();
                FromClient::SendPacket { dest: to, payload: packet }.encode(&mut frame);
                sender.wire.send(&frame, &mut out)?;
                shared.sent(*kind);
            }
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// Reads at the plan's pace, and sends Pings.
fn read(plan: &Plan, mut receiver: Client, shared: &Shared) -> anyhow::Result<Outcome> {
    let (warm_ns, end_ns) = (plan.warm_ms * 1_000_000, (plan.warm_ms + plan.measure_ms) * 1_000_000);
    let mut ages = [histogram()?, histogram()?, histogram()?];
    let (mut scratch, mut got, mut out) = (vec![0; SCRATCH_BYTES], Vec::new(), Vec::new());
    let (mut pace, mut pings) = (Pace::new(plan.drain, 0), Schedule::new(PINGS, 0));
    let (mut drained, mut cut, mut before) = (0, None, None);
    while cut.is_none() && !shared.stop.load(Ordering::Relaxed) && shared.now_ns() < end_ns {
        thread::sleep(TICK);
        let now_ns = shared.now_ns();
        if before.is_none() && now_ns >= warm_ns {
            before = Some((now_ns, usage::cpu(plan.pid)?));
            shared.measuring.store(true, Ordering::Relaxed);
        }
        let asked = pings.due(now_ns).map(|_| {
            let mut ping = Vec::new();
            FromClient::Ping(now_ns.to_le_bytes()).encode(&mut ping);
            shared.sent(Kind::Pong);
            receiver.wire.send(&ping, &mut out)
        });
        let sink = |bytes: &[u8]| {
            got.extend_from_slice(bytes);
            Ok(())
        };
        let room = pace.room(now_ns);
        let read = asked.unwrap_or(Ok(())).and_then(|()| match room {
            0 => Ok(0),
            room => receiver.wire.receive_some(room, &mut scratch, sink),
        });
        let read = read.unwrap_or_else(|error| {
            cut = Some(error);
            0
        });
        pace.took(read);
        let measuring = before.is_some();
        drained += if measuring { read } else { 0 };
        take_frames(&mut got, |kind, time_ns| {
            if measuring {
                ages[kind as usize].saturating_record(shared.now_ns().saturating_sub(time_ns));
            }
        })?;
    }
    let (Some((since_ns, cpu)), true) = (before, ages.iter().all(|ages| !ages.is_empty())) else {
        let cut = cut.unwrap_or_else(|| anyhow!("the flood ended, or too little was read"));
        return Err(cut.context("the slow client did not read a frame of every kind in its time"));
    };
    let seconds = (shared.now_ns() - since_ns) as f64 / 1e9;
    let age = |kind: Kind| of(&ages[kind as usize], shared.sent[kind as usize].load(Ordering::Relaxed));
    let [pong, disco, data] = [Kind::Pong, Kind::Disco, Kind::Data].map(age);
    Ok(Outcome {
        seconds,
        done: data.read,
        server_cpu: (usage::cpu(plan.pid)? - cpu).as_secs_f64(),
        cut: cut.is_some().into(),
        ages: Ages { pong, disco, data, drained: drained as f64 / seconds },
        ..Outcome::default()
    })
}

/// Takes the whole frames from the head of `got`; `found` gets their kinds and sending times.
fn take_frames(got: &mut Vec<u8>, mut found: impl FnMut(Kind, u64)) -> anyhow::Result<()> {
    let mut used = 0;
    while let Some(head) = got[used..].first_chunk::<HEADER_LEN>() {
        let header = Header::decode(head);
        let (from, len) = (used + HEADER_LEN, header.len as usize);
        if len > MAX_CLIENT_FRAME {
            bail!("a frame of {len} bytes");
        }
        let Some(payload) = got.get(from..from + len) else { break };
        match FromServer::parse(header, payload)? {
            FromServer::Pong(time) => found(Kind::Pong, u64::from_le_bytes(time)),
            FromServer::RecvPacket { payload, .. } => {
                let (kind, at) =
                    if is_disco_packet(payload) { (Kind::Disco, DISCO_TIME_AT) } else { (Kind::Data, 0) };
                let time = payload.get(at..).and_then(|rest| rest.first_chunk::<TIME_LEN>());
                found(kind, u64::from_le_bytes(*time.context("a packet that is too short")?));
            }
            _ => {}
        }
        used = from + len;
    }
    got.drain(..used);
    Ok(())
}

/// A packet that relays accept as disco.
fn disco_packet() -> Vec<u8> {
    let mut packet = vec![0x5a; DISCO_BYTES];
    packet[..disco::MAGIC.len()].copy_from_slice(&disco::MAGIC);
    packet
}

fn of(ages: &Histogram<u64>, sent: u64) -> Age {
    let ms = |quantile| ages.value_at_quantile(quantile) as f64 / 1e6;
    Age { p50_ms: ms(0.5), p99_ms: ms(0.99), read: ages.len(), sent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole_with_kind_and_time_however_the_stream_is_cut() -> anyhow::Result<()> {
        let source = NodePublic::from_ref(&[7; 32]);
        let (mut disco, mut data) = (disco_packet(), vec![0x5a; 2000]);
        disco[DISCO_TIME_AT..DISCO_TIME_AT + TIME_LEN].copy_from_slice(&2u64.to_le_bytes());
        data[..TIME_LEN].copy_from_slice(&3u64.to_le_bytes());
        let mut stream = Vec::new();
        FromServer::Pong(1u64.to_le_bytes()).encode(&mut stream);
        FromServer::KeepAlive.encode(&mut stream);
        FromServer::RecvPacket { source, payload: &disco }.encode(&mut stream);
        FromServer::RecvPacket { source, payload: &data }.encode(&mut stream);
        for cut in [1, 4, 5, 6, 700, 5000] {
            let (mut got, mut found) = (Vec::new(), Vec::new());
            for bytes in stream.chunks(cut) {
                got.extend_from_slice(bytes);
                take_frames(&mut got, |kind, time| found.push((kind, time)))?;
            }
            assert_eq!(found, [(Kind::Pong, 1), (Kind::Disco, 2), (Kind::Data, 3)], "cut every {cut} bytes");
            assert!(got.is_empty());
        }
        Ok(())
    }

    #[test]
    fn an_age_is_a_median_and_a_tail_in_milliseconds() -> anyhow::Result<()> {
        let mut ages = histogram()?;
        (1..=200).for_each(|ms| ages.saturating_record(ms * 1_000_000));
        let Age { p50_ms, p99_ms, read, sent } = of(&ages, 250);
        assert!((99.9..=100.2).contains(&p50_ms) && (197.9..=198.3).contains(&p99_ms), "{p50_ms} {p99_ms}");
        assert_eq!((read, sent), (200, 250));
        Ok(())
    }
}
