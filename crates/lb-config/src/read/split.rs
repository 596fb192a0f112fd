//! `split` and `sticky` of routes.

use lb_core::route::RouteSpec;

use super::pool::Pools;
use super::route::pool_of;
use super::{Report, filter};
use crate::config::{Branch, Split, SplitKey, SplitSticky};
use crate::document::View;

/// Branches that a route may have.
const MOST_BRANCHES: usize = 64;

/// The split of a route.
pub(super) fn read(
    view: View<'_>,
    spec: &RouteSpec,
    pools: &Pools,
    report: &mut Report<'_>,
) -> Option<Split> {
    let views = view.blocks("split");
    if views.is_empty() || views.len() > MOST_BRANCHES {
        report.error(view, "split", format!("has 1 to {MOST_BRANCHES} branches"));
    }
    let mut branches: Vec<Branch> = Vec::new();
    for branch in views {
        let pool = pool_of(branch, branch.text("pool")?, pools, report)?;
        if branches.iter().any(|other| other.pool == pool) {
            report.error(branch, "pool", "another branch has this pool already");
        }
        let weight = branch.int32("weight");
        let edits = filter::edits_alone(branch, Some(spec), report);
        branches.push(Branch { pool, weight, chain: (!edits.is_empty()).then(|| Box::new(edits)) });
    }
    if !branches.is_empty() && branches.iter().all(|branch| branch.weight == 0) {
        report.warn(view, "split", "all weights are 0: every request is answered 500");
    }
    Some(Split { branches, sticky: view.present("sticky").map(|view| sticky(view, report)) })
}

fn sticky(view: View<'_>, report: &mut Report<'_>) -> SplitSticky {
    let by = view.text("by").and_then(SplitKey::parse).unwrap_or(SplitKey::Cookie);
    let follows_pool = view.word("follow") == Some("pool");
    if by != SplitKey::Cookie {
        for key in ["cookie", "ttl_seconds"].into_iter().filter(|key| view.entry(key).is_some()) {
            report.error(view, key, "needs by = \"cookie\"");
        }
        if follows_pool {
            report.error(view, "follow", "\"pool\" needs by = \"cookie\"");
        }
    }
    SplitSticky {
        by,
        cookie: view.text("cookie").unwrap_or("eg_split").to_owned(),
        ttl: Some(view.seconds("ttl_seconds")).filter(|ttl| !ttl.is_zero()),
        follows_pool,
    }
}
