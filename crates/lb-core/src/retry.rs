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
    /// The backend said that it has not processed the request (RFC 9113 §8.7).
    Unprocessed,
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

/// Whether another attempt loses nothing and repeats nothing (RFC 9110 §9.2.2, RFC 9112 §9.5).
pub fn may_retry(failure: Failure, attempt: Attempt) -> bool {
    attempt.tries_left > 0
        && !attempt.body_consumed
        && match failure {
            Failure::Connect | Failure::Unprocessed => true,
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
        assert!(!may_retry(Failure::Connect, Attempt { body_consumed: true, ..base }));
    }

    #[test]
    fn idempotence_is_case_sensitive() {
        assert!(is_idempotent(b"PUT"));
        assert!(!is_idempotent(b"put"));
        assert!(!is_idempotent(b"POST"));
    }
}
