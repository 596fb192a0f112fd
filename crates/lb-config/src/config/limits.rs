//! What a route says otherwise than its listener and its pool.

use std::time::Duration;

use lb_core::retry::{Conditions, RetrySettings};

use super::Http;

/// Times and tries of a route, as far as they are its own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RouteLimits {
    /// From the head of a request to the end of its response. None within = no bound; this holds for each time.
    pub total_timeout: Option<Option<Duration>>,
    /// From the end of the upload to the head of the response.
    pub head_timeout: Option<Option<Duration>>,
    /// How long an upload may make no progress.
    pub body_timeout: Option<Option<Duration>>,
    /// How long a response may be silent.
    pub response_idle_timeout: Option<Option<Duration>>,
    /// How long a write may make no progress.
    pub write_timeout: Option<Option<Duration>>,
    /// The largest request body.
    pub max_request_body_bytes: Option<u64>,
    /// The largest response body.
    pub max_response_body_bytes: Option<u64>,
    /// How much of a request body is read before a backend is chosen.
    pub buffer_request_bytes: Option<usize>,
    /// The largest request body that is kept so that it can be sent again.
    pub replay_bytes: Option<usize>,
    /// Further tries.
    pub retry: Option<RouteRetry>,
}

/// Further tries of a route, as far as they are its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteRetry {
    /// How many.
    pub attempts: Option<u32>,
    /// After which failures.
    pub conditions: Option<Conditions>,
    /// How long one try may take to its response head. None within = no bound.
    pub per_try_timeout: Option<Option<Duration>>,
    /// The range of the pause before the first of them.
    pub backoff: Option<Duration>,
}

/// As good as no bound; it can be added to a clock.
const FOR_EVER: Duration = Duration::from_secs(100 * 366 * 86_400);

impl RouteLimits {
    /// The times of the listener with those of the route in their places.
    pub fn http(&self, of_listener: &Http) -> Http {
        let bound = |own: Option<Option<Duration>>, listeners: Duration| match own {
            Some(own) => own.unwrap_or(FOR_EVER),
            None => listeners,
        };
        Http {
            total_timeout: self.total_timeout.unwrap_or(of_listener.total_timeout),
            head_timeout: bound(self.head_timeout, of_listener.head_timeout),
            body_timeout: bound(self.body_timeout, of_listener.body_timeout),
            response_idle_timeout: self.response_idle_timeout.unwrap_or(of_listener.response_idle_timeout),
            write_timeout: bound(self.write_timeout, of_listener.write_timeout),
            max_request_body_bytes: self.max_request_body_bytes.or(of_listener.max_request_body_bytes),
            max_response_body_bytes: self.max_response_body_bytes,
            buffer_request_bytes: self.buffer_request_bytes.unwrap_or(of_listener.buffer_request_bytes),
            replay_bytes: self.replay_bytes.unwrap_or(of_listener.replay_bytes),
            ..of_listener.clone()
        }
    }
}

impl RouteRetry {
    /// The rules of the pool with those of the route in their places.
    pub fn rules(&self, of_pool: &RetrySettings) -> RetrySettings {
        RetrySettings {
            attempts: self.attempts.or(of_pool.attempts).or(Some(1)),
            conditions: self.conditions.unwrap_or(of_pool.conditions),
            per_try_timeout: self.per_try_timeout.unwrap_or(of_pool.per_try_timeout),
            backoff: self.backoff.unwrap_or(of_pool.backoff),
            ..*of_pool
        }
    }
}
