//! XDP programs of the lab: they run at the far end of a veth and are never part of the daemon.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod check;
#[cfg(target_arch = "bpf")]
mod generate;
#[cfg(target_arch = "bpf")]
mod look;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod reuse;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
    use relay_ebpf::packet::XdpFrame;

    use crate::{check, generate, look, reuse};

    /// Passes every frame to the kernel.
    #[xdp(frags)]
    pub(crate) fn lab_pass(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// Recomputes the checksums of every frame and counts what it finds.
    #[xdp(frags)]
    pub(crate) fn lab_check(ctx: XdpContext) -> u32 {
        check::check(&XdpFrame::new(&ctx))
    }

    /// Turns its frame into the next one of a numbered series and sends it.
    #[xdp(frags)]
    pub(crate) fn lab_generate(ctx: XdpContext) -> u32 {
        generate::generate(&mut XdpFrame::new(&ctx)).unwrap_or(xdp_action::XDP_ABORTED)
    }

    /// Reads a session while the test gives its element to another.
    #[xdp(frags)]
    pub(crate) fn lab_reuse(_ctx: XdpContext) -> u32 {
        reuse::reuse().unwrap_or(xdp_action::XDP_ABORTED)
    }

    /// Only parses, reads the clock and looks the session up.
    #[xdp(frags)]
    pub(crate) fn lab_look(ctx: XdpContext) -> u32 {
        look::look(&XdpFrame::new(&ctx), ctx.ingress_ifindex() as u32)
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

/// The programs exist only for the BPF target.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
