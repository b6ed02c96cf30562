//! The login: from a stream at the start of DERP to a client in the table.
//!
//! `relay_common` has the protocol as a state machine; this module drives it over a stream, under a deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand_core::{OsRng, RngCore};
use relay_common::derp::LOGIN_TIMEOUT_NS;
use relay_common::derp::deframer::Deframer;
use relay_common::derp::info::{ClientInfo, ServerInfo};
use relay_common::derp::limits::{self, FrameError};
use relay_common::derp::login::{self, ExpectInfo, LoginError, Ready};
use relay_common::derp::message::PeerPresentFlags;
use relay_common::key::NONCE_LEN;

use super::Connection;
use super::reader::Reader;
use super::sweep;
use crate::clock;
use crate::observe::counters::Counter;
use crate::relay::Relay;
use crate::route::peer::{About, Peer};
use crate::transport::parting::part;
use crate::transport::{Stream, recv_into, send_all};

/// How long a client may take from ServerKey to ClientInfo, and again to take ServerInfo (upstream's 10 s).
const DEADLINE: Duration = Duration::from_nanos(LOGIN_TIMEOUT_NS);

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginFailure {
    /// The transport failed, or the client went away.
    #[error("transport: {0}")]
    Io(#[from] io::Error),
    /// The client broke the protocol or could not prove its key.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The client's first frame is not one that starts a login.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The client took too long.
    #[error("not done within {} s", DEADLINE.as_secs())]
    Timeout,
    /// The table refused the connection.
    #[error(transparent)]
    Refused(#[from] crate::route::vocabulary::Refusal),
}

/// A client that has asked for DERP.
#[derive(Debug)]
pub struct Greeting {
    /// The answer to its request, to be sent first, in the same write.
    pub preamble: Vec<u8>,
    /// Bytes that followed the request.
    pub read: Vec<u8>,
    /// Where it connects from.
    pub remote: SocketAddr,
    /// It would prefer another relay of the region.
    pub not_ideal: bool,
}

/// Greets the client, checks its key, puts it into the table and answers ServerInfo.
///
/// # Errors
/// The login failed; the reason has been counted.
pub async fn login<S: Stream>(
    mut stream: S,
    Greeting { preamble, read, remote, not_ideal }: Greeting,
    relay: &Arc<Relay>,
) -> Result<Connection<S>, LoginFailure> {
    let result = match tokio::time::timeout(DEADLINE, handshake(&mut stream, preamble, read, relay)).await {
        Ok(result) => result,
        Err(_) => Err(LoginFailure::Timeout),
    };
    let (ready, rest) = match result {
        Ok(done) => done,
        Err(failure) => {
            count(relay, &failure);
            part(&mut stream).await;
            return Err(failure);
        }
    };
    let mut peer = Peer::new(ready.key, relay.next_conn(), remote);
    let flags = flags(&ready.info, not_ideal, relay);
    if ready.info.mesh_key.is_some() && !flags.contains(PeerPresentFlags::MESH_PEER) {
        relay.counters.add(Counter::LoginWrongMeshKey, 1);
        if let Some(left_out) = relay.mesh.strangers.note(clock::monotonic_ms()) {
            tracing::warn!(
                %remote,
                server = %ready.key,
                left_out,
                "a relay with another mesh key than ours (-mesh-psk-file) wants a link; it is served as a client"
            );
        }
    }
    peer.about = About { protocol: stream.protocol(), app_name: ready.info.app_name.clone(), flags };
    let peer = Arc::new(peer);
    sweep::begin(&peer, clock::monotonic_ms());
    let now_ns = clock::monotonic_ns();
    relay.login(&peer, now_ns).inspect_err(|_| relay.counters.add(Counter::LoginRefused, 1))?;
    relay.counters.add(Counter::Logins, 1);
    tracing::debug!(client = %ready.key, %remote, protocol = stream.protocol(), "logged in");

    let mut reader = Reader::new(now_ns);
    if flags.contains(PeerPresentFlags::MESH_PEER) {
        reader.accept_mesh();
        relay.mesh.came.notify_one();
    }
    let mut connection = Connection::new(stream, reader, Arc::clone(&peer), Arc::clone(relay));
    // Packets may be queued by now, but ServerInfo is written first: until then nothing is taken from the
    // mailbox.
    let greeted = tokio::time::timeout(DEADLINE, connection.greet(&ready, &rest)).await;
    match greeted.unwrap_or(Err(LoginFailure::Timeout)) {
        Ok(()) => Ok(connection),
        Err(failure) => {
            count(relay, &failure);
            connection.leave();
            part(&mut connection.stream).await;
            Err(failure)
        }
    }
}

/// What kind of client it is: who holds the mesh key is another relay or a tool of the operator.
fn flags(info: &ClientInfo, not_ideal: bool, relay: &Relay) -> PeerPresentFlags {
    let holds_key =
        info.mesh_key.as_ref().zip(relay.mesh.key.as_ref()).is_some_and(|(its, ours)| its.matches(ours));
    let all = [
        (holds_key, PeerPresentFlags::MESH_PEER),
        (info.is_prober, PeerPresentFlags::PROBER),
        (not_ideal, PeerPresentFlags::NOT_IDEAL),
    ];
    let set = all.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag);
    set.reduce(PeerPresentFlags::with).unwrap_or(PeerPresentFlags::REGULAR)
}

async fn handshake<S: Stream>(
    stream: &mut S,
    mut preamble: Vec<u8>,
    mut read: Vec<u8>,
    relay: &Relay,
) -> Result<(Ready, Vec<u8>), LoginFailure> {
    preamble.extend_from_slice(&login::server_key_frame(&relay.public));
    send_all(stream, &preamble).await?;
    let expect = ExpectInfo::new(clock::monotonic_ns());
    let mut deframer = Deframer::new();
    loop {
        let mut input = read.as_slice();
        let info = deframer.pull(&mut input, limits::login, |header, payload| {
            expect.on_frame(header, payload, &relay.key, clock::monotonic_ns())
        })?;
        if let Some(ready) = info {
            return Ok((ready?, input.to_vec()));
        }
        read.clear();
        recv_into(stream, &mut read).await?;
    }
}

impl<S: Stream> Connection<S> {
    async fn greet(&mut self, ready: &Ready, rest: &[u8]) -> Result<(), LoginFailure> {
        let mut nonce = [0; NONCE_LEN];
        OsRng.fill_bytes(&mut nonce);
        let info = login::server_info_frame(&ready.shared, &ServerInfo::stock(), nonce);
        send_all(&mut self.stream, &info).await?;
        // Clients do not wait for ServerInfo: bytes after ClientInfo are frames already.
        let mut turn = self.reader.turn(&self.peer, &self.relay, clock::monotonic_ns);
        let fed = turn.feed(rest);
        drop(turn);
        fed.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
        Ok(())
    }
}

fn count(relay: &Relay, failure: &LoginFailure) {
    let counter = match failure {
        LoginFailure::Io(_) => Counter::LoginTransport,
        LoginFailure::Timeout | LoginFailure::Login(LoginError::Timeout) => Counter::LoginTimeout,
        LoginFailure::Login(LoginError::BadBox) => Counter::LoginBadBox,
        LoginFailure::Login(_) | LoginFailure::Frame(_) => Counter::LoginMalformed,
        LoginFailure::Refused(_) => Counter::LoginRefused,
    };
    relay.counters.add(counter, 1);
}
