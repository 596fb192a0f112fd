//! Passive health: a member is judged by how it treats ordinary traffic, and put aside for a while when it stands out.
//!
//! * A [`Streak`] counts failures in a row. Each worker has one per member, on the path of every request.
//! * [`Analysis`] compares the members of a pool once per interval, in the control thread: share of failures, mean latency.
//! * [`Ejector`] decides what follows, once per pool and process: whether a member is put aside at all, for how long, and when it is
//!   trusted again. Detection may be hasty; the ejector keeps enough members in service.

mod ejector;
mod streak;
mod window;

use std::time::Duration;

pub use ejector::{EjectionSettings, EjectionStanding, Ejector, Refused};
pub use streak::{Ending, Streak, StreakLimits};
pub use window::{Analysis, Counts, Suspect};

/// When members that fail requests are put aside (`[pools.NAME.outlier]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierSettings {
    /// Failures in a row, as one worker sees them.
    pub streaks: StreakLimits,
    /// The comparison of members that is made once in each interval, over all workers.
    pub analysis: Analysis,
    /// The interval of that comparison.
    pub interval: Duration,
    /// How ejections go.
    pub ejection: EjectionSettings,
}

/// Why a member stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EjectionCause {
    /// So many responses of 5xx or worse in a row.
    ConsecutiveServerErrors,
    /// So many times in a row no response at all.
    ConsecutiveGatewayFailures,
    /// Too large a share of failures over an interval.
    ErrorRate,
    /// Much slower over an interval than most of the pool.
    Latency,
}

impl EjectionCause {
    /// The reason for logs, metrics and the admin port. The set of words is closed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveServerErrors => "consecutive_5xx",
            Self::ConsecutiveGatewayFailures => "consecutive_gateway_failures",
            Self::ErrorRate => "error_rate",
            Self::Latency => "latency",
        }
    }
}
