//! Rate limits: which requests come too often, and what clients are told of it.

use std::time::Instant;

use crate::limit::gcra::wait_seconds;
use crate::limit::{LimitKey, LimitRequest, MissingKey, RateStanding, RateTable, RequestRate};

/// `rate_limit` of a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RateLimit {
    /// The name of the policy, which names the table of the process and stands in the fields of responses.
    pub policy: Box<str>,
    /// What requests are counted by.
    pub key: LimitKey,
    /// How often they may come.
    pub rate: RequestRate,
    /// Keys that the table has room for.
    pub max_keys: u32,
    /// The status of refusals.
    pub status: u16,
    /// Whether responses tell what is left.
    pub fields: bool,
    /// Whether nothing is refused, only counted.
    pub dry_run: bool,
}

/// What responses tell of the limit that leaves least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateNotice {
    /// The limit, by its place among those of the route.
    pub limit: u8,
    /// What is left, where the limit tells that.
    pub standing: Option<RateStanding>,
    /// The seconds after which another request would pass, where this one is refused.
    pub retry_after: Option<u64>,
}

/// What limits say of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RateVerdict {
    /// The status with which it is refused.
    pub refused: Option<u16>,
    /// What its response tells.
    pub notice: Option<RateNotice>,
    /// How many limits would have refused it that only count.
    pub dry_refusals: u8,
    /// The limits that it has cost something, by their places.
    taken: u64,
}

/// Asks all limits of a route, each with its table. A request that one refuses costs nothing with the others. `evicted` is told of each limit that
/// has forgotten a key which owed something, by its place.
pub fn check_rates<'a>(
    limits: impl Iterator<Item = (&'a RateLimit, &'a RateTable)> + Clone,
    request: &LimitRequest<'_>,
    now: Instant,
    mut evicted: impl FnMut(u8),
) -> RateVerdict {
    let mut verdict = RateVerdict::default();
    for (place, (limit, table)) in (0_u8..).zip(limits.clone()) {
        let refusal = match limit.key.hash(request, table.hasher()) {
            Err(MissingKey::Skip) => continue,
            Err(MissingKey::Deny) => None,
            Ok(hash) => {
                let moment = table.moment(now);
                let found = table.take(hash, &limit.rate, moment);
                if found.has_evicted {
                    evicted(place);
                }
                match found.result {
                    Ok(until) => {
                        verdict.taken |= 1_u64.checked_shl(u32::from(place)).unwrap_or(0);
                        if limit.fields && !limit.dry_run {
                            tell(&mut verdict, place, limit.rate.standing(until, moment));
                        }
                        continue;
                    }
                    Err(wait) => Some(wait),
                }
            }
        };
        if limit.dry_run {
            verdict.dry_refusals = verdict.dry_refusals.saturating_add(1);
            continue;
        }
        verdict.give_back(limits, request);
        let standing = |wait: u64| {
            // Until all that is owed is paid: one interval less than a burst more than until the next one passes.
            let most = limit.rate.interval().saturating_mul(limit.rate.burst().saturating_sub(1));
            RateStanding { remaining: 0, reset_seconds: wait_seconds(wait.saturating_add(most)) }
        };
        return RateVerdict {
            refused: Some(limit.status),
            notice: Some(RateNotice {
                limit: place,
                standing: refusal.filter(|_| limit.fields).map(standing),
                retry_after: refusal.map(wait_seconds),
            }),
            ..verdict
        };
    }
    verdict
}

impl RateVerdict {
    /// Takes back what the request has cost, because it is refused elsewhere.
    pub fn give_back<'a>(
        &mut self,
        limits: impl Iterator<Item = (&'a RateLimit, &'a RateTable)>,
        request: &LimitRequest<'_>,
    ) {
        for (place, (limit, table)) in (0_u32..).zip(limits) {
            if self.taken.checked_shr(place).unwrap_or(0) & 1 == 1
                && let Ok(hash) = limit.key.hash(request, table.hasher())
            {
                table.give_back(hash, &limit.rate);
            }
        }
        self.taken = 0;
    }
}

/// Has the response tell of a limit, unless another leaves less.
fn tell(verdict: &mut RateVerdict, limit: u8, standing: RateStanding) {
    let told = verdict.notice.and_then(|notice| notice.standing);
    let leaves_more = |told: RateStanding| {
        (told.remaining, u64::MAX.saturating_sub(told.reset_seconds))
            > (standing.remaining, u64::MAX.saturating_sub(standing.reset_seconds))
    };
    if told.is_none_or(leaves_more) {
        verdict.notice = Some(RateNotice { limit, standing: Some(standing), retry_after: None });
    }
}

impl RateLimit {
    /// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers): so many requests in so many seconds.
    pub fn policy_field(&self) -> String {
        let (name, rate) = (quoted(&self.policy), &self.rate);
        format!("{name};q={};w={}", rate.requests(), rate.window_seconds())
    }

    /// The value of `RateLimit`: so many requests pass now, and all that may come at once after so many seconds.
    pub fn standing_field(&self, standing: RateStanding) -> String {
        let RateStanding { remaining, reset_seconds } = standing;
        format!("{};r={remaining};t={reset_seconds}", quoted(&self.policy))
    }
}

/// A text as a string of RFC 8941 §3.3.3, which has printable ASCII alone.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            ' '..='~' => quoted.push(char),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}
