//! Prints CONFIG.md: `cargo run -p lb-config --example config-md > CONFIG.md`.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(lb_config::render_config_md().as_bytes())
}
