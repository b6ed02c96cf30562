//! The receiving thread of a load: it counts, and measures how long packets took and how long each flow was
//! silent.

use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;

use anyhow::ensure;
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{Flow, Plan, RUN, STAMP, Shared, datagram};
use crate::bench::udp::datagrams::Inbox;

/// How long a thread waits for an event before it looks whether the run is over.
const LOOK_MS: u16 = 10;

/// The times that the receiver measured.
pub(super) struct Times {
    pub(super) latency: Histogram<u64>,
    pub(super) gaps_ns: Vec<u64>,
}

/// Receives until the run is over.
pub(super) fn receive(shared: &Shared<'_>) -> anyhow::Result<Times> {
    let plan = shared.plan;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut ends: Vec<usize> = shared.flows.iter().map(|flow| flow.to).collect();
    ends.sort_unstable();
    ends.dedup();
    for &end in &ends {
        epoll.add(shared.sockets[end].as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, end as u64))?;
    }
    let mut times =
        Times { latency: Histogram::new_with_max(60_000_000_000, 3)?, gaps_ns: vec![0; shared.flows.len()] };
    let (mut inbox, mut events) = (Inbox::new(), vec![EpollEvent::empty(); 128]);
    // By flow: the last arrival, in nanoseconds; 0: none.
    let mut last = vec![0; shared.flows.len()];
    let mut was_measuring = false;
    let mut strays = 0_u64;
    while !shared.stopped() {
        let count = match epoll.wait(&mut events, EpollTimeout::from(LOOK_MS)) {
            Err(nix::errno::Errno::EINTR) => 0,
            count => count?,
        };
        let measuring = shared.measuring.load(Ordering::Relaxed);
        if measuring != was_measuring {
            // The silence that is going on counts from here, or up to here.
            let now_ns = shared.now_ns();
            for (last, gap) in last.iter_mut().zip(&mut times.gaps_ns) {
                *gap = if measuring { 0 } else { (*gap).max(now_ns - *last) };
                *last = now_ns;
            }
            was_measuring = measuring;
        }
        for event in &events[..count] {
            let socket = &shared.sockets[usize::try_from(event.data())?];
            let (mut arrived, now_ns) = (0, shared.now_ns());
            let trains = inbox.receive(socket, plan.trains, |bytes| {
                if bytes.get(RUN..RUN + 4) != Some(&shared.number.to_be_bytes()) {
                    return;
                }
                let Some((flow, time_ns)) = stamp(bytes, plan) else {
                    strays += 1;
                    return;
                };
                let ours = |at: &&Flow| {
                    at.to as u64 == event.data() && bytes[4..7] == at.vni.get().to_be_bytes()[1..]
                };
                if shared.flows.get(flow).filter(ours).is_none() {
                    strays += 1;
                    return;
                }
                arrived += 1;
                shared.arrived[flow].fetch_add(1, Ordering::Relaxed);
                if measuring {
                    times.latency.saturating_record(now_ns.saturating_sub(time_ns));
                    times.gaps_ns[flow] = times.gaps_ns[flow].max(now_ns.saturating_sub(last[flow]));
                    last[flow] = now_ns;
                }
            })?;
            shared.trains.fetch_add(trains as u64, Ordering::Relaxed);
            shared.done.fetch_add(arrived, Ordering::Relaxed);
        }
    }
    if was_measuring {
        let now_ns = shared.now_ns();
        times.gaps_ns.iter_mut().zip(&last).for_each(|(gap, last)| *gap = (*gap).max(now_ns - *last));
    }
    ensure!(strays == 0, "{strays} datagrams came to a socket that is not theirs, or were altered");
    Ok(times)
}

/// The flow and the time in a datagram of this plan's size.
fn stamp(bytes: &[u8], plan: &Plan) -> Option<(usize, u64)> {
    if bytes.len() != datagram(plan.size) {
        return None;
    }
    let word = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    Some((usize::try_from(word(STAMP)?).ok()?, word(STAMP + 16)?))
}
