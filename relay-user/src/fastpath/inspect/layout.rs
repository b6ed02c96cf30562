//! Checks that a map has the layout that this daemon was compiled for. aya 0.14 opens a pinned map of any
//! size, and a read then lets the kernel write past the value. So every map is checked here before its first
//! use, both loaded and pinned ones.

use std::fmt;

use aya::maps::{Map, MapData, MapError, MapInfo, MapType};
use relay_common::fastpath::{Config, NextHopEntry, ReasonCount, SessionEntry, SessionStats, map};

/// `BPF_F_MMAPABLE` of the kernel's `bpf.h`: the array can be mapped.
const MAPPABLE: u32 = 1 << 10;

/// Type, key size and value size, in bytes, and whether the map can be mapped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::fastpath) struct Shape {
    kind: MapType,
    key: u32,
    value: u32,
    mappable: bool,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with keys of {} and values of {} bytes", self.kind, self.key, self.value)?;
        f.write_str(if self.mappable { " that can be mapped" } else { "" })
    }
}

/// Why a map must not be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::fastpath) enum LayoutError {
    /// The map has another shape than the compiled one.
    #[error("map {name} is a {found}, expected a {expected}")]
    Differs {
        /// The map's name.
        name: String,
        /// The actual shape.
        found: Shape,
        /// The expected shape.
        expected: Shape,
    },
    /// No map of this daemon has that name.
    #[error("map {0} is not one of relayd's")]
    Unknown(String),
    /// The kernel did not report the shape.
    #[error(transparent)]
    Kernel(#[from] MapError),
}

/// Checks a map that has been opened or created.
pub(in crate::fastpath) fn check(name: &str, found: &Map) -> Result<(), LayoutError> {
    let (Map::HashMap(data) | Map::Array(data) | Map::PerCpuArray(data)) = found else {
        return Err(LayoutError::Unknown(name.to_owned()));
    };
    check_data(name, data)
}

/// Checks a map that has been opened.
pub(in crate::fastpath) fn check_data(name: &str, data: &MapData) -> Result<(), LayoutError> {
    compare(name, shape(&data.info()?)?)
}

fn shape(info: &MapInfo) -> Result<Shape, MapError> {
    let mappable = info.map_flags() & MAPPABLE != 0;
    Ok(Shape { kind: info.map_type()?, key: info.key_size(), value: info.value_size(), mappable })
}

fn compare(name: &str, found: Shape) -> Result<(), LayoutError> {
    let expected = expected(name).ok_or_else(|| LayoutError::Unknown(name.to_owned()))?;
    if found == expected {
        return Ok(());
    }
    Err(LayoutError::Differs { name: name.to_owned(), found, expected })
}

fn expected(name: &str) -> Option<Shape> {
    let (kind, value) = match name {
        map::SESSIONS => (MapType::Hash, size_of::<SessionEntry>()),
        map::NEXTHOPS => (MapType::Array, size_of::<NextHopEntry>()),
        map::LEG_STATS => (MapType::Array, size_of::<SessionStats>()),
        map::REASONS => (MapType::PerCpuArray, size_of::<ReasonCount>()),
        map::CONFIG => (MapType::Array, size_of::<Config>()),
        _ => return None,
    };
    let mappable = [map::NEXTHOPS, map::LEG_STATS].contains(&name);
    Some(Shape { kind, key: 4, value: u32::try_from(value).ok()?, mappable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_map_has_a_shape_and_others_have_none() {
        for name in crate::fastpath::pins::PINNED {
            assert!(expected(name).is_some(), "{name}");
        }
        assert!(matches!(
            compare("OTHER", Shape { kind: MapType::Hash, key: 4, value: 4, mappable: false }),
            Err(LayoutError::Unknown(_))
        ));
    }

    #[test]
    fn another_value_size_type_or_key_is_refused_with_both_shapes() {
        let good = expected(map::SESSIONS).expect("a map of ours");
        assert!(compare(map::SESSIONS, good).is_ok());
        for bad in [
            Shape { value: good.value + 8, ..good },
            Shape { key: 8, ..good },
            Shape { kind: MapType::LruHash, ..good },
            Shape { mappable: true, ..good },
        ] {
            let error = compare(map::SESSIONS, bad).expect_err("refused").to_string();
            assert!(error.contains(&bad.to_string()) && error.contains(&good.to_string()), "{error}");
        }
    }
}
