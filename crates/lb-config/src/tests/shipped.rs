//! The files that come with the gateway.

use std::path::{Path, PathBuf};

use super::parse;
use crate::render_config_md;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_shipped_file_parses_without_a_warning() {
    let mut files = vec![root().join("config/default.toml")];
    files.extend(
        std::fs::read_dir(root().join("config/examples")).unwrap().map(|entry| entry.unwrap().path()),
    );
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let config = parse(&std::fs::read_to_string(&file).unwrap());
        assert!(config.warnings.is_empty(), "{}: {:?}", file.display(), config.warnings);
    }
}

#[test]
fn what_needs_no_missing_feature_starts_today() {
    for name in [
        "default.toml",
        "examples/tcp.toml",
        "examples/tls.toml",
        "examples/udp-dns.toml",
        "examples/xdp.toml",
        "examples/h1.toml",
        "examples/h1-limits.toml",
        "examples/h1-h2c.toml",
        "examples/h1-pool.toml",
        "examples/h1-routes.toml",
        "examples/h1s-virtual-hosts.toml",
        "examples/h1s.toml",
        "examples/h1s-grpc.toml",
        "examples/h1s-websocket.toml",
        "examples/h1s-client-certificates.toml",
        "examples/h2-backend.toml",
        "examples/quic-mode-b.toml",
        "examples/quic-doq.toml",
        "examples/passthrough-mode-a.toml",
        "examples/passthrough-sni.toml",
    ] {
        let text = std::fs::read_to_string(root().join("config").join(name)).unwrap();
        assert_eq!(parse(&text).not_built_yet(), [], "{name}");
    }
}

#[test]
fn config_md_is_what_the_schema_says() {
    let page = std::fs::read_to_string(root().join("CONFIG.md")).unwrap_or_default();
    assert!(
        page == render_config_md(),
        "stale: run `cargo run -p lb-config --example config-md > CONFIG.md`"
    );
}
