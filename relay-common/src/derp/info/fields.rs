//! Deserialization by Go's rules, which serde's derive does not follow.

use super::ServerInfo;
use crate::key::MeshKey;
use core::fmt;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use std::borrow::Cow;

/// ClientInfo before its name is checked.
#[derive(Default)]
pub(super) struct ClientFields {
    pub(super) mesh_key: Option<MeshKey>,
    pub(super) version: i64,
    pub(super) can_ack_pings: bool,
    pub(super) is_prober: bool,
    pub(super) app_name: String,
}

/// ServerInfo as read.
#[derive(Default)]
pub(super) struct ServerFields(pub(super) ServerInfo);

/// One JSON object, member by member.
trait Fields: Default {
    /// Takes the value of the member of this name, in lower case.
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

impl Fields for ClientFields {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            // Upstream's key type reads itself, so null is not passed over but refused.
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

/// Lower case as Go's decoder folds names: ASCII, and the two other letters whose simple case folding is
/// ASCII.
fn fold(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}
