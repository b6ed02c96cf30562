//! Deserialization by Go's rules, which serde's derive does not follow.

use super::ServerInfo;
use crate::key::MeshKey;
use core::fmt;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use std::borrow::Cow;

/// The fields of a ClientInfo before the name is checked.
#[derive(Default)]
pub(super) struct ClientFields {
    pub(super) mesh_key: Option<MeshKey>,
    pub(super) version: i64,
    pub(super) can_ack_pings: bool,
    pub(super) is_prober: bool,
    pub(super) app_name: String,
}

/// The fields of a ServerInfo.
#[derive(Default)]
pub(super) struct ServerFields(pub(super) ServerInfo);

/// Reads one JSON object, member by member.
trait Fields: Default {
    /// Reads the value of the member called `name`, which is in lower case.
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

impl Fields for ClientFields {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            // Upstream's key type parses itself, so `null` is an error here and is not ignored.
            "meshkey" => self.mesh_key = Some(map.next_value()?),
            "version" => set(&mut self.version, map)?,
            "canackpings" => set(&mut self.can_ack_pings, map)?,
            "isprober" => set(&mut self.is_prober, map)?,
            "appname" => set(&mut self.app_name, map)?,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl Fields for ServerFields {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "version" => set(&mut self.0.version, map)?,
            "tokenbucketbytespersecond" => set(&mut self.0.rate_bytes, map)?,
            "tokenbucketbytesburst" => set(&mut self.0.burst_bytes, map)?,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for ClientFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Object(Self::default()))
    }
}

impl<'de> Deserialize<'de> for ServerFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Object(Self::default()))
    }
}

struct Object<F>(F);

impl<'de, F: Fields> Visitor<'de> for Object<F> {
    type Value = F;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<F, A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            self.0.member(&fold(&name), &mut map)?;
        }
        Ok(self.0)
    }

    fn visit_unit<E: Error>(self) -> Result<F, E> {
        Ok(self.0)
    }
}

/// Overwrites `field`, unless the value is null.
fn set<'de, T: Deserialize<'de>, A: MapAccess<'de>>(field: &mut T, map: &mut A) -> Result<(), A::Error> {
    if let Some(value) = map.next_value()? {
        *field = value;
    }
    Ok(())
}

/// Converts to lower case as Go's decoder folds names: ASCII letters, and the two other letters whose simple
/// case folding is ASCII.
fn fold(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}
