//! Whether a request may be sent a second time.

/// How far an attempt got when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection came about: the backend has seen nothing.
    Connect,
    /// A connection that had served before ended before any byte of a response; the usual cause is a backend that closed it while
    /// idle. `sent` says whether any byte of this request left.
    Stale {
        /// Whether any byte of the request was handed to the kernel.
        sent: bool,
    },
    /// The backend said that it has not processed the request, because it takes no more at the moment (REFUSED_STREAM, RFC 9113 §8.7).
    Refused,
    /// The backend said that it has not processed the request, because it is about to end the connection (GOAWAY, RFC 9113 §6.8). It
    /// says nothing against the backend, and costs it nothing.
    GoneAway {
        /// How often that has happened to this request.
        before: u32,
    },
    /// Anything later, or on a connection made for this request.
    Later,
}

/// What is known of the request.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Further tries that the configuration still grants.
    pub tries_left: u32,
    /// The method is idempotent (RFC 9110 §9.2.2).
    pub idempotent: bool,
    /// Bytes of the body were taken from the client and cannot be produced again.
    pub body_consumed: bool,
}

/// Connections that may end under one request. A backend that ends each after a few requests meets a burst of many with as many GOAWAYs.
const MAX_GONE_AWAY: u32 = 32;

/// Whether another attempt loses nothing and repeats nothing (RFC 9110 §9.2.2, RFC 9112 §9.5).
pub fn may_retry(failure: Failure, attempt: Attempt) -> bool {
    let tries_left = match failure {
        Failure::GoneAway { before } => before < MAX_GONE_AWAY,
        _ => attempt.tries_left > 0,
    };
    tries_left
        && !attempt.body_consumed
        && match failure {
            Failure::Connect | Failure::Refused | Failure::GoneAway { .. } => true,
            Failure::Stale { sent } => !sent || attempt.idempotent,
            Failure::Later => false,
        }
}

/// Whether `method` is idempotent (RFC 9110 §9.2.2).
#[inline]
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE" | b"TRACE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_have_been_processed_or_may_be_repeated_is_retried() {
        let base = Attempt { tries_left: 1, idempotent: false, body_consumed: false };
        assert!(may_retry(Failure::Connect, base));
        assert!(may_retry(Failure::Stale { sent: false }, base));
        assert!(!may_retry(Failure::Stale { sent: true }, base));
        assert!(may_retry(Failure::Stale { sent: true }, Attempt { idempotent: true, ..base }));
        assert!(!may_retry(Failure::Later, Attempt { idempotent: true, ..base }));
        assert!(!may_retry(Failure::Connect, Attempt { tries_left: 0, ..base }));
        let tired = Attempt { tries_left: 0, ..base };
        assert!(may_retry(Failure::Refused, base) && !may_retry(Failure::Refused, tired));
        assert!(may_retry(Failure::GoneAway { before: 31 }, tired));
        assert!(!may_retry(Failure::GoneAway { before: 32 }, base));
        assert!(!may_retry(Failure::Connect, Attempt { body_consumed: true, ..base }));
    }

    #[test]
    fn idempotence_is_case_sensitive() {
        assert!(is_idempotent(b"PUT"));
        assert!(!is_idempotent(b"put"));
        assert!(!is_idempotent(b"POST"));
    }
}
