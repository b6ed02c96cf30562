//! STUN in userspace: tells clients the address from which their packets come.

use std::net::SocketAddr;
use std::sync::Arc;

use relay_common::stun;

use super::batch::{Outgoing, ReceivedBatch};
use super::setback::Setbacks;
use super::socket::UdpSocket;
use crate::host::unmapped;
use crate::observe::counters::{Counter, Tally};
use crate::relay::Relay;

/// Answers requests on one socket for ever.
pub async fn serve(socket: UdpSocket, relay: Arc<Relay>) {
    let mut received = ReceivedBatch::default();
    let mut setbacks = Setbacks::default();
    loop {
        if let Err(error) = socket.recv(&mut received).await {
            setbacks.pause(&error, "STUN", Counter::StunRecvFailed, &relay.counters).await;
            continue;
        }
        setbacks.over();
        let mut tally = Tally::default();
        let answers: Vec<_> = received
            .iter()
            .filter_map(|datagram| {
                let answer = answer(datagram.payload, datagram.from);
                if answer.is_none() {
                    tally.add(Counter::StunNotStun, 1);
                }
                // Sent from the address that was asked: a client drops an answer from any other address.
                answer.map(|(bytes, len)| (bytes, len, datagram.from, datagram.local_ip))
            })
            .collect();
        let batch: Vec<_> = answers
            .iter()
            .map(|(bytes, len, to, from)| Outgoing { payload: &bytes[..*len], to: *to, from: *from })
            .collect();
        let sent = socket.send(&batch);
        tally.add(Counter::StunAnswered, sent.sent as u64);
        tally.add(Counter::StunSendFailed, sent.failed as u64);
        relay.counters.shard().add_all(&tally);
    }
}

/// The answer to a datagram; `None` if it is not a STUN binding request.
fn answer(datagram: &[u8], from: SocketAddr) -> Option<([u8; stun::MAX_RESPONSE_LEN], usize)> {
    let transaction = stun::parse_binding_request(datagram).ok()?;
    let mut bytes = [0; stun::MAX_RESPONSE_LEN];
    let len = stun::binding_response(transaction, unmapped(from), &mut bytes);
    Some((bytes, len))
}
