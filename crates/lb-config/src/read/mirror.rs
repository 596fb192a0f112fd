//! `mirror` of routes.

use lb_core::fraction::Fraction;

use super::Report;
use super::pool::Pools;
use super::route::pool_of;
use crate::config::Mirror;
use crate::document::View;

/// Mirrors that a route may have.
const MOST_MIRRORS: usize = 8;

/// The pools that get copies of the requests of a route.
pub(super) fn read(view: View<'_>, forwards: bool, pools: &Pools, report: &mut Report<'_>) -> Vec<Mirror> {
    if !forwards && view.entry("mirror").is_some() {
        report.error(view, "mirror", "needs pool or split: no backend gets the request");
    }
    let views = view.blocks("mirror");
    if views.len() > MOST_MIRRORS {
        report.error(view, "mirror", format!("has at most {MOST_MIRRORS} elements"));
    }
    let mirror = |view: View<'_>| {
        let fraction = view.text("fraction").and_then(Fraction::parse).unwrap_or(Fraction::ALL);
        Some(Mirror {
            pool: pool_of(view, view.text("pool")?, pools, report)?,
            fraction,
            max_body_bytes: view.size("max_body_bytes"),
            timeout: view.millis("timeout_ms"),
        })
    };
    views.into_iter().filter_map(mirror).collect()
}
