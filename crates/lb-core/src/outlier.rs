//! Passive health: a member is judged by how it treats ordinary traffic, and put aside for a while when it stands out.
//!
//! * A [`Streak`] counts failures in a row. Each worker has one per member, on the path of every request.
//! * [`Analysis`] compares the members of a pool once per interval, in the control thread: share of failures, mean latency.
//! * [`Ejector`] decides what follows, once per pool and process: whether a member is put aside at all, for how long, and when it is
//!   trusted again. Detection may be hasty; the ejector keeps enough members in service.

mod ejector;
mod streak;
mod window;

pub use ejector::{EjectionSettings, Ejector, Refused, Standing};
pub use streak::{Ending, Streak, StreakLimits};
pub use window::{Analysis, Counts, Suspect};

/// Why a member stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// So many responses of 5xx or worse in a row.
    ConsecutiveServerErrors,
    /// So many times in a row no response at all.
    ConsecutiveGatewayFailures,
    /// Too large a share of failures over an interval.
    ErrorRate,
    /// Much slower over an interval than most of the pool.
    Latency,
}

impl Cause {
    /// The reason for logs, metrics and the admin port. The set of words is closed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveServerErrors => "consecutive_5xx",
            Self::ConsecutiveGatewayFailures => "consecutive_gateway_failures",
            Self::ErrorRate => "error_rate",
            Self::Latency => "latency",
        }
    }
}
