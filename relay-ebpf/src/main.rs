//! relayd's XDP program: forwards the packets of bound UDP sessions and passes everything else to the kernel.
//!
//! Parser, rules and rewrite are `relay_common::forward`, the same code that the host tests and fuzzes. A
//! frame that the program does not forward reaches the daemon unchanged; only a session packet whose TTL
//! would reach zero is dropped.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod counters;
#[cfg(target_arch = "bpf")]
mod maps;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
    use aya_log_ebpf::warn;
    use relay_common::{
        fastpath::reason::{Verdict, XdpReason},
        forward,
        net::Frame as _,
    };
    use relay_ebpf::packet::XdpFrame;

    use crate::{counters, maps};

    /// Classifies and rewrites the frame, counts it, and returns the action.
    #[xdp(frags)]
    pub(crate) fn relayd_xdp(ctx: XdpContext) -> u32 {
        let mut frame = XdpFrame::new(&ctx);
        let reason = match maps::config() {
            None => XdpReason::Disabled,
            Some(config) => {
                let ingress = ctx.ingress_ifindex() as u32;
                match forward::apply(&mut frame, &config, ingress, &mut maps::Kernel) {
                    Ok(decision) => {
                        counters::note_leg(&decision);
                        XdpReason::Forwarded
                    }
                    Err(reason) => reason,
                }
            }
        };
        let count = counters::count(reason, frame.length());
        match reason.verdict() {
            Verdict::Tx => xdp_action::XDP_TX,
            Verdict::Pass => {
                if reason == XdpReason::HeartbeatStale && is_worth_a_line(count) {
                    warn!(&ctx, "the daemon's heartbeat is stale: passing everything");
                }
                xdp_action::XDP_PASS
            }
            Verdict::Drop => {
                if is_worth_a_line(count) {
                    warn!(&ctx, "dropped a packet whose TTL would reach zero: a forwarding loop?");
                }
                xdp_action::XDP_DROP
            }
        }
    }

    /// True for the first frame of a reason on this CPU, then for one in 65,536: logging costs far more than
    /// the program.
    #[inline(always)]
    fn is_worth_a_line(count: u64) -> bool {
        count & 0xffff == 1
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

/// The program exists only for the BPF target.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
