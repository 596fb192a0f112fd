//! The tables of a process, by the names of the policies whose limits they serve.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::key::LimitKey;
use super::table::RateTable;
use crate::filter::RateLimit;

/// The tables in force, by policy.
pub type RateTables = BTreeMap<Box<str>, Arc<RateTable>>;

/// Keeps tables from one configuration to the next.
#[derive(Debug, Default)]
pub struct RateRegistry {
    tables: BTreeMap<Box<str>, (LimitKey, u32, Arc<RateTable>)>,
}

impl RateRegistry {
    /// The tables of these limits. One whose policy had a limit before keeps what is owed, whatever rate holds from now on; it begins anew only where
    /// requests are counted by something else, or the table has another size. Tables of limits that are gone go as soon as nothing uses them.
    pub fn tables<'a>(
        &mut self,
        limits: impl IntoIterator<Item = &'a RateLimit>,
        now: Instant,
    ) -> RateTables {
        let mut kept = BTreeMap::new();
        for limit in limits {
            if kept.contains_key(&limit.policy) {
                continue;
            }
            let before = self.tables.remove(&limit.policy);
            let before = before.filter(|(key, size, _)| *key == limit.key && *size == limit.max_keys);
            let made = || {
                let table = Arc::new(RateTable::new(limit.max_keys, now));
                (limit.key.clone(), limit.max_keys, table)
            };
            kept.insert(limit.policy.clone(), before.unwrap_or_else(made));
        }
        self.tables = kept;
        self.tables.iter().map(|(name, (_, _, table))| (name.clone(), Arc::clone(table))).collect()
    }
}
