//! Access to the frame, the clock and the redirect helper: this module has all pointer arithmetic on packets.
//!
//! Every direct access is a fixed-size array at a constant offset from `data`, compared with `data_end`
//! first. The verifier can prove such an access; the kernel does not load a program that it cannot prove. A
//! frame above a page lies in several pieces, of which only the first is between `data` and `data_end`: it
//! holds the headers, and a sum over the rest goes through a helper that copies.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    helpers::generated::{
        bpf_csum_diff, bpf_ktime_get_ns, bpf_loop, bpf_redirect, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    },
    programs::XdpContext,
};
use relay_common::net::{Frame, checksum::Sum};

/// The frame for which a program was called.
pub struct XdpFrame {
    context: *mut xdp_md,
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
        // SAFETY: frames begin at even addresses: drivers put them behind a headroom of hundreds of bytes,
        // and even where they do not, only the speed of the access depends on it on machines with this
        // program.
        unsafe { core::hint::assert_unchecked(ctx.data() % 2 == 0) };
        Self { context: ctx.as_ptr().cast(), start: ctx.data(), end: ctx.data_end(), length: length as usize }
    }

    /// The address of `N` bytes at `offset` that lie within the frame's first piece.
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

    // A function of its own, so that its variables do not lie on the stack of every packet.
    #[inline(never)]
    fn sum(&self, offset: usize, length: u16) -> Option<Sum> {
        let mut walk =
            Walk { context: self.context, at: offset as u32, left: length.into(), sum: Sum::default() };
        repeat((u16::MAX as u32).div_ceil(CHUNK), || walk.step());
        if walk.left == 0 { Some(walk.sum) } else { None }
    }
}

/// Bytes of a frame that are summed at a time. They are copied to the stack, which is small.
const CHUNK: u32 = 128;

/// Where in a frame a sum has arrived.
struct Walk {
    context: *mut xdp_md,
    at: u32,
    left: u32,
    sum: Sum,
}

impl Walk {
    /// Adds the next chunk; returns whether to go on.
    #[inline(always)]
    fn step(&mut self) -> bool {
        let length = self.left.min(CHUNK);
        if length == 0 {
            return false;
        }
        // What lies behind a shorter chunk counts as zero.
        let mut chunk = [0u32; CHUNK as usize / size_of::<u32>()];
        let at = chunk.as_mut_ptr();
        // SAFETY: `context` is the one with which the kernel called the program; the helper writes `length`
        // bytes, which the chunk has, or fails.
        let copied = unsafe { bpf_xdp_load_bytes(self.context, self.at, at.cast(), length) };
        if copied != 0 {
            return false;
        }
        // SAFETY: the helper reads nothing at the null pointer of no bytes, and `CHUNK` bytes of the chunk.
        let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, at, CHUNK, 0) };
        // The helper adds words in this machine's order: the sum of the same bytes in memory is the sum in
        // network order (RFC 1071, 2B).
        let [a, b, c, d] = (sum as u32).to_ne_bytes();
        self.sum = self.sum.and(Sum::default().with([a, b]).with([c, d]));
        self.at += length;
        self.left -= length;
        true
    }
}

/// Calls `step` until it returns `false`, at most `most` times. The kernel verifies the step once, and not as
/// often as it may run.
#[inline(always)]
pub fn repeat<F: FnMut() -> bool>(most: u32, mut step: F) {
    /// What the helper calls with the number of the call, and with a pointer to the step; 1 ends the loop.
    extern "C" fn call<F: FnMut() -> bool>(_: u64, step: *mut c_void) -> u64 {
        // SAFETY: the pointer is the one given to the helper below, to a step that nobody else has while the
        // helper runs.
        let step = unsafe { &mut *step.cast::<F>() };
        if step() { 0 } else { 1 }
    }
    // SAFETY: the helper calls the function with what it takes, and the step outlives the call.
    unsafe { bpf_loop(most, call::<F> as *mut c_void, (&raw mut step).cast(), 0) };
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
