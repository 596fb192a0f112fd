//! The tables of a process, by the names of the policies whose limits they serve.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::key::LimitKey;
use super::places::PlaceTable;
use super::table::RateTable;
use crate::filter::{Chain, ConcurrencyLimit, RateLimit};

/// The tables in force, by policy.
#[derive(Clone, Debug, Default)]
pub struct LimitTables {
    /// What the keys of rate limits owe.
    pub rates: BTreeMap<Box<str>, Arc<RateTable>>,
    /// Requests that run under limits on requests at once; adaptive ones have none here.
    pub places: BTreeMap<Box<str>, Arc<PlaceTable>>,
}

/// Keeps tables from one configuration to the next.
#[derive(Debug, Default)]
pub struct LimitRegistry {
    rates: BTreeMap<Box<str>, (LimitKey, u32, Arc<RateTable>)>,
    places: BTreeMap<Box<str>, (Option<LimitKey>, Arc<PlaceTable>)>,
}

impl LimitRegistry {
    /// The tables of the limits in these chains. One whose policy had a limit before keeps what it knows, whatever rate or bound holds from now on; it
    /// begins anew only where requests are counted by something else, or the table has another size. Tables of limits that are gone go as soon as
    /// nothing uses them.
    pub fn tables<'a>(&mut self, chains: impl IntoIterator<Item = &'a Chain>, now: Instant) -> LimitTables {
        let (mut rates, mut places) = (BTreeMap::new(), BTreeMap::new());
        for chain in chains {
            for limit in &chain.rate_limits {
                if !rates.contains_key(&limit.policy) {
                    rates.insert(limit.policy.clone(), self.rates(limit, now));
                }
            }
            for limit in &chain.concurrency {
                if !places.contains_key(&limit.policy) && limit.max.is_some() {
                    places.insert(limit.policy.clone(), self.places(limit));
                }
            }
        }
        (self.rates, self.places) = (rates, places);
        let rates = self.rates.iter().map(|(name, (_, _, table))| (name.clone(), Arc::clone(table)));
        let places = self.places.iter().map(|(name, (_, table))| (name.clone(), Arc::clone(table)));
        LimitTables { rates: rates.collect(), places: places.collect() }
    }

    fn rates(&mut self, limit: &RateLimit, now: Instant) -> (LimitKey, u32, Arc<RateTable>) {
        let before = self.rates.remove(&limit.policy);
        let before = before.filter(|(key, size, _)| *key == limit.key && *size == limit.max_keys);
        let make = || (limit.key.clone(), limit.max_keys, Arc::new(RateTable::new(limit.max_keys, now)));
        before.unwrap_or_else(make)
    }

    fn places(&mut self, limit: &ConcurrencyLimit) -> (Option<LimitKey>, Arc<PlaceTable>) {
        let before = self.places.remove(&limit.policy).filter(|(key, _)| *key == limit.key);
        before.unwrap_or_else(|| (limit.key.clone(), Arc::new(PlaceTable::new(limit.key.is_some()))))
    }
}
