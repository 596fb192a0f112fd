//! What is counted of policies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::families;
use super::scrape::Scrape;
use super::values::SharedCounter;

/// The families of the policies that limit something, by their names.
#[derive(Debug, Default)]
pub(super) struct Policies(Mutex<BTreeMap<String, Arc<PolicyMetrics>>>);

/// The families of one policy.
#[derive(Debug, Default)]
pub struct PolicyMetrics {
    /// `rate_limit_evictions_total`.
    pub rate_limit_evictions: SharedCounter,
}

impl Policies {
    pub(super) fn named(&self, name: &str) -> Arc<PolicyMetrics> {
        let mut policies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = policies.get(name) {
            return Arc::clone(policy);
        }
        let policy = Arc::new(PolicyMetrics::default());
        policies.insert(name.to_owned(), Arc::clone(&policy));
        policy
    }

    pub(super) fn scrape(&self, scrape: &mut Scrape) {
        let mut policies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Handles are made under this lock only, so a count of one means that no other handle exists.
        policies.retain(|_, policy| Arc::strong_count(policy) > 1);
        for (name, policy) in &*policies {
            scrape.counter(&families::RATE_LIMIT_EVICTIONS, &[name], policy.rate_limit_evictions.value());
        }
    }
}
