//! What the documents say of the program, compared with the program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "documents/imports.rs"]
mod imports;
#[path = "documents/log_lines.rs"]
mod log_lines;
#[path = "documents/markdown.rs"]
mod markdown;
#[path = "documents/names.rs"]
mod names;
#[path = "documents/packaging.rs"]
mod packaging;
#[path = "documents/reasons.rs"]
mod reasons;
#[path = "documents/source.rs"]
mod source;

use std::path::{Path, PathBuf};

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Its text.
fn text(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
