//! Limits of policies on requests.

use std::sync::Arc;

use lb_core::filter::{ConcurrencyLimit, RateLimit};
use lb_core::limit::{AdaptiveBounds, KeyPart, LimitKey, OnMissing, RequestRate};

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

/// `concurrency` of the policy with this name.
pub(super) fn concurrency(policy: &str, view: View<'_>, report: &mut Report<'_>) -> Arc<ConcurrencyLimit> {
    let (max, key) = (view.optional_integer("max"), view.text("key"));
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let adaptive = view
        .flag("adaptive")
        .then(|| AdaptiveBounds { min: number(view.integer("min")), max: number(view.integer("max_limit")) });
    match adaptive {
        Some(AdaptiveBounds { min, max }) if max < min => {
            report.error(view, "max_limit", format!("must be at least min, which is {min}"));
        }
        Some(_) => {}
        None => {
            for key in ["min", "max_limit"].into_iter().filter(|key| view.entry(key).is_some()) {
                report.warn(view, key, "does nothing: adaptive is false");
            }
        }
    }
    if key.is_some() && max.is_none() {
        report.error(view, "key", "needs max");
    }
    if max.is_none() && adaptive.is_none() {
        let problem = "limits nothing: max or adaptive must be there";
        report.errors.push(report.source.error_about_block(view, problem));
    }
    let parts = key.and_then(|text| LimitKey::parse_parts(text).ok());
    let on_missing = OnMissing::ClientIp;
    let key = parts.map(|parts| LimitKey { parts, ipv4_prefix: 32, ipv6_prefix: 64, on_missing });
    let (max, dry_run) = (max.map(number), view.flag("dry_run"));
    Arc::new(ConcurrencyLimit { policy: policy.into(), max, key, adaptive, dry_run })
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
