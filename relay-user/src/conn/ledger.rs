//! Tracks which packets the socket has taken: a packet counts as sent when its last byte has been taken.

use std::collections::VecDeque;

use crate::mailbox::Batch;

/// Packets and their payload bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Number of packets.
    pub packets: usize,
    /// Their payload bytes.
    pub bytes: usize,
}

/// Frames that were never sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// Number of packets.
    pub packets: usize,
    /// Number of the relay's own frames.
    pub control: usize,
}

/// The frames of the batch that is being sent. Empty while sockets take whole batches.
#[derive(Debug, Default)]
pub struct Ledger {
    // Boxed: most connections never need it.
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    /// Plaintext bytes of the batch.
    total: usize,
    /// For each unsent frame: the bytes of the batch up to its end and, for a packet, its payload length.
    frames: VecDeque<(u32, Option<u32>)>,
}

impl Ledger {
    /// Notes that `batch` was handed to a stream, which then had `unsent` bytes of its plaintext left (see
    /// [`crate::transport::Stream::unsent_plaintext`]). Returns the packets of the batch that have been sent.
    pub fn begin(&mut self, batch: &Batch, unsent: usize) -> Packets {
        debug_assert!(self.open.is_none(), "the batch before has been looked at to its end");
        if unsent == 0 {
            return Packets { packets: batch.packets(), bytes: batch.payload_bytes() };
        }
        let mut end = 0;
        let frames = batch.frames().map(|(frame, payload)| {
            end += frame;
            (end as u32, payload.map(|bytes| bytes as u32))
        });
        let open = Open { total: batch.bytes(), frames: frames.collect() };
        self.open = Some(Box::new(open));
        self.advance(unsent)
    }

    /// Notes that `unsent` bytes of plaintext are left. Returns the packets sent since the last look.
    pub fn advance(&mut self, unsent: usize) -> Packets {
        let Some(open) = &mut self.open else { return Packets::default() };
        let mut sent = Packets::default();
        while let Some((end, payload)) = open.frames.front()
            && open.total - (*end as usize) >= unsent
        {
            sent.packets += usize::from(payload.is_some());
            sent.bytes += payload.unwrap_or(0) as usize;
            open.frames.pop_front();
        }
        if unsent == 0 {
            self.open = None;
        }
        sent
    }

    /// Whether a batch is not yet known to have left whole.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Ends the ledger with the connection. Returns the frames of the batch that were never sent.
    pub fn end(&mut self) -> Unsent {
        let Some(open) = self.open.take() else { return Unsent::default() };
        let packets = open.frames.iter().filter(|(_, payload)| payload.is_some()).count();
        Unsent { packets, control: open.frames.len() - packets }
    }
}

#[cfg(test)]
mod tests {
    use relay_common::derp::frame::{FrameType, Header};
    use relay_common::derp::message::recv_packet_header;
    use relay_common::key::NodePublic;

    use super::*;
    use crate::mailbox::{Lane, Mailbox};

    /// A pong, and packets of 10, 20 and 30 bytes: frames of 13, 47, 57 and 67.
    fn batch() -> Batch {
        let mailbox = Mailbox::default();
        let pong = Header::new(FrameType::Pong, 8).encode();
        let _ = mailbox.push(Lane::Control, &pong, &[0; 8], false).expect("open");
        for len in [10, 20, 30] {
            let head = recv_packet_header(&NodePublic::from_bytes([1; 32]), len);
            let _ = mailbox.push(Lane::Data, &head, &vec![0; len], false).expect("open");
        }
        mailbox.take()
    }

    #[test]
    fn a_packet_is_sent_with_its_last_byte() {
        let batch = batch();
        assert_eq!(batch.bytes(), 13 + 47 + 57 + 67);
        let mut ledger = Ledger::default();
        assert_eq!(ledger.begin(&batch, 57 + 67 + 1), Packets::default());
        assert_eq!(ledger.advance(57 + 67), Packets { packets: 1, bytes: 10 });
        assert_eq!(ledger.advance(68), Packets::default());
        assert_eq!(ledger.advance(67), Packets { packets: 1, bytes: 20 });
        assert_eq!(ledger.end(), Unsent { packets: 1, control: 0 });
        assert_eq!(ledger.end(), Unsent::default());
        let _ = ledger.begin(&batch, batch.bytes());
        assert_eq!(ledger.end(), Unsent { packets: 3, control: 1 });
    }

    #[test]
    fn a_batch_that_the_socket_takes_whole_is_sent_at_once() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.begin(&batch(), 0), Packets { packets: 3, bytes: 60 });
        assert_eq!(ledger.end(), Unsent::default());
        assert_eq!(ledger.begin(&batch(), 184), Packets::default());
        assert_eq!(ledger.advance(0), Packets { packets: 3, bytes: 60 });
        assert_eq!(ledger.end(), Unsent::default());
    }
}
