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

/// Why a client gives up on a server's greeting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientLoginError {
    /// The box was not sealed by the server for us.
    #[error("the sealed server info does not open")]
    BadBox,
    /// The body is not the JSON it should be.
    #[error(transparent)]
    Info(#[from] InfoError),
    /// The frame has not the shape its type asks for.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Another frame came instead.
    #[error("unexpected frame of type {0:#04x}")]
    UnexpectedFrame(u8),
}

/// The ClientInfo frame; nothing if the server's key is zero or makes no secret.
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

/// The server's key from its first frame.
///
/// # Errors
/// It is another frame, or not well formed.
pub fn parse_server_key(header: Header, payload: &[u8]) -> Result<NodePublic, ClientLoginError> {
    match FromServer::parse(header, payload)? {
        FromServer::ServerKey { key } => Ok(*key),
        _ => Err(ClientLoginError::UnexpectedFrame(header.kind)),
    }
}

/// What the server says about itself, from its second frame.
///
/// # Errors
/// It is another frame, does not open with these keys, or is not what it should be.
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
