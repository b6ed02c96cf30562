//! Login: how a client proves that it owns its key, as in upstream's `derp/derpserver`.
//!
//! ```text
//!   server                                client
//!     | -- ServerKey ------------------------> |
//!     | <------------------ ClientInfo, sealed |     ExpectInfo -> Ready
//!     | -- ServerInfo, sealed ---------------> |
//! ```
//!
//! The client sends its key in clear, and the box proves it: only the owner of the private key can seal a box
//! that opens with the public key. DERP has no error frame; on any error the server closes the connection.
//! This module does no I/O and reads no clock.

mod client;

pub use client::{ClientLoginError, client_info_frame, parse_server_info, parse_server_key};

use super::{
    LOGIN_TIMEOUT_NS, MAX_CLIENT_INFO, NONCE_LEN,
    frame::{FrameType, Header},
    info::{ClientInfo, InfoError, ServerInfo},
    message::{FromClient, FromServer},
};
use crate::key::{NodePrivate, NodePublic, NodeShared};

/// A server that has sent its key and waits for ClientInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectInfo {
    deadline_ns: u64,
}

/// A client whose key is proved. The access rules decide whether it may stay.
#[derive(Debug)]
pub struct Ready {
    /// The client's key.
    pub key: NodePublic,
    /// What the client told the server about itself.
    pub info: ClientInfo,
    /// The box between the server and this client. Computing it costs more than all other steps of a login.
    pub shared: NodeShared,
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The application name is not valid.
    #[error("invalid application name")]
    BadAppName,
    /// The box was not sealed by this key for the server's key.
    #[error("the sealed client info does not open")]
    BadBox,
    /// The body is not the expected JSON.
    #[error("client info: {0}")]
    BadJson(serde_json::Error),
    /// The login took longer than ten seconds.
    #[error("no client info in time")]
    Timeout,
    /// The frame is longer than any ClientInfo.
    #[error("client info of {0} bytes is too long")]
    TooLong(usize),
    /// The frame is shorter than a key and a nonce.
    #[error("client info of {0} bytes is too short")]
    TooShort(usize),
    /// The first frame was not a ClientInfo.
    #[error("frame of type {0:#04x} instead of client info")]
    UnexpectedFrame(u8),
    /// The key is zero. (Other keys of small order open no box: [`LoginError::BadBox`].)
    #[error("client key is zero")]
    ZeroKey,
}

impl ExpectInfo {
    /// Starts when the ServerKey frame is written; times are nanoseconds of any monotonic clock.
    pub const fn new(now_ns: u64) -> Self {
        Self { deadline_ns: now_ns.saturating_add(LOGIN_TIMEOUT_NS) }
    }

    /// Fails after the deadline; the periodic check of silent connections calls it.
    ///
    /// # Errors
    /// [`LoginError::Timeout`].
    pub const fn check(&self, now_ns: u64) -> Result<(), LoginError> {
        if now_ns >= self.deadline_ns { Err(LoginError::Timeout) } else { Ok(()) }
    }

    /// Reads the client's first frame. [`limits::login`](super::limits::login) refuses other frames before
    /// their payload is read.
    ///
    /// # Errors
    /// The deadline is over, or the frame is not a ClientInfo that proves its key.
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
