//! Finds out whether tests of workers on io_uring can run here: where they cannot they are ignored, and do not look as if they had passed.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(has_io_uring)");
    if io_uring::IoUring::new(1).is_ok() {
        println!("cargo:rustc-cfg=has_io_uring");
    }
}
