//! Limits of policies on requests.

use std::sync::Arc;

use lb_core::filter::RateLimit;
use lb_core::limit::{KeyPart, LimitKey, OnMissing, RequestRate};

use super::Report;
use crate::document::View;

/// `rate_limit` of the policy with this name.
pub(super) fn rate_limit(policy: &str, view: View<'_>, report: &mut Report<'_>) -> Option<Arc<RateLimit>> {
    // Without requests there is an error already.
    let requests = view.optional_integer("requests")?;
    let burst = view.optional_integer("burst").unwrap_or(requests);
    let Some(rate) = RequestRate::new(requests, view.integer("window_seconds"), burst) else {
        report.error(view, "requests", "more than 1000000 in a second: such a limit limits nothing");
        return None;
    };
    Some(Arc::new(RateLimit {
        policy: policy.into(),
        key: key(view),
        rate,
        max_keys: view.int32("max_keys"),
        status: u16::try_from(view.integer("status")).unwrap_or(429),
        fields: view.flag("fields"),
        dry_run: view.flag("dry_run"),
    }))
}

/// What requests are counted by.
fn key(view: View<'_>) -> LimitKey {
    let bits = |key| u8::try_from(view.integer(key)).unwrap_or(u8::MAX);
    LimitKey {
        parts: view
            .text("key")
            .and_then(|text| LimitKey::parse_parts(text).ok())
            .unwrap_or_else(|| vec![KeyPart::ClientIp]),
        ipv4_prefix: bits("ipv4_prefix"),
        ipv6_prefix: bits("ipv6_prefix"),
        on_missing: view.word("on_missing").and_then(OnMissing::from_word).unwrap_or(OnMissing::ClientIp),
    }
}
