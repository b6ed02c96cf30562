//! From an address to another relay's key: TCP, TLS, the upgrade to DERP, ServerKey. Then the login of a
//! relay.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rand_core::{OsRng, RngCore};
use relay_common::derp::deframer::Deframer;
use relay_common::derp::info::ClientInfo;
use relay_common::derp::limits::{self, FrameError};
use relay_common::derp::login::{ClientLoginError, client_info_frame, parse_server_key};
use relay_common::derp::message::FromClient;
use relay_common::key::{NONCE_LEN, NodePublic};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::cli::mesh_with::MeshHost;
use crate::relay::Relay;
use crate::transport::tls::stream::TlsStream;
use crate::transport::{NOT_SENT_BYTES, recv_into, send_all};

/// Longest head of an answer that is read; derper's has about 200 bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Most header lines of an answer.
const MAX_HEADERS: usize = 64;

/// How to reach one relay of `-mesh-with`.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its entry.
    pub host: MeshHost,
    /// The name that its certificate must have.
    pub name: ServerName<'static>,
    /// Which certificates are accepted.
    pub tls: Arc<ClientConfig>,
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// No TLS: most often a certificate that is not trusted.
    #[error("TLS: {0}")]
    Tls(TlsFailure),
    /// The connection failed before the relay had told its key.
    #[error("transport: {0}")]
    Io(#[from] io::Error),
    /// The answer is not HTTP.
    #[error("the answer is not HTTP: {0}")]
    Malformed(httparse::Error),
    /// The answer is not an upgrade to DERP.
    #[error("the answer to GET /derp is HTTP status {0}, not the upgrade to DERP")]
    NotDerp(u16),
    /// The first frame is not a ServerKey.
    #[error(transparent)]
    Key(#[from] ClientLoginError),
    /// The first frame is too long.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A failed TLS handshake, and the remedy where there is one.
#[derive(Debug)]
pub struct TlsFailure(io::Error);

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let cause = self.0.get_ref().and_then(|cause| cause.downcast_ref());
        match cause {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(wrong))) => write!(f, ": {wrong}"),
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => f.write_str(
                "; if the certificate is right, name its authority in SSL_CERT_FILE or pin it with --mesh-pin",
            ),
            Some(rustls::Error::AlertReceived(AlertDescription::AccessDenied)) => {
                f.write_str("; is HOST of -mesh-with the -hostname of that relay?")
            }
            _ => Ok(()),
        }
    }
}

/// A connection to another relay that has told its key and waits for ClientInfo.
#[derive(Debug)]
pub struct Reached {
    /// The connection.
    pub stream: TlsStream,
    /// The relay's key.
    pub server: NodePublic,
    /// Goes on behind ServerKey.
    pub deframer: Deframer,
    /// Bytes that followed ServerKey.
    pub rest: Vec<u8>,
}

/// Dials `addr`. The caller sets a limit in time by dropping the future.
///
/// # Errors
/// What failed, in words for the operator.
pub async fn dial(peer: &Peer, addr: SocketAddr) -> Result<Reached, DialError> {
    let tcp = TcpStream::connect(addr).await.map_err(DialError::Connect)?;
    tcp.set_nodelay(true).map_err(DialError::Connect)?;
    SockRef::from(&tcp).set_tcp_notsent_lowat(NOT_SENT_BYTES).map_err(DialError::Connect)?;
    let tls = |error: io::Error| DialError::Tls(TlsFailure(error));
    let stream = TlsStream::dial(tcp, Arc::clone(&peer.tls), peer.name.clone());
    let mut stream = stream.map_err(|error| tls(io::Error::other(error)))?;
    let mut read = Vec::new();
    while stream.is_handshaking() {
        recv_into(&mut stream, &mut read).await.map_err(tls)?;
    }
    send_all(&mut stream, request(&peer.host).as_bytes()).await?;
    while !skip_head(&mut read)? {
        recv_into(&mut stream, &mut read).await?;
    }
    let mut deframer = Deframer::new();
    loop {
        let mut input = read.as_slice();
        let key = deframer.pull(&mut input, limits::client, parse_server_key)?;
        if let Some(server) = key {
            let rest = input.to_vec();
            return Ok(Reached { stream, server: server?, deframer, rest });
        }
        read.clear();
        recv_into(&mut stream, &mut read).await?;
    }
}

/// Logs in as this relay, and asks for the news of all clients there.
///
/// # Errors
/// The transport failed, or the relay's key is not one.
pub async fn log_in(reached: &mut Reached, relay: &Relay) -> io::Result<()> {
    let mut nonce = [0; NONCE_LEN];
    OsRng.fill_bytes(&mut nonce);
    // Upstream's relays say of themselves that they answer no Ping, so nobody asks them.
    let info = ClientInfo { mesh_key: relay.mesh.key.clone(), can_ack_pings: false, ..ClientInfo::stock() };
    let frames = client_info_frame(&relay.key, &reached.server, &info, nonce);
    let mut frames = frames.ok_or_else(|| io::Error::other("the relay's key makes no secret"))?;
    FromClient::WatchConns.encode(&mut frames);
    send_all(&mut reached.stream, &frames).await
}

fn request(host: &MeshHost) -> String {
    format!(
        "GET /derp HTTP/1.1\r\nHost: {}\r\nUser-Agent: relayd/{}\r\nConnection: Upgrade\r\n\
         Upgrade: DERP\r\n\r\n",
        host.authority(),
        env!("CARGO_PKG_VERSION")
    )
}

/// Removes the head of the answer from `read`, if it has arrived whole.
fn skip_head(read: &mut Vec<u8>) -> Result<bool, DialError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let window = &read[..read.len().min(MAX_HEAD_BYTES)];
    match answer.parse(window).map_err(DialError::Malformed)? {
        httparse::Status::Complete(len) => {
            let code = answer.code.unwrap_or_default();
            let is_derp = |header: &httparse::Header<'_>| {
                header.name.eq_ignore_ascii_case("upgrade") && header.value.eq_ignore_ascii_case(b"derp")
            };
            if code != 101 || !answer.headers.iter().any(is_derp) {
                return Err(DialError::NotDerp(code));
            }
            read.drain(..len);
            Ok(true)
        }
        httparse::Status::Partial if read.len() >= MAX_HEAD_BYTES => {
            Err(DialError::Malformed(httparse::Error::TooManyHeaders))
        }
        httparse::Status::Partial => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(text: &str) -> (Result<bool, DialError>, usize) {
        let mut read = text.as_bytes().to_vec();
        (skip_head(&mut read), read.len())
    }

    #[test]
    fn only_an_upgrade_to_derp_is_taken() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: derp\r\n\r\n";
        assert!(matches!(skip(&format!("{head}rest")), (Ok(true), 4)));
        assert!(matches!(skip(&head[..head.len() - 1]), (Ok(false), _)), "not whole");
        assert!(matches!(skip("HTTP/1.1 404 Not Found\r\n\r\n"), (Err(DialError::NotDerp(404)), _)));
        let other = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        assert!(matches!(skip(other), (Err(DialError::NotDerp(101)), _)));
        assert!(matches!(skip("SSH-2.0-x\r\n"), (Err(DialError::Malformed(_)), _)));
        let endless = format!("HTTP/1.1 101 x\r\na: {}", "b".repeat(MAX_HEAD_BYTES));
        assert!(matches!(skip(&endless), (Err(DialError::Malformed(_)), _)), "too long");
    }
}
