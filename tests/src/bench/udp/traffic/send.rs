//! The sending thread of a load: at a rate, as much as it can, or in closed windows.

use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use relay_common::geneve::{GENEVE_LEN, Geneve, Protocol};

use super::{Flow, Offer, Plan, RUN, STAMP, Shared, datagram};
use crate::bench::udp::datagrams::{send_singles, send_train};

/// A sender that is behind its schedule by more than this gives up what it owes: the load is too much for the
/// machine, and a burst would measure something else.
const LATE: Duration = Duration::from_millis(20);
/// A closed window in which nothing has arrived for this long was lost, and opens again.
const STALL: Duration = Duration::from_millis(20);

/// A flow's next datagrams.
struct Sender {
    bytes: Vec<u8>,
    datagram: usize,
    sent: u64,
    /// Packets that were given up when the window was opened anew.
    lost: u64,
    /// What had arrived when something last did, and when that was.
    seen: u64,
    moved: Instant,
}

impl Sender {
    fn new(flow: Flow, number: usize, run: u32, plan: &Plan) -> Sender {
        let head = Geneve { control: false, protocol: Protocol::WireGuard, vni: flow.vni };
        let datagram = datagram(plan.size);
        let mut one = vec![0x5a; datagram];
        one[..GENEVE_LEN].copy_from_slice(&head.encode());
        // A transport message; its receiver's index is the run.
        one[GENEVE_LEN..][..4].copy_from_slice(&[4, 0, 0, 0]);
        one[RUN..][..4].copy_from_slice(&run.to_be_bytes());
        one[STAMP..][..8].copy_from_slice(&(number as u64).to_be_bytes());
        let bytes = one.repeat(plan.burst);
        Sender { bytes, datagram, sent: 0, lost: 0, seen: 0, moved: Instant::now() }
    }

    fn burst(&mut self, socket: &UdpSocket, plan: &Plan, now_ns: u64) -> anyhow::Result<u64> {
        for one in self.bytes.chunks_mut(self.datagram) {
            one[STAMP + 8..][..8].copy_from_slice(&self.sent.to_be_bytes());
            one[STAMP + 16..][..8].copy_from_slice(&now_ns.to_be_bytes());
            self.sent += 1;
        }
        if plan.trains && plan.burst > 1 {
            let sent = send_train(socket, &self.bytes, u16::try_from(self.datagram)?)?;
            return Ok(if sent { plan.burst as u64 } else { 0 });
        }
        Ok(send_singles(socket, &self.bytes, self.datagram)? as u64)
    }

    /// Whether a closed window has room for a burst.
    fn has_room(&mut self, arrived: u64, window: u64, burst: u64) -> bool {
        if arrived != self.seen {
            (self.seen, self.moved) = (arrived, Instant::now());
        }
        // What was given up may still come.
        let on_their_way = self.sent.saturating_sub(self.lost + arrived);
        if on_their_way + burst <= window.max(burst) {
            return true;
        }
        if self.moved.elapsed() > STALL {
            self.lost += on_their_way;
            self.moved = Instant::now();
            return true;
        }
        false
    }
}

/// Sends until the run is over.
pub(super) fn send(shared: &Shared<'_>) -> anyhow::Result<()> {
    let plan = shared.plan;
    let mut senders: Vec<Sender> = (0..)
        .zip(shared.flows)
        .map(|(number, flow)| Sender::new(*flow, number, shared.number, plan))
        .collect();
    let socket = |index: usize| &shared.sockets[shared.flows[index].from];
    let burst = plan.burst as u64;
    let mut turn = 0;
    let mut due = Instant::now();
    let gap = match plan.offer {
        Offer::Rate(rate) => Duration::from_secs_f64(plan.burst as f64 / rate),
        _ => Duration::ZERO,
    };
    while !shared.stopped() {
        match plan.offer {
            Offer::Flood => {}
            Offer::Rate(_) => {
                let now = Instant::now();
                if now < due {
                    thread::sleep(due - now);
                    continue;
                }
                due = if now - due > LATE { now } else { due + gap };
            }
            Offer::Window(window) => {
                let count = senders.len();
                let open = (turn..turn + count).map(|index| index % count).find(|&index| {
                    senders[index].has_room(shared.arrived[index].load(Ordering::Relaxed), window, burst)
                });
                let Some(open) = open else {
                    thread::yield_now();
                    continue;
                };
                turn = open;
            }
        }
        let sent = senders[turn].burst(socket(turn), plan, shared.now_ns())?;
        shared.sent.fetch_add(sent, Ordering::Relaxed);
        turn = (turn + 1) % senders.len();
    }
    Ok(())
}
