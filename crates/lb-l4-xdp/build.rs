//! Tells whether the object of the programs is there: `scripts/build-xdp.sh` makes it, and a tree without it still builds.

#![allow(clippy::print_stdout, reason = "cargo listens there")]

fn main() {
    println!("cargo::rustc-check-cfg=cfg(lb_xdp_elf)");
    println!("cargo::rerun-if-changed=src/lb_xdp.bin");
    if std::path::Path::new("src/lb_xdp.bin").exists() {
        println!("cargo::rustc-cfg=lb_xdp_elf");
    }
}
