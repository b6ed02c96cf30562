//! Embeds the eBPF object that `cargo xtask build` made and names in `RELAYD_BPF_OBJECT`.
//!
//! The object needs a toolchain of its own (`xtask/src/ebpf.rs`), which not every machine has; without it the
//! daemon is built without the fast path and says so.

use std::{env, fs, path::Path};

const OBJECT: &str = "RELAYD_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    println!("cargo::rustc-check-cfg=cfg(have_bpf)");
    let Some(object) = env::var_os(OBJECT).filter(|path| !path.is_empty()) else {
        println!("cargo::warning=built without the XDP fast path; `cargo xtask build` builds with it");
        return;
    };
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-cfg=have_bpf");
    let out_dir = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let copy = Path::new(&out_dir).join("relayd-xdp.o");
    if let Err(error) = fs::copy(&object, copy) {
        println!("cargo::error=cannot read the eBPF object {}: {error}", object.display());
    }
}
