//! Makes the shared values of `relay_common::fastpath` usable as map values that aya copies to and from the
//! kernel.
//!
//! aya requires its own marker trait, which only an `unsafe impl` can give. One implementation, for a wrapper
//! around any type that bytemuck has proved to be plain bytes, covers every map. So `relay-common` needs
//! neither aya nor `unsafe`.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]

/// A map value: the same bytes as `T`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abi<T>(pub(crate) T);

// SAFETY: aya needs a type that may be read and written as plain bytes. `bytemuck::Pod` promises exactly that
// of `T` (no padding, no pointers, any bit pattern is valid), its derive proves it, and `repr(transparent)`
// gives `Abi<T>` the same layout.
unsafe impl<T: bytemuck::Pod> aya::Pod for Abi<T> {}
