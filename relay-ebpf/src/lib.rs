//! What the programs of this crate share: the two modules that access kernel memory by pointer, the copy of a
//! session, and the definitions of the lab's maps.
#![no_std]

pub mod lab;
#[cfg(target_arch = "bpf")]
pub mod packet;
#[cfg(target_arch = "bpf")]
pub mod session;
#[cfg(target_arch = "bpf")]
pub mod values;

/// Never called: the rules cannot panic, and the verifier would refuse an endless loop.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
