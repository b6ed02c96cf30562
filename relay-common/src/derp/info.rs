//! The JSON inside ClientInfo and ServerInfo, read as Go's `encoding/json` reads it.
//!
//! Member names match without regard to case, unknown members are ignored, the last of several duplicates
//! counts, `null` leaves a value unchanged, and invalid UTF-8 is replaced. The written JSON equals Go's
//! output byte for byte (`derp/derp.go`).

mod app_name;
mod fields;

pub use app_name::{AppName, AppNameError};

use super::PROTOCOL_VERSION;
use crate::key::MeshKey;
use serde::Serialize;

/// What a client tells the server about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClientInfo {
    /// The mesh key, if the client claims to hold it.
    #[serde(rename = "meshKey", skip_serializing_if = "Option::is_none")]
    pub mesh_key: Option<MeshKey>,
    /// Protocol version.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: i64,
    /// Whether the client answers Ping frames.
    #[serde(rename = "CanAckPings")]
    pub can_ack_pings: bool,
    /// Whether the client is a prober.
    #[serde(rename = "IsProber", skip_serializing_if = "is_false")]
    pub is_prober: bool,
    /// Label that the client chooses; empty for stock clients.
    #[serde(rename = "AppName", skip_serializing_if = "AppName::is_empty")]
    pub app_name: AppName,
}

/// What a server tells the client about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerInfo {
    /// Protocol version.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: i64,
    /// Rate, in bytes per second, above which the client drops its own packets; 0: no limit.
    #[serde(rename = "TokenBucketBytesPerSecond", skip_serializing_if = "is_zero")]
    pub rate_bytes: i64,
    /// Burst of that rate, in bytes.
    #[serde(rename = "TokenBucketBytesBurst", skip_serializing_if = "is_zero")]
    pub burst_bytes: i64,
}

/// Why a text is not a ClientInfo or ServerInfo.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    /// Not the expected JSON, or a mesh key that is not 64 hex digits.
    #[error("not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An application name that upstream also refuses.
    #[error(transparent)]
    AppName(#[from] AppNameError),
}

impl ClientInfo {
    /// The ClientInfo of a stock client of our protocol version.
    pub fn stock() -> Self {
        Self { version: PROTOCOL_VERSION.into(), can_ack_pings: true, ..Self::default() }
    }

    /// Reads the JSON of a ClientInfo frame.
    ///
    /// # Errors
    /// The text is not JSON, a field has the wrong type, or the application name is not valid.
    pub fn from_json(json: &[u8]) -> Result<Self, InfoError> {
        let fields: fields::ClientFields = serde_json::from_str(&String::from_utf8_lossy(json))?;
        Ok(Self {
            mesh_key: fields.mesh_key,
            version: fields.version,
            can_ack_pings: fields.can_ack_pings,
            is_prober: fields.is_prober,
            app_name: AppName::new(&fields.app_name)?,
        })
    }

    /// Writes the JSON of a ClientInfo frame.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }
}

impl ServerInfo {
    /// The ServerInfo of upstream's server: the version and no rate.
    pub fn stock() -> Self {
        Self { version: PROTOCOL_VERSION.into(), ..Self::default() }
    }

    /// Reads the JSON of a ServerInfo frame.
    ///
    /// # Errors
    /// The text is not JSON, or a field has the wrong type.
    pub fn from_json(json: &[u8]) -> Result<Self, InfoError> {
        let fields::ServerFields(info) = serde_json::from_str(&String::from_utf8_lossy(json))?;
        Ok(info)
    }

    /// Writes the JSON of a ServerInfo frame.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Writing numbers, booleans and strings to memory cannot fail. The peer would refuse an empty body.
    serde_json::to_vec(value).unwrap_or_default()
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests;
