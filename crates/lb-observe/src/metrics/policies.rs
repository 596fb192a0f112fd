//! What is counted of policies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::families;
use super::scrape::Scrape;
use super::values::{Gauge, PerWorker, SharedCounter};

/// The families of the policies that limit something, by their names.
#[derive(Debug)]
pub(super) struct Policies {
    workers: usize,
    policies: Mutex<BTreeMap<String, Arc<PolicyMetrics>>>,
}

/// The families of one policy.
#[derive(Debug)]
pub struct PolicyMetrics {
    /// `rate_limit_evictions_total`.
    pub rate_limit_evictions: SharedCounter,
    /// `access_file_failures_total`.
    pub access_file_failures: SharedCounter,
    concurrency_limits: PerWorker<Gauge>,
}

impl PolicyMetrics {
    /// `concurrency_limit`: what the adaptive limit of this worker has come to.
    pub fn concurrency_limit(&self, worker: usize) -> &Gauge {
        self.concurrency_limits.of(worker)
    }
}

impl Policies {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, policies: Mutex::default() }
    }

    pub(super) fn named(&self, name: &str) -> Arc<PolicyMetrics> {
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = policies.get(name) {
            return Arc::clone(policy);
        }
        let policy = Arc::new(PolicyMetrics {
            rate_limit_evictions: SharedCounter::default(),
            access_file_failures: SharedCounter::default(),
            concurrency_limits: PerWorker::new(self.workers),
        });
        policies.insert(name.to_owned(), Arc::clone(&policy));
        policy
    }

    pub(super) fn scrape(&self, scrape: &mut Scrape) {
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        // Handles are made under this lock only, so a count of one means that no other handle exists.
        policies.retain(|_, policy| Arc::strong_count(policy) > 1);
        for (name, policy) in &*policies {
            scrape.counter(&families::RATE_LIMIT_EVICTIONS, &[name], policy.rate_limit_evictions.value());
            scrape.counter(&families::ACCESS_FILE_FAILURES, &[name], policy.access_file_failures.value());
            let limit = policy.concurrency_limits.iter().map(Gauge::value).sum::<i64>();
            // An adaptive limit is never zero.
            if limit > 0 {
                scrape.gauge(&families::CONCURRENCY_LIMIT, &[name], limit as f64);
            }
        }
    }
}
