//! The XDP program's object file, embedded at build time so that the daemon is one file.
//!
//! `build.rs` sets `have_bpf` when `cargo xtask build` gave it an object. The bytes are aligned for the ELF
//! reader, which reads headers in place.

/// The object file, or `None` if the daemon was built without the fast path.
#[cfg(have_bpf)]
pub static OBJECT: Option<&[u8]> =
    Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/relayd-xdp.o")));

/// The object file, or `None` if the daemon was built without the fast path.
#[cfg(not(have_bpf))]
pub static OBJECT: Option<&[u8]> = None;

#[cfg(test)]
mod tests {
    use super::OBJECT;

    #[test]
    fn the_object_is_there_as_built_and_is_an_aligned_bpf_elf_file() {
        const EM_BPF: [u8; 2] = 247_u16.to_le_bytes();
        assert_eq!(OBJECT.is_some(), cfg!(have_bpf));
        let Some(object) = OBJECT else { return };
        assert_eq!(object.get(..4), Some(b"\x7fELF".as_slice()));
        assert_eq!(object.get(18..20), Some(EM_BPF.as_slice()), "e_machine");
        assert_eq!(object.as_ptr().align_offset(8), 0);
    }
}
