//! STUN in userspace: tells clients the address from which their packets come.

use std::net::SocketAddr;
use std::sync::Arc;

use relay_common::stun;

use super::batch::{MOST_SLOTS, Slab};
use super::gather::{Flow, Piece};
use super::sender::{Sender, Settled};
use super::setback::Setbacks;
use super::socket::{SLOT_BYTES, UdpSocket};
use crate::clock;
use crate::host::unmapped;
use crate::observe::counters::{Counter, Tally};
use crate::relay::Relay;

/// An answer, and where it goes.
struct Answer {
    bytes: [u8; stun::MAX_RESPONSE_LEN],
    piece: Piece,
}

/// Answers requests on one socket for ever. No error ends it.
pub async fn serve(socket: UdpSocket, relay: Arc<Relay>) {
    let mut slab = Slab::new(MOST_SLOTS, SLOT_BYTES);
    let mut sender = Sender::default();
    let mut setbacks = Setbacks::default();
    loop {
        let received = match socket.readable().await {
            Ok(mut ready) => match ready.try_io(|_| socket.recv(&mut slab, MOST_SLOTS)) {
                Ok(received) => received,
                Err(_nothing_there) => continue,
            },
            Err(error) => Err(error),
        };
        match received {
            Ok(_) => setbacks.over(),
            Err(error) => {
                setbacks.pause(&error, "STUN", Counter::StunRecvFailed, &relay.counters).await;
                continue;
            }
        }
        let mut tally = Tally::default();
        let answers: Vec<_> = answers(&socket, &slab, &mut tally);
        let pieces = answers.iter().map(|answer| answer.piece).enumerate();
        let payload = |number: usize| &answers[number].bytes[..answers[number].piece.len];
        sender.send(&socket, pieces, payload, clock::monotonic_ns(), |_, settled: Settled| {
            let sent = if settled.loss.is_none() { Counter::StunAnswered } else { Counter::StunSendFailed };
            tally.add(sent, settled.datagrams as u64);
        });
        relay.counters.shard().add_all(&tally);
    }
}

/// The answers to what has been received.
fn answers(socket: &UdpSocket, slab: &Slab, tally: &mut Tally) -> Vec<Answer> {
    let arrivals = slab.arrivals().iter();
    arrivals
        .filter_map(|arrival| {
            if let Some(total) = arrival.notes.queue_drops {
                tally.add(Counter::StunQueueFull, socket.queue_drops(total).into());
            }
            let Some((bytes, len)) = answer(slab.bytes(arrival.at, arrival.len), arrival.from) else {
                tally.add(Counter::StunNotStun, 1);
                return None;
            };
            // Sent from the address that was asked: a client drops an answer from any other address.
            let flow = Flow { to: arrival.from, from: arrival.notes.local_ip, tos: 0 };
            Some(Answer { bytes, piece: Piece { flow, len, segment: 0 } })
        })
        .collect()
}

/// The answer to a datagram; `None` if it is not a STUN binding request.
fn answer(datagram: &[u8], from: SocketAddr) -> Option<([u8; stun::MAX_RESPONSE_LEN], usize)> {
    let transaction = stun::parse_binding_request(datagram).ok()?;
    let mut bytes = [0; stun::MAX_RESPONSE_LEN];
    let len = stun::binding_response(transaction, unmapped(from), &mut bytes);
    Some((bytes, len))
}
