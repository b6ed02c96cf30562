//! Access to the frame, the clock and the redirect helper: this module has all pointer arithmetic on packets.
//!
//! Every access is a fixed-size array at a constant offset from `data`, compared with `data_end` first. The
//! verifier can prove such an access; the kernel does not load a program that it cannot prove.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_ktime_get_ns, bpf_redirect, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use relay_common::net::Frame;

/// The linear part of the frame for which a program was called.
pub struct XdpFrame {
    start: usize,
    end: usize,
    length: usize,
}

impl XdpFrame {
    /// The frame of `ctx`.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        // The length comes from the kernel and not from `data_end - data`, because subtracting packet
        // pointers takes CAP_PERFMON. SAFETY: `ctx` is the context with which the kernel called the program.
        let length = unsafe { bpf_xdp_get_buff_len(ctx.as_ptr().cast()) };
        Self { start: ctx.data(), end: ctx.data_end(), length: length as usize }
    }

    /// The address of `N` bytes at `offset` that lie within the frame.
    #[inline(always)]
    fn address<const N: usize>(&self, offset: usize) -> Option<usize> {
        let first = self.start + offset;
        if first + N > self.end { None } else { Some(first) }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let address = self.address::<N>(offset)? as *const [u8; N];
        // SAFETY: `address` found the N bytes inside the frame, which belongs to the program until it
        // returns; byte arrays have no alignment; `&self` excludes `get_mut`.
        Some(unsafe { &*address })
    }

    #[inline(always)]
    fn get_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let address = self.address::<N>(offset)? as *mut [u8; N];
        // SAFETY: as in `get`; `&mut self` makes this the only reference into the frame.
        Some(unsafe { &mut *address })
    }
}

/// CLOCK_MONOTONIC, in nanoseconds. Costs about as much as the rest of the program.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Sends the frame out of the interface with that index; returns the action to leave the program with.
#[inline(always)]
pub fn redirect(interface: u32) -> u32 {
    // SAFETY: the helper takes numbers and checks them.
    unsafe { bpf_redirect(interface, 0) as u32 }
}
