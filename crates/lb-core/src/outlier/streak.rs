//! Failures in a row.

use super::EjectionCause;

/// How a try at a member ended. What the client or the gateway itself broke off is no evidence, and is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A response below 500, or a connection that was served.
    Fine,
    /// A response of 500 to 599.
    ServerError,
    /// No response: the connect failed, the time ran out, the connection was reset or broke the protocol.
    GatewayFailure,
}

impl Ending {
    /// The ending that a response of this status is.
    #[inline]
    pub fn of_status(status: u16) -> Self {
        if status >= 500 { Self::ServerError } else { Self::Fine }
    }

    /// Whether it is evidence against the member.
    #[inline]
    pub fn is_failure(self) -> bool {
        self != Self::Fine
    }
}

/// How many failures in a row are too many; 0 is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreakLimits {
    /// Failures of either kind (`consecutive_5xx`): to a client a member that does not respond is a 502 or 504.
    pub server_errors: u32,
    /// Failures without a response (`consecutive_gateway_failures`). A response of 5xx ends such a row: the member answers.
    pub gateway_failures: u32,
}

impl Default for StreakLimits {
    fn default() -> Self {
        Self { server_errors: 5, gateway_failures: 5 }
    }
}

impl StreakLimits {
    /// Half of each, rounded up: the limits for a member on probation.
    #[must_use]
    pub fn halved(self) -> Self {
        Self {
            server_errors: self.server_errors.div_ceil(2),
            gateway_failures: self.gateway_failures.div_ceil(2),
        }
    }
}

/// The failures in a row of one member, as one worker sees them. To be replaced by a new one when the member returns from an ejection,
/// so that it starts anew everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streak {
    server_errors: u32,
    gateway_failures: u32,
}

impl Streak {
    /// Records how a try ended. Returns which limit was reached, if one was, and counts anew from there. A few additions and comparisons.
    #[inline]
    pub fn record(&mut self, ending: Ending, limits: StreakLimits) -> Option<EjectionCause> {
        match ending {
            Ending::Fine => {
                *self = Self::default();
                return None;
            }
            Ending::ServerError => self.gateway_failures = 0,
            Ending::GatewayFailure => self.gateway_failures = self.gateway_failures.saturating_add(1),
        }
        self.server_errors = self.server_errors.saturating_add(1);
        let reached = |limit: u32, count: u32| limit != 0 && count >= limit;
        let cause = if reached(limits.gateway_failures, self.gateway_failures) {
            EjectionCause::ConsecutiveGatewayFailures
        } else if reached(limits.server_errors, self.server_errors) {
            EjectionCause::ConsecutiveServerErrors
        } else {
            return None;
        };
        *self = Self::default();
        Some(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After which of the endings the streak fires: `.` fine, `5` a response of 5xx, `x` no response.
    fn fires(endings: &str, limits: StreakLimits) -> Vec<(usize, EjectionCause)> {
        let mut streak = Streak::default();
        let mut fired = Vec::new();
        for (at, ending) in endings.bytes().enumerate() {
            let ending = match ending {
                b'5' => Ending::ServerError,
                b'x' => Ending::GatewayFailure,
                _ => Ending::Fine,
            };
            fired.extend(streak.record(ending, limits).map(|cause| (at + 1, cause)));
        }
        fired
    }

    #[test]
    fn only_failures_in_a_row_fire_and_the_count_starts_anew() {
        use EjectionCause::{ConsecutiveGatewayFailures as Gateway, ConsecutiveServerErrors as Server};
        let limits = StreakLimits { server_errors: 4, gateway_failures: 3 };
        assert_eq!(fires("555.555.xx.xx.", limits), []);
        assert_eq!(fires("55555555", limits), [(4, Server), (8, Server)]);
        assert_eq!(fires("xxxxxx", limits), [(3, Gateway), (6, Gateway)]);
        // Neither kind hides the other.
        assert_eq!(fires("x5x5", limits), [(4, Server)]);
        assert_eq!(fires("5xxx", limits), [(4, Gateway)]);
        let off = StreakLimits { server_errors: 0, gateway_failures: 0 };
        assert_eq!(fires(&"x5".repeat(1000), off), []);
        let gateway = StreakLimits { gateway_failures: 2, ..off };
        assert_eq!(fires("5555x5xx", gateway), [(8, Gateway)]);
    }

    #[test]
    fn probation_halves_upwards_and_leaves_off_what_is_off() {
        let limits = StreakLimits { server_errors: 5, gateway_failures: 1 }.halved();
        assert_eq!(limits, StreakLimits { server_errors: 3, gateway_failures: 1 });
        assert_eq!(StreakLimits { server_errors: 0, gateway_failures: 2 }.halved().server_errors, 0);
    }
}
