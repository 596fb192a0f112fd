//! Limits on requests at once.

use crate::limit::{AdaptiveBounds, LimitKey};

/// `concurrency` of a policy. It has at least one of `max` and `adaptive`; with both, both hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConcurrencyLimit {
    /// The name of the policy, which names the table of the process, and the adaptive limit of each worker.
    pub policy: Box<str>,
    /// How many requests of a key may run at once, in all workers.
    pub max: Option<u32>,
    /// What they are counted by; None = all together.
    pub key: Option<LimitKey>,
    /// Where the limit is that each worker finds: as many requests as backends take without becoming slower.
    pub adaptive: Option<AdaptiveBounds>,
    /// Whether nothing is refused, only counted.
    pub dry_run: bool,
}
