//! What the programs of this crate share: the two places where kernel memory is reached by pointer, and the
//! lab's maps.
#![no_std]

pub mod lab;
#[cfg(target_arch = "bpf")]
pub mod packet;
#[cfg(target_arch = "bpf")]
pub mod values;

/// Never reached: the rules have no panicking path, and the verifier would refuse a loop that does not end.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
