//! Counters for the packet paths: one padded shard per thread; the shards are summed when a counter is read.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Number of shards; further threads share them.
const SHARDS: usize = 16;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $label:literal;)*) => {
        /// All counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// All counters, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The counter's name in status answers and metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

counters! {
    /// TCP connections accepted.
    Accepts = "accepts";
    /// Accepts that failed, mostly for lack of files, and sockets that could not be set up.
    AcceptFailed = "accept_failed";
    /// Connections refused because only reserved files were left.
    RefusedFiles = "refused_files";
    /// Connections refused because too many connections had not logged in.
    RefusedPending = "refused_pending";
    /// Connections refused because too many connections from their address had not logged in.
    RefusedPerSource = "refused_per_ip";
    /// Connections whose request head was not HTTP or too long, or whose request had a body.
    HttpMalformed = "http_malformed";
    /// Connections that took too long with a request or its answer.
    HttpTimeout = "http_timeout";
    /// Connections that failed before a request arrived, mostly in the TLS handshake.
    HttpTransport = "http_transport";
    /// Answered requests that were not for DERP.
    HttpRequests = "http_requests";
    /// Clients logged in.
    Logins = "logins";
    /// Logins that lost their transport.
    LoginTransport = "login_transport";
    /// Logins that took too long.
    LoginTimeout = "login_timeout";
    /// Logins whose box did not open: the key was not proved.
    LoginBadBox = "login_bad_box";
    /// Logins with a wrong frame, length, key or JSON.
    LoginMalformed = "login_malformed";
    /// Logins that the table refused.
    LoginRefused = "login_refused";
    /// Logins with another mesh key than ours: they are served as ordinary clients.
    LoginWrongMeshKey = "login_wrong_mesh_key";
    /// Connections ended for breaking the protocol.
    ProtocolFaults = "protocol_faults";
    /// Clients cut because a TLS record did not open or was not allowed.
    TlsFaults = "tls_faults";
    /// Packets received from clients.
    PacketsReceived = "packets_received";
    /// Payload bytes of the packets received.
    BytesReceived = "bytes_received";
    /// Packets whose last byte a client's socket has taken.
    PacketsSent = "packets_sent";
    /// Payload bytes of the packets sent.
    BytesSent = "bytes_sent";
    /// Packets whose last byte a link to another relay has taken. (derper's `packets_forwarded_out`.)
    ForwardedOut = "packets_forwarded_out";
    /// Payload bytes of the packets forwarded.
    ForwardedOutBytes = "bytes_forwarded_out";
    /// Packets from clients of other relays. (derper's `packets_forwarded_in`.)
    ForwardedIn = "packets_forwarded_in";
    /// Payload bytes of these packets.
    ForwardedInBytes = "bytes_forwarded_in";
    /// Packets for a key that is not logged in.
    DropUnknownDest = "drop_unknown_dest";
    /// Packets for a connection that ended before they were written.
    DropGoneDisconnected = "drop_gone_disconnected";
    /// Packets for a key of another relay whose link ended before its socket had taken them.
    DropMeshLink = "drop_mesh_link";
    /// Packets pushed out of a full lane.
    DropQueueHead = "drop_queue_head";
    /// Packets sealed for a connection that ended before its socket had taken them.
    DropWriteError = "drop_write_error";
    /// Packets that waited for a client that was closed because memory was short.
    DropQueueMemory = "drop_queue_memory";
    /// Pongs, keep-alives and news that a client never got, because a full lane dropped them or the client
    /// left.
    DropControl = "drop_control";
    /// Pings answered.
    Pings = "pings";
    /// KeepAlive frames sent.
    KeepAlives = "keepalives";
    /// Frames of a type unknown to the relay.
    UnknownFrames = "unknown_frames";
    /// Clients cut because they took nothing.
    WriteTimeouts = "write_timeouts";
    /// Clients cut because too many bytes waited for all clients together; the client blocked longest is cut
    /// first.
    QueueMemoryCuts = "queue_memory_cuts";
    /// Tasks of connections that panicked: each is a bug.
    TaskPanics = "task_panics";
    /// STUN requests whose answer was sent.
    StunAnswered = "stun_answered";
    /// STUN answers that the socket did not take.
    StunSendFailed = "stun_send_failed";
    /// Datagrams for which there was no room in the STUN socket's receive queue.
    StunQueueFull = "stun_drop_queue_full";
    /// Receives on the STUN socket that failed.
    StunRecvFailed = "stun_recv_failed";
    /// STUN sockets that could not be bound.
    StunBindFailed = "stun_bind_failed";
    /// Datagrams on the STUN port that were not STUN requests.
    StunNotStun = "stun_not_stun";
    /// Sessions allocated or found again.
    UdpAllocations = "udp_allocations";
    /// Sessions that expired.
    UdpExpired = "udp_expired";
    /// Bind requests answered with a challenge.
    UdpChallenges = "udp_challenges";
    /// Answers that bound a leg.
    UdpBinds = "udp_binds";
    /// Session packets forwarded by userspace.
    UdpForwarded = "udp_forwarded";
    /// UDP payload bytes of the forwarded packets, Geneve header included.
    UdpForwardedBytes = "udp_forwarded_bytes";
    /// How often the XDP program was found no longer attached.
    XdpLost = "udp_xdp_lost";
    /// Packets that the kernel did not send: no way to the receiver, no permission, no socket of its family.
    UdpSendFailed = "udp_send_failed";
    /// Packets that were not sent because the socket's send buffer was full.
    UdpSendNoRoom = "udp_send_failed_no_room";
    /// Packets that were too long to be sent to their receiver.
    UdpSendTooLong = "udp_send_failed_too_long";
    /// Trains of packets that the kernel refused to cut up, and whose packets were sent one by one.
    UdpSentApart = "udp_sent_apart";
    /// Calls that received packets; one brings many.
    UdpRecvCalls = "udp_recv_calls";
    /// Calls that sent packets.
    UdpSendCalls = "udp_send_calls";
    /// Messages for which there was no room in a socket's receive queue; a train of packets counts once.
    UdpQueueFull = "udp_drop_queue_full";
    /// Receives on the UDP relay's sockets that failed.
    UdpRecvFailed = "udp_recv_failed";
    /// Datagrams longer than the receive slot.
    UdpTruncated = "udp_drop_too_long";
    /// Shorter than a Geneve header.
    UdpShort = "udp_drop_short";
    /// A Geneve version other than 0.
    UdpVersion = "udp_drop_version";
    /// Geneve options.
    UdpOptions = "udp_drop_options";
    /// Geneve critical bit, reserved bits, reserved byte or VNI 0.
    UdpReserved = "udp_drop_reserved";
    /// A protocol other than disco and WireGuard, or control that is not disco.
    UdpProtocol = "udp_drop_protocol";
    /// No session with this VNI.
    UdpUnknownVni = "udp_drop_unknown_vni";
    /// Data before both legs are bound.
    UdpNotBound = "udp_drop_not_bound";
    /// Data that did not come from a leg's address, or was not sent to the address that the leg talks to.
    UdpNotALeg = "udp_drop_not_a_leg";
    /// A control packet that is not a disco message.
    UdpNotDisco = "udp_drop_not_disco";
    /// A control packet from neither client's disco key.
    UdpUnknownSender = "udp_drop_unknown_sender";
    /// A control packet whose box does not open.
    UdpBadBox = "udp_drop_bad_box";
    /// A control message that does not parse, or of a type that is not for the relay.
    UdpBadMessage = "udp_drop_bad_message";
    /// A control message for another VNI or about another client than its session's.
    UdpMismatch = "udp_drop_mismatch";
    /// A generation that is zero, or an answer to a challenge that is no longer good: it was used, or a later
    /// one has bound the leg.
    UdpGeneration = "udp_drop_generation";
    /// An answer without the challenge that was given to its address.
    UdpBadChallenge = "udp_drop_bad_challenge";
    /// An answer from the other client's address.
    UdpSameAddress = "udp_drop_same_address";
    /// A handshake message from a network of `--relay-deny-file`.
    UdpDenied = "udp_drop_denied";
    /// A STUN answer on the relay's port that nobody asked for, or asked for any more, or that tells no
    /// address.
    UdpStunDropped = "udp_drop_stun";
    /// Sessions that a new `--relay-deny-file` ended.
    UdpEndedDenied = "udp_ended_denied";
    /// Answers of the servers of `--relay-server-stun`.
    UdpStunAnswers = "udp_stun_answers";
}

const COUNT: usize = Counter::ALL.len();

/// One thread's counters, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard([AtomicU64; COUNT]);

/// All shards.
#[derive(Debug)]
pub struct Counters {
    shards: Box<[Shard]>,
}

/// The counts of one batch of packets: plain numbers, which are added to a shard at its end.
#[derive(Debug)]
pub struct Tally([u64; COUNT]);

impl Default for Counters {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard([const { AtomicU64::new(0) }; COUNT])).collect() }
    }
}

impl Counters {
    /// The calling thread's shard.
    pub fn shard(&self) -> &Shard {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: Cell<Option<usize>> = const { Cell::new(None) };
        }
        let mine = MINE.get().unwrap_or_else(|| {
            let mine = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            MINE.set(Some(mine));
            mine
        });
        &self.shards[mine]
    }

    /// Adds to one counter.
    pub fn add(&self, counter: Counter, n: u64) {
        self.shard().add(counter, n);
    }

    /// One counter's sum.
    pub fn get(&self, counter: Counter) -> u64 {
        self.shards.iter().map(|shard| shard.0[counter as usize].load(Ordering::Relaxed)).sum()
    }

    /// Every counter's label and sum.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL.iter().map(|counter| (counter.label(), self.get(*counter)))
    }
}

impl Shard {
    /// Adds to one counter.
    pub fn add(&self, counter: Counter, n: u64) {
        self.0[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Adds a batch.
    pub fn add_all(&self, tally: &Tally) {
        for (counter, n) in self.0.iter().zip(tally.0).filter(|(_, n)| *n > 0) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Tally {
    /// Adds to one counter.
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.0[counter as usize] += n;
    }

    /// One counter of the batch.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_over_threads_is_what_all_of_them_added() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| counters.add(Counter::Accepts, 2)));
            }
        });
        assert_eq!(counters.get(Counter::Accepts), 8000);
    }

    #[test]
    fn labels_are_unique() {
        let mut labels: Vec<_> = Counter::ALL.iter().map(|counter| counter.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), COUNT);
    }
}
