//! Login: how a client proves its key, as in upstream's `derp/derpserver`.
//!
//! ```text
//!   server                                client
//!     | -- ServerKey ------------------------> |
//!     | <------------------ ClientInfo, sealed |     ExpectInfo -> Ready
//!     | -- ServerInfo, sealed ---------------> |
//! ```
//!
//! The client's key is claimed in clear and proved by the box: only its holder can seal one that opens under
//! it. There is no error frame; whatever goes wrong, the server closes the connection. No I/O and no clock in
//! here.

mod client;

pub use client::{ClientLoginError, client_info_frame, parse_server_info, parse_server_key};

use super::{
    LOGIN_TIMEOUT_NS, MAX_CLIENT_INFO, NONCE_LEN,
    frame::{FrameType, Header},
    info::{ClientInfo, InfoError, ServerInfo},
    message::{FromClient, FromServer},
};
use crate::key::{NodePrivate, NodePublic, NodeShared};

/// A server that has sent its key and waits for the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectInfo {
    deadline_ns: u64,
}

/// A client whose key is proved. Whether it may stay is for the access rules to say.
#[derive(Debug)]
pub struct Ready {
    /// The client's key.
    pub key: NodePublic,
    /// What it said about itself.
    pub info: ClientInfo,
    /// The box between the server and it: computing it costs more than the rest of a login together.
    pub shared: NodeShared,
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The application name is not one.
    #[error("invalid application name")]
    BadAppName,
    /// The box was not sealed by this key for ours.
    #[error("the sealed client info does not open")]
    BadBox,
    /// The body is not the JSON it should be.
    #[error("client info: {0}")]
    BadJson(serde_json::Error),
    /// Not done within ten seconds.
    #[error("no client info in time")]
    Timeout,
    /// The frame is longer than any client info.
    #[error("client info of {0} bytes is too long")]
    TooLong(usize),
    /// The frame does not even hold key and nonce.
    #[error("client info of {0} bytes is too short")]
    TooShort(usize),
    /// Another frame came instead.
    #[error("frame of type {0:#04x} instead of client info")]
    UnexpectedFrame(u8),
    /// The key is zero, or another that makes no secret.
    #[error("client key is zero")]
    ZeroKey,
}

impl ExpectInfo {
    /// From the moment the ServerKey frame is written; times are nanoseconds of any monotonic clock.
    pub const fn new(now_ns: u64) -> Self {
        Self { deadline_ns: now_ns.saturating_add(LOGIN_TIMEOUT_NS) }
    }

    /// When to give up.
    pub const fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Fails once the time is up; for the sweep over connections that say nothing.
    ///
    /// # Errors
    /// [`LoginError::Timeout`].
    pub const fn check(&self, now_ns: u64) -> Result<(), LoginError> {
        if now_ns >= self.deadline_ns { Err(LoginError::Timeout) } else { Ok(()) }
    }

    /// Takes the client's first frame. [`limits::login`](super::limits::login) keeps others away before they
    /// are read.
    ///
    /// # Errors
    /// The time is up, or the frame is not a ClientInfo that proves its key.
    pub fn on_frame(
        self,
        header: Header,
        payload: &[u8],
        server: &NodePrivate,
        now_ns: u64,
    ) -> Result<Ready, LoginError> {
        self.check(now_ns)?;
        if header.frame_type() != Some(FrameType::ClientInfo) {
            return Err(LoginError::UnexpectedFrame(header.kind));
        }
        if payload.len() > MAX_CLIENT_INFO {
            return Err(LoginError::TooLong(payload.len()));
        }
        let Ok(FromClient::ClientInfo { key, sealed }) = FromClient::parse(header, payload) else {
            return Err(LoginError::TooShort(payload.len()));
        };
        if key.is_zero() {
            return Err(LoginError::ZeroKey);
        }
        let shared = server.shared(key).ok_or(LoginError::BadBox)?;
        let json = shared.open(sealed).ok_or(LoginError::BadBox)?;
        let info = ClientInfo::from_json(&json).map_err(|error| match error {
            InfoError::AppName(_) => LoginError::BadAppName,
            InfoError::Json(error) => LoginError::BadJson(error),
        })?;
        Ok(Ready { key: *key, info, shared })
    }
}

/// The ServerKey frame: the first bytes of every DERP stream.
pub fn server_key_frame(server: &NodePublic) -> Vec<u8> {
    let message = FromServer::ServerKey { key: server };
    let mut frame = Vec::with_capacity(message.encoded_len());
    message.encode(&mut frame);
    frame
}

/// The ServerInfo frame for a client that is [`Ready`]. A nonce must never be used twice.
pub fn server_info_frame(shared: &NodeShared, info: &ServerInfo, nonce: [u8; NONCE_LEN]) -> Vec<u8> {
    let sealed = shared.seal(nonce, &info.to_json());
    let message = FromServer::ServerInfo { sealed: &sealed };
    let mut frame = Vec::with_capacity(message.encoded_len());
    message.encode(&mut frame);
    frame
}

#[cfg(test)]
mod tests;
