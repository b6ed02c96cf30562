//! Reads a hash map a few hundred elements at a time (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6), which aya 0.14
//! cannot.
//!
//! The kernel's place in the map is a bucket, not a key: elements that are removed meanwhile do not end or
//! restart the walk, as they do for a walk from key to key.
#![expect(unsafe_code, reason = "a system call that neither aya nor nix has")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use bytemuck::{Pod, Zeroable};
use nix::errno::Errno;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`.
const LOOKUP_BATCH: libc::c_long = 24;

/// A bucket never holds more elements than this, short of an attack on the kernel's hash.
const MOST_IN_A_BUCKET: usize = 1 << 16;

/// The part of `union bpf_attr` called `batch`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Elements of one part of a map, and the place where the next part begins; `None`: that was all.
pub(super) type Part<K, V> = (Vec<(K, V)>, Option<u32>);

/// Up to `most` elements behind the place `after`; `None`: from the start. More than `most` only if one
/// bucket has more.
///
/// # Errors
/// The kernel's answer.
pub(super) fn lookup<K: Pod, V: Pod>(
    map: impl AsFd,
    after: Option<u32>,
    most: usize,
) -> io::Result<Part<K, V>> {
    let mut room = most.max(1);
    loop {
        match lookup_into(map.as_fd().as_raw_fd(), after, room) {
            // The next bucket alone has more elements than that.
            Err(Errno::ENOSPC) if room < MOST_IN_A_BUCKET => room *= 2,
            part => return part.map_err(io::Error::from),
        }
    }
}

fn lookup_into<K: Pod, V: Pod>(map: i32, after: Option<u32>, room: usize) -> Result<Part<K, V>, Errno> {
    let (mut keys, mut values) = (vec![K::zeroed(); room], vec![V::zeroed(); room]);
    let (from, mut next) = (after.unwrap_or(0), 0_u32);
    let mut batch = Batch {
        in_batch: after.map_or(0, |_| (&raw const from).expose_provenance() as u64),
        out_batch: (&raw mut next).expose_provenance() as u64,
        keys: keys.as_mut_ptr().expose_provenance() as u64,
        values: values.as_mut_ptr().expose_provenance() as u64,
        count: u32::try_from(room).map_err(|_| Errno::EINVAL)?,
        map_fd: map.cast_unsigned(),
        ..Batch::zeroed()
    };
    // SAFETY: the kernel reads one `u32` at `in_batch` and writes one at `out_batch`, and at most `count`
    // keys and values, for which there is room: the callers' `K` and `V` have the sizes of the map's, and any
    // bits are such values. All of them outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut batch, size_of::<Batch>()) };
    let at_the_end = match Errno::result(answer) {
        Ok(_) => false,
        Err(Errno::ENOENT) => true,
        Err(error) => return Err(error),
    };
    let found = keys.into_iter().zip(values).take(batch.count as usize).collect();
    Ok((found, (!at_the_end).then_some(next)))
}
