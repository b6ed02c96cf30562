//! The DERP login of a client, over any stream of the tests and the benchmark.
//!
//! It checks what stock clients do not check: the whole answer to the upgrade, that ServerKey comes first and
//! holds the key that was announced, and that ServerInfo comes second and opens.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use rand_core::{OsRng, RngCore as _};
use relay_common::{
    derp::{
        NONCE_LEN, PROTOCOL_VERSION,
        frame::Header,
        info::{ClientInfo, ServerInfo},
        login,
    },
    key::{NodePrivate, NodePublic},
};

/// A received frame.
pub type Frame = (Header, Vec<u8>);

/// What a login needs of a stream.
pub trait LoginStream {
    /// Writes all of `bytes`.
    fn send(&mut self, bytes: &[u8]) -> Result<()>;

    /// Waits for an HTTP head, and returns it with its empty line.
    fn head(&mut self) -> Result<String>;

    /// Waits for the next frame.
    fn frame(&mut self) -> Result<Frame>;
}

/// Upgrades the stream as a client that does not know the relay's key; returns that key.
pub fn greet(stream: &mut impl LoginStream, addr: SocketAddr) -> Result<NodePublic> {
    stream.send(&request(addr, false))?;
    let announced = upgraded(&stream.head()?)?;
    expect_key(stream, announced)
}

/// Logs in after [`greet`].
pub fn log_in(stream: &mut impl LoginStream, key: &NodePrivate, server: &NodePublic) -> Result<()> {
    stream.send(&client_info(key, server)?)?;
    expect_info(stream, key, server)
}

/// Upgrades and logs in with a fast start: request and ClientInfo are one write, and the relay must find the
/// ClientInfo behind the request.
pub fn log_in_fast(
    stream: &mut impl LoginStream,
    addr: SocketAddr,
    key: &NodePrivate,
    server: &NodePublic,
) -> Result<()> {
    stream.send(&[request(addr, true), client_info(key, server)?].concat())?;
    expect_key(stream, *server)?;
    expect_info(stream, key, server)
}

/// The request of the stock client, with the same headers.
pub fn request(addr: SocketAddr, fast: bool) -> Vec<u8> {
    let fast = if fast { "Derp-Fast-Start: 1\r\n" } else { "" };
    format!(
        "GET /derp HTTP/1.1\r\nHost: {addr}\r\nUser-Agent: Go-http-client/1.1\r\nConnection: Upgrade\r\n{fast}\
         Upgrade: DERP\r\n\r\n"
    )
    .into_bytes()
}

/// The ClientInfo frame of an ordinary client.
pub fn client_info(key: &NodePrivate, server: &NodePublic) -> Result<Vec<u8>> {
    login::client_info_frame(key, server, &ClientInfo::stock(), nonce())
        .context("the server's key makes no secret")
}

/// Random bytes for a box.
pub fn nonce() -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    OsRng.fill_bytes(&mut nonce);
    nonce
}

/// The key in the answer to the upgrade request, which must equal upstream's.
pub fn upgraded(head: &str) -> Result<NodePublic> {
    let digits = head
        .strip_prefix("HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n")
        .and_then(|rest| rest.strip_prefix(&format!("Derp-Version: {PROTOCOL_VERSION}\r\nDerp-Public-Key: ")))
        .and_then(|rest| rest.strip_suffix("\r\n\r\n"))
        .with_context(|| format!("not the upgrade answer: {head:?}"))?;
    Ok(format!("{}{digits}", NodePublic::PREFIX).parse()?)
}

fn expect_key(stream: &mut impl LoginStream, announced: NodePublic) -> Result<NodePublic> {
    let (header, payload) = stream.frame().context("no ServerKey")?;
    let server = login::parse_server_key(header, &payload)?;
    ensure!(server == announced, "ServerKey is not the key that was announced");
    Ok(server)
}

fn expect_info(stream: &mut impl LoginStream, key: &NodePrivate, server: &NodePublic) -> Result<()> {
    let (header, payload) = stream.frame().context("no ServerInfo")?;
    let info = login::parse_server_info(header, &payload, key, server)?;
    ensure!(info == ServerInfo { version: PROTOCOL_VERSION.into(), ..info }, "not our protocol version");
    Ok(())
}
