//! The object in the tree is that of the sources in the tree.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// What the object is made of, as `scripts/build-xdp.sh` has it.
const SOURCES: &[&str] = &[
    "ebpf/.cargo/config.toml",
    "ebpf/Cargo.lock",
    "ebpf/Cargo.toml",
    "ebpf/src",
    "layout/Cargo.toml",
    "layout/src",
];

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of each file, by its path from the crate on.
fn collect(root: &Path, path: &str, into: &mut BTreeMap<String, String>) {
    let whole = root.join(path);
    if whole.is_dir() {
        for entry in std::fs::read_dir(whole).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            collect(root, &format!("{path}/{name}"), into);
        }
    } else {
        let bytes = std::fs::read(&whole).unwrap_or_else(|error| panic!("{path}: {error}"));
        into.insert(path.to_owned(), hexadecimal(&Sha256::digest(bytes)));
    }
}

#[test]
fn the_object_is_that_of_its_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    for source in SOURCES {
        collect(root, source, &mut files);
    }
    // As sha256sum(1) lists them.
    let list: String = files.iter().map(|(path, hash)| format!("{hash}  {path}\n")).collect();
    let hash = hexadecimal(&Sha256::digest(list));
    let object = lb_l4_xdp::object().expect("crates/lb-l4-xdp/src/lb_xdp.bin");
    assert_eq!(lb_l4_xdp::sources(object), Some(hash.as_str()), "run scripts/build-xdp.sh");
}

/// The kernel lets programs look up routes only under a licence that it knows.
#[test]
fn the_object_is_for_the_kernel_and_says_its_licence() {
    let object = lb_l4_xdp::object().expect("crates/lb-l4-xdp/src/lb_xdp.bin");
    // ELF, 64 bits, little endian; machine BPF.
    assert_eq!(object.get(..6), Some(&b"\x7fELF\x02\x01"[..]));
    assert_eq!(object.get(18..20), Some(&[247, 0][..]));
    assert!(object.windows(4).any(|window| window == b"GPL\0"));
    assert_eq!(lb_l4_xdp::sources(b"none"), None);
}
