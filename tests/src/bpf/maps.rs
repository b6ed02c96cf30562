//! Map values as plain bytes.
//!
//! aya accepts only types with its own marker trait, and implementing that takes `unsafe`. Byte arrays have
//! the trait, and bytemuck casts every shared value to a byte array.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, PerCpuArray},
};
use bytemuck::{AnyBitPattern, NoUninit, bytes_of, pod_read_unaligned};

/// Reads the value at `index` of an ARRAY of values of `N` bytes.
pub fn array_value<T: AnyBitPattern, const N: usize>(ebpf: &Ebpf, map: &str, index: u32) -> Result<T> {
    let map = ebpf.map(map).with_context(|| format!("no map {map}"))?;
    let bytes: [u8; N] = Array::try_from(map)?.get(&index, 0)?;
    Ok(pod_read_unaligned(&bytes))
}

/// Writes the value at `index` of an ARRAY of values of `N` bytes.
pub fn set_array_value<T: NoUninit, const N: usize>(
    ebpf: &mut Ebpf,
    map: &str,
    index: u32,
    value: &T,
) -> Result<()> {
    let map = ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
    let bytes: [u8; N] = bytes_of(value).try_into()?;
    Array::<_, [u8; N]>::try_from(map)?.set(index, bytes, 0)?;
    Ok(())
}

/// Reads every CPU's value at `index` of a PERCPU_ARRAY of values of `N` bytes.
pub fn own_values<T: AnyBitPattern, const N: usize>(ebpf: &Ebpf, map: &str, index: u32) -> Result<Vec<T>> {
    let map = ebpf.map(map).with_context(|| format!("no map {map}"))?;
    let values = PerCpuArray::<_, [u8; N]>::try_from(map)?.get(&index, 0)?;
    Ok(values.iter().map(|bytes| pod_read_unaligned(bytes)).collect())
}
