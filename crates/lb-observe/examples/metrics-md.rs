//! Prints METRICS.md.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(lb_observe::metrics::render_metrics_md().as_bytes())
}
