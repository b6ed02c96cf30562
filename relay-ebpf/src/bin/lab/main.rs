//! XDP programs of the lab: they stand at the far end of a veth.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
    use relay_ebpf as _;

    /// Passes every frame to the kernel. A veth delivers what its peer sends by XDP_TX only while it runs a native program.
    #[xdp]
    pub(crate) fn lab_pass(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

/// The programs exist only for the BPF target.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
