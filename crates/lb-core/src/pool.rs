//! The settings of a pool, as a configuration gives them and as the state of the pool and each of its workers take them.

use std::time::Duration;

use crate::balance::BalanceSettings;
use crate::breaker::MemberLimits;
use crate::health::ProbeSettings;
use crate::outlier::OutlierSettings;
use crate::retry::RetrySettings;

/// The settings of a pool as a whole (`[pools.NAME]`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSettings {
    /// How members are picked.
    pub balance: BalanceSettings,
    /// When members that fail requests are put aside; `None` for never.
    pub outlier: Option<OutlierSettings>,
    /// When members are probed; `None` for never.
    pub health: Option<ProbeSettings>,
    /// What each member is given at once.
    pub limits: MemberLimits,
    /// Which requests are tried again.
    pub retry: RetrySettings,
    /// How long a member that cannot be reached is left alone at first; `None` for never.
    pub rest: Option<Duration>,
}
