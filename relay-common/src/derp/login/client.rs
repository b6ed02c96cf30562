//! The client's side of login, for mesh links and test clients.

use crate::{
    derp::{
        NONCE_LEN,
        frame::Header,
        info::{ClientInfo, InfoError, ServerInfo},
        message::{FromClient, FromServer, MessageError},
    },
    key::{NodePrivate, NodePublic},
};

/// Why a client rejects a server's greeting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientLoginError {
    /// The box was not sealed by the server for this client.
    #[error("the sealed server info does not open")]
    BadBox,
    /// The body is not the expected JSON.
    #[error(transparent)]
    Info(#[from] InfoError),
    /// The payload does not have the shape of its type.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The server sent a different frame.
    #[error("unexpected frame of type {0:#04x}")]
    UnexpectedFrame(u8),
}

/// The ClientInfo frame; `None` if the server's key is zero or of small order.
pub fn client_info_frame(
    client: &NodePrivate,
    server: &NodePublic,
    info: &ClientInfo,
    nonce: [u8; NONCE_LEN],
) -> Option<Vec<u8>> {
    let (key, sealed) = (client.public(), client.seal_to(server, nonce, &info.to_json())?);
    let message = FromClient::ClientInfo { key: &key, sealed: &sealed };
    let mut frame = Vec::with_capacity(message.encoded_len());
    message.encode(&mut frame);
    Some(frame)
}

/// Reads the server's key from its first frame.
///
/// # Errors
/// The frame has another type, or is not well formed.
pub fn parse_server_key(header: Header, payload: &[u8]) -> Result<NodePublic, ClientLoginError> {
    match FromServer::parse(header, payload)? {
        FromServer::ServerKey { key } => Ok(*key),
        _ => Err(ClientLoginError::UnexpectedFrame(header.kind)),
    }
}

/// Reads what the server tells about itself from its second frame.
///
/// # Errors
/// The frame has another type, does not open with these keys, or has the wrong content.
pub fn parse_server_info(
    header: Header,
    payload: &[u8],
    client: &NodePrivate,
    server: &NodePublic,
) -> Result<ServerInfo, ClientLoginError> {
    match FromServer::parse(header, payload)? {
        FromServer::ServerInfo { sealed } => {
            let json = client.open_from(server, sealed).ok_or(ClientLoginError::BadBox)?;
            Ok(ServerInfo::from_json(&json)?)
        }
        _ => Err(ClientLoginError::UnexpectedFrame(header.kind)),
    }
}
