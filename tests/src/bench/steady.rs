//! The steady state: two real connections on worker threads, packets from one to the other over loopback
//! sockets, and what the workers allocate after the warm-up.

mod small_writes;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use relay_common::derp::message::FromClient;
use relay_common::key::{NodePrivate, NodePublic};
use relay_user::cli::TlsRecords;
use relay_user::conn::Connection;
use relay_user::conn::reader::Reader;
use relay_user::observe::counters::Counters;
use relay_user::relay::Relay;
use relay_user::route::Router;
use relay_user::route::peer::Peer;
use relay_user::route::sessions::Limits;
use relay_user::transport::Stream;
use relay_user::transport::plain::PlainStream;
use relay_user::transport::tls::stream::TlsStream;
use relay_user::transport::tls::{
    self,
    files::{self, CertificatePaths},
    meta,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use small_writes::SmallWrites;
use tokio::runtime::{self, Runtime};
use tokio::sync::Notify;

use super::Settings;
use super::report::{Row, number};

/// Packets that the client sends before it waits until all have arrived ...
const WINDOW: u64 = 48;

/// ... and their payload bytes. They fit into the relay's initial buffers, so that no buffer grows after the
/// warm-up, however the packets arrive.
const WINDOW_BYTES: usize = 24_000;

/// Windows sent at once in the warm-up: more than while counting, so that more buffers are in use.
const WARM_UP_WINDOWS: u64 = 4;

/// Maximum time of a single read of the client.
const PATIENCE: Duration = Duration::from_secs(20);

/// The address in the relay's self-signed certificate.
const HOST: &str = "127.0.0.1";

/// The settings of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Use TLS 1.3 instead of plain TCP.
    pub tls: bool,
    /// Payload lengths, one after another.
    pub lengths: &'static [usize],
    /// Packets before the count starts.
    pub warm_up: u64,
    /// Packets while counting.
    pub packets: u64,
    /// 1: both connections on one worker thread; 2: the receiver on a second one.
    pub workers: usize,
}

/// The workers' allocations while they carried [`Plan::packets`] packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// Number of allocations.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Packet lengths of a tunnel, with which reads end anywhere in a frame.
pub const MIXED: &[usize] = &[40, 1200, 1200, 333, 1420, 64, 900, 1280, 8, 1];

/// Rows that show that a worker allocates nothing after the warm-up.
///
/// # Errors
/// A socket failed, or a packet did not arrive.
pub fn rows(settings: &Settings, name: &str) -> anyhow::Result<Vec<Row>> {
    let packets = if settings.quick { 20_000 } else { 200_000 };
    [(false, "TCP"), (true, "TLS 1.3")]
        .map(|(tls, label)| {
            let plan = Plan { tls, lengths: MIXED, warm_up: packets / 4, packets, workers: 1 };
            let allocated = run(&plan)?;
            let per_packet = |n: u64| n as f64 / packets as f64;
            let mut row = Row {
                name: format!("{name}, {label}"),
                load: format!("{packets} packets of 1 to 1,420 B between two connections on one warm worker"),
                unit: "allocations a packet".to_owned(),
                ours: vec![per_packet(allocated.count)],
                goal: "0".to_owned(),
                ours_at_most: Some(0.0),
                ..Row::default()
            };
            row.add("bytes allocated a packet", number(per_packet(allocated.bytes)), "");
            assert!(allocated.count == 0, "the packet path allocates: {allocated:?}");
            Ok(row)
        })
        .into_iter()
        .collect()
}

/// Carries the packets of the plan.
///
/// # Errors
/// A socket failed, or a packet did not arrive.
pub fn run(plan: &Plan) -> anyhow::Result<Allocated> {
    // All workers of a process exchange buffers, so only one run at a time may use them.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let relay = Arc::new(relay());
    let identity = plan.tls.then(|| identity(&relay)).transpose()?;
    let [sender, receiver] = [Party::new(&relay)?, Party::new(&relay)?];
    let to = receiver.peer.key;
    let clients = [sender.client.try_clone()?, receiver.client.try_clone()?];
    let parties =
        if plan.workers == 1 { vec![vec![sender, receiver]] } else { vec![vec![sender], vec![receiver]] };
    let phase = Arc::new(Phase::new(parties.len()));
    let server = identity.as_ref().map(|(server, _)| Arc::clone(server));
    let mut workers = Vec::new();
    for (index, parties) in parties.into_iter().enumerate() {
        let (relay, server, phase) = (Arc::clone(&relay), server.clone(), Arc::clone(&phase));
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        workers.push(thread::spawn(move || work(&runtime, parties, &relay, server, &phase, index)));
    }
    let clients = clients.map(SmallWrites);
    let sent = match identity {
        None => send(Ok(clients.into()), to, plan, &phase),
        Some((_, client)) => {
            let dress = |tcp| anyhow::Ok(StreamOwned::new(client_connection(&client)?, tcp));
            send(clients.map(dress).into_iter().collect(), to, plan, &phase)
        }
    };
    // The workers must end even if the packets failed.
    phase.finish(sent.is_err());
    let mut total = Allocated::default();
    for worker in workers {
        let allocated = worker.join().ok().context("a worker panicked")??;
        total.count += allocated.count;
        total.bytes += allocated.bytes;
    }
    sent.map(|()| total)
}

/// Tells the workers when to count.
struct Phase {
    warm: Vec<Notify>,
    done: Vec<Notify>,
    counting: Barrier,
    counted: AtomicBool,
}

impl Phase {
    fn new(workers: usize) -> Self {
        let notifies = || (0..workers).map(|_| Notify::new()).collect();
        Self {
            warm: notifies(),
            done: notifies(),
            counting: Barrier::new(workers + 1),
            counted: AtomicBool::new(false),
        }
    }

    /// Lets the workers count; when this returns, all of them do.
    fn count(&self) {
        self.counted.store(true, Ordering::Relaxed);
        self.warm.iter().for_each(Notify::notify_one);
        self.counting.wait();
    }

    fn finish(&self, failed: bool) {
        if failed && !self.counted.load(Ordering::Relaxed) {
            self.count();
        }
        self.done.iter().for_each(Notify::notify_one);
        self.counting.wait();
    }
}

/// Both ends of one connection: the client's and the relay's.
struct Party {
    peer: Arc<Peer>,
    server: TcpStream,
    client: TcpStream,
}

impl Party {
    fn new(relay: &Relay) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, remote) = listener.accept()?;
        server.set_nonblocking(true)?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_nodelay(true)?;
        let id = relay.next_conn();
        let mut key = [0xaa; 32];
        key[..8].copy_from_slice(&id.0.to_be_bytes());
        let peer = Arc::new(Peer::new(NodePublic::from_bytes(key), id, remote));
        let _ = relay.router.login(&peer, 0)?;
        Ok(Self { peer, server, client })
    }
}

/// A worker's thread: its own runtime with the connections of these parties.
fn work(
    runtime: &Runtime,
    parties: Vec<Party>,
    relay: &Arc<Relay>,
    tls: Option<Arc<ServerConfig>>,
    phase: &Phase,
    index: usize,
) -> anyhow::Result<Allocated> {
    // The clients' ends stay open until the count is done, because closing a connection allocates.
    let mut clients = Vec::new();
    let started = runtime.block_on(async {
        for Party { peer, server, client } in parties {
            clients.push(client);
            let tcp = tokio::net::TcpStream::from_std(server)?;
            match &tls {
                None => start(PlainStream::new(tcp), peer, relay),
                Some(config) => start(TlsStream::new(tcp, Arc::clone(config))?, peer, relay),
            }
        }
        phase.warm[index].notified().await;
        anyhow::Ok(())
    });
    phase.counting.wait();
    let counted = allocation_counter::measure(|| runtime.block_on(phase.done[index].notified()));
    phase.counting.wait();
    started?;
    Ok(Allocated { count: counted.count_total, bytes: counted.bytes_total })
}

fn start<S: Stream + 'static>(stream: S, peer: Arc<Peer>, relay: &Arc<Relay>) {
    let connection = Connection::new(stream, Reader::new(0), peer, Arc::clone(relay));
    tokio::spawn(connection);
}

/// Sends from the first stream and receives on the second, window by window.
fn send<T: Read + Write>(
    streams: anyhow::Result<Vec<T>>,
    to: NodePublic,
    plan: &Plan,
    phase: &Phase,
) -> anyhow::Result<()> {
    let mut streams = streams?;
    let (Some(mut receiver), Some(mut sender)) = (streams.pop(), streams.pop()) else { return Ok(()) };
    // Reads and writes make the handshake, so the receiver's handshake happens before any packet is for it.
    receiver.write_all(&note_preferred())?;
    receiver.flush()?;
    let mut lengths = plan.lengths.iter().copied().cycle();
    let mut buffer = vec![0; 64 * 1024];
    let mut carry = |packets: u64, windows: u64| -> anyhow::Result<()> {
        let (window, window_bytes) = (WINDOW * windows, WINDOW_BYTES * windows as usize);
        let mut left = packets;
        while left > 0 {
            let (mut count, mut bytes, mut expected) = (0, 0, 0);
            while count < left.min(window) && bytes < window_bytes {
                let length = lengths.next().unwrap_or_default();
                let frame = send_packet(&to, length);
                // Over TLS, each packet is one record, as clients send them.
                sender.write_all(&frame)?;
                (count, bytes, expected) = (count + 1, bytes + length, expected + frame.len());
            }
            sender.flush()?;
            while expected > 0 {
                expected -= match receiver.read(&mut buffer)? {
                    0 => anyhow::bail!("the relay closed a connection"),
                    n => n.min(expected),
                };
            }
            left -= count;
        }
        Ok(())
    };
    carry(plan.warm_up, WARM_UP_WINDOWS)?;
    phase.count();
    carry(plan.packets, 1)
}

fn send_packet(to: &NodePublic, length: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    FromClient::SendPacket { dest: to, payload: &vec![0x5a; length] }.encode(&mut frame);
    frame
}

fn note_preferred() -> Vec<u8> {
    let mut frame = Vec::new();
    FromClient::NotePreferred(true).encode(&mut frame);
    frame
}

fn relay() -> Relay {
    let key = NodePrivate::from_bytes([7; 32]);
    Relay::new(Router::new(Limits::default(), None), Counters::default(), key, Duration::ZERO, u64::MAX)
}

/// The daemon's TLS configuration, and the configuration of a client that trusts it.
fn identity(relay: &Relay) -> anyhow::Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
    let dir = tempfile::tempdir()?;
    let now = SystemTime::now();
    let certificate = files::make(&CertificatePaths::new(dir.path(), HOST), HOST, now.into())?;
    let mut roots = RootCertStore::empty();
    certificate.chain.iter().try_for_each(|certificate| roots.add(certificate.clone()))?;
    let meta = meta::certificate(&relay.public, now.into())?;
    let server = tls::server_config(certificate, meta, HOST, TlsRecords::Own)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok((server, Arc::new(client.with_root_certificates(roots).with_no_client_auth())))
}

fn client_connection(config: &Arc<ClientConfig>) -> anyhow::Result<ClientConnection> {
    Ok(ClientConnection::new(Arc::clone(config), HOST.try_into()?)?)
}
