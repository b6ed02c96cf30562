//! What each client of the load saw: its connections, what it sent and what arrived.

/// Nanoseconds of the load's clock, which all clients share.
pub(super) type Nanos = u64;

/// One connection of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// When it was logged in.
    pub(super) from: Nanos,
    /// When it noticed the end.
    pub(super) to: Nanos,
}

/// A packet that a client sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) to: u8,
    pub(super) number: u64,
    pub(super) at: Nanos,
}

/// A packet that a client received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    pub(super) from: u8,
    /// The sender's connection.
    pub(super) life: u32,
    pub(super) number: u64,
    pub(super) at: Nanos,
}

/// Everything that one client saw, in order of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) lives: Vec<Life>,
    pub(super) sent: Vec<Sent>,
    pub(super) arrived: Vec<Arrived>,
}

impl Record {
    /// Whether the client was connected at this time and stayed so for a moment.
    pub(super) fn was_connected(&self, at: Nanos, moment: Nanos) -> bool {
        self.lives.iter().any(|life| life.from <= at && at + moment < life.to)
    }
}
