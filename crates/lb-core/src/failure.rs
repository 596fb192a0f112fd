//! Failures of an exchange, in one vocabulary.
//!
//! Codecs, connects, pools and deadlines report a [`Failure`]: what happened, and how far the request had got. Everything that follows from
//! it is decided here: on whose account it goes, whether the request may be tried again ([`crate::retry`] adds what it knows of the request),
//! which status the client is told, in HTTP and in gRPC, whether it counts against the backend, and under which [`Reason`] it is counted
//! and logged.

use crate::breaker::Full;
use crate::grpc::Status;
use crate::outlier::Ending;
use crate::reason::Reason;
use crate::retry::RetryClass;

/// On whose account a failure goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// The client broke a rule or a limit, left, or set a deadline of its own.
    Client,
    /// The backend could not be reached, broke a rule or a limit, or did not answer.
    Backend,
    /// The gateway lacks something, or one of its limits is reached.
    Gateway,
}

/// How far a request had got when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It had no connection to a backend.
    NoConnection,
    /// It had a connection, and none of its bytes had left.
    Unsent,
    /// Some of its bytes had been handed to the kernel.
    Sent,
    /// Some byte of a response, interim responses included, had been passed to the client.
    Answered,
}

impl Reach {
    /// The reach of a request on a connection, by whether some of its bytes have left.
    pub fn of_sent(sent: bool) -> Self {
        if sent { Self::Sent } else { Self::Unsent }
    }
}

/// A refusal of a request on the client's account: the status to answer with, and the reason to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// 4xx or 5xx.
    pub status: u16,
    /// For metrics and the access log.
    pub reason: Reason,
}

impl Reject {
    /// A refusal with this status and reason.
    pub const fn new(status: u16, reason: Reason) -> Self {
        Self { status, reason }
    }
}

/// What a new socket or connection takes and the machine lacks. No peer is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shortage {
    /// File descriptors, of the process or the machine (`EMFILE`, `ENFILE`).
    Descriptors,
    /// Memory for sockets (`ENOBUFS`, `ENOMEM`).
    Memory,
    /// Ports of this machine towards the backend's address, or an address to connect from (`EADDRNOTAVAIL`). Another backend may do.
    Ports,
}

impl Shortage {
    /// The word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Ports => "ports",
        }
    }

    /// The reason under which it is counted and logged.
    pub fn reason(self) -> Reason {
        match self {
            Self::Descriptors => Reason::NoDescriptors,
            Self::Memory => Reason::NoMemory,
            Self::Ports => Reason::NoPorts,
        }
    }
}

/// Why a peer reset a stream, in terms that all versions of HTTP share, with the code that came over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The meaning.
    pub reason: ResetReason,
    /// The error code of the protocol in use.
    pub code: u64,
}

/// What a reset means, whatever the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// A fault of a protocol, or inside the peer, or no error at all where more was due.
    Fault,
    /// The request was not processed, and may be sent again.
    Refused,
    /// The result is not wanted any more.
    Cancelled,
    /// Too much load.
    ExcessiveLoad,
    /// The connection is not secure enough.
    InadequateSecurity,
    /// Anything else.
    Other,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The client broke the protocol or a limit, or asked for what the gateway does not serve.
    Rejected(Reject),
    /// The deadline of a gRPC call has passed, which its client has set.
    CallDeadline,
    /// Nothing has passed for too long in a gRPC call without a deadline.
    CallIdle,
    /// The pool has no member that could be picked.
    NoMember,
    /// Each member that could be picked has failed.
    AllFailed,
    /// The gateway lacks what a connection takes.
    Shortage(Shortage),
    /// All members are at their limits.
    Full(Full),
    /// The connect failed.
    Connect {
        /// It did not end in time.
        timed_out: bool,
    },
    /// A connection was made, and TLS over it failed.
    Tls {
        /// It did not end in time.
        timed_out: bool,
    },
    /// A connection that had served before ended before any byte of a response; the usual cause is a backend that closed it while
    /// idle. A connection that requests share announces its end by GOAWAY: it is stale only while nothing of this request has left.
    Stale,
    /// The connection ended before any byte of a response.
    Closed,
    /// The backend said that it has not processed the request, because it takes no more at the moment (REFUSED_STREAM, RFC 9113 §8.7).
    Refused,
    /// The backend said that it has not processed the request, because it is about to end the connection (GOAWAY, RFC 9113 §6.8). That
    /// says nothing against the backend, and costs it nothing.
    GoneAway,
    /// The connection was reset.
    ConnectionReset,
    /// The backend reset the stream.
    StreamReset(Reset),
    /// The connection ended within the response.
    Truncated,
    /// The response broke the protocol or a limit.
    Malformed(Reason),
    /// No response, or nothing more of it, within the time for it.
    Timeout,
    /// A response with this status came, none of which has been passed to the client.
    Status(u16),
}

/// The failure of an exchange, or of one try of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub kind: Kind,
    /// How far the request had got.
    pub reach: Reach,
}

impl Kind {
    /// The failure of this kind for a request that has got so far.
    pub const fn at(self, reach: Reach) -> Failure {
        Failure { kind: self, reach }
    }

    /// The failure of this kind for a request without a connection.
    pub const fn unconnected(self) -> Failure {
        self.at(Reach::NoConnection)
    }
}

impl From<Reject> for Failure {
    fn from(reject: Reject) -> Self {
        Kind::Rejected(reject).unconnected()
    }
}

impl Failure {
    /// A response that broke the protocol or a limit.
    pub const fn malformed(reason: Reason) -> Self {
        Kind::Malformed(reason).at(Reach::Sent)
    }

    /// This failure, if the request has got as far as `reach` at least.
    pub fn reaching(self, reach: Reach) -> Self {
        Self { reach: self.reach.max(reach), ..self }
    }

    /// This failure on a connection that had served before; `shared` is one that carries several requests at once.
    pub fn on_reused(self, shared: bool) -> Self {
        match self.kind {
            Kind::Closed if !(shared && self.reach >= Reach::Sent) => Self { kind: Kind::Stale, ..self },
            _ => self,
        }
    }

    /// On whose account it goes.
    pub fn account(self) -> Account {
        match self.kind {
            Kind::Rejected(_) | Kind::CallDeadline => Account::Client,
            Kind::CallIdle | Kind::NoMember | Kind::Shortage(_) | Kind::Full(_) => Account::Gateway,
            _ => Account::Backend,
        }
    }

    /// What it is for the rules of further tries; `None` where the request is never tried again.
    #[inline]
    pub fn retry_class(self) -> Option<RetryClass> {
        Some(match self.kind {
            Kind::Connect { .. } | Kind::Tls { .. } | Kind::Shortage(Shortage::Ports) => RetryClass::Connect,
            Kind::Stale => RetryClass::Stale,
            Kind::Refused | Kind::GoneAway => RetryClass::Unprocessed,
            Kind::Closed | Kind::Truncated | Kind::ConnectionReset | Kind::StreamReset(_) => {
                RetryClass::Reset
            }
            Kind::Timeout => RetryClass::Timeout,
            Kind::Status(_) => RetryClass::Status,
            _ => return None,
        })
    }

    /// Whether no backend has done any work for the request: another try is then the first that costs one, and adds no load.
    #[inline]
    pub fn is_free(self) -> bool {
        match self.retry_class() {
            Some(RetryClass::Connect) => true,
            Some(RetryClass::Stale) => self.reach < Reach::Sent,
            _ => self.kind == Kind::GoneAway,
        }
    }

    /// Whether a backend may have worked on the request when its connection was lost.
    pub fn is_loss(self) -> bool {
        self.reach >= Reach::Sent && matches!(self.retry_class(), Some(RetryClass::Stale | RetryClass::Reset))
    }

    /// Whether it counts against the backend where the request is tried again. A connection that proved stale, a stream that was refused and
    /// a connection that was about to end do not: they count where the request ends with them.
    pub fn blames(self) -> bool {
        !matches!(self.kind, Kind::Stale | Kind::Refused | Kind::GoneAway)
            && self.ending().is_some_and(Ending::is_failure)
    }

    /// What it says of the backend for outlier detection. `None` says nothing.
    pub fn ending(self) -> Option<Ending> {
        match self.kind {
            Kind::Status(status) => Some(Ending::of_status(status)),
            _ if self.account() == Account::Backend => Some(Ending::GatewayFailure),
            _ => None,
        }
    }

    /// The status that the client is told while no response has begun.
    pub fn status(self) -> u16 {
        match self.kind {
            Kind::Rejected(reject) => reject.status,
            Kind::Status(status) => status,
            Kind::NoMember | Kind::Shortage(_) | Kind::Full(_) => 503,
            Kind::Connect { timed_out: true }
            | Kind::Tls { timed_out: true }
            | Kind::Timeout
            | Kind::CallDeadline
            | Kind::CallIdle => 504,
            _ => 502,
        }
    }

    /// How a gRPC call ends with it.
    pub fn grpc_status(self) -> Status {
        match self.kind {
            Kind::CallDeadline => Status::DeadlineExceeded,
            Kind::Malformed(_) => Status::Internal,
            Kind::StreamReset(reset) => Status::from_reset(reset.reason),
            // Whatever status HTTP is told: clients of gRPC try again by themselves what is unavailable.
            Kind::Rejected(Reject { reason: Reason::RateLimit, .. }) => Status::ResourceExhausted,
            Kind::Rejected(reject) => Status::from_refusal(reject.status),
            Kind::Status(status) => Status::from_http(status),
            _ => Status::Unavailable,
        }
    }

    /// The `grpc-message` that goes with [`Self::grpc_status`]. `None` where the reason phrase of the status says it.
    pub fn grpc_message(self) -> Option<&'static str> {
        Some(match self.kind {
            Kind::CallDeadline => "deadline exceeded",
            Kind::CallIdle | Kind::Timeout => "nothing has passed for too long",
            Kind::Malformed(_) => "the backend's response was not understood",
            Kind::StreamReset(_) => "the stream was reset",
            Kind::NoMember
            | Kind::AllFailed
            | Kind::Shortage(_)
            | Kind::Connect { .. }
            | Kind::Tls { .. } => "no backend could be reached",
            Kind::Rejected(_) | Kind::Full(_) | Kind::Status(_) => return None,
            Kind::Stale
            | Kind::Closed
            | Kind::Refused
            | Kind::GoneAway
            | Kind::ConnectionReset
            | Kind::Truncated => "the connection to the backend was lost",
        })
    }

    /// The code under which it is counted and logged.
    pub fn reason(self) -> Reason {
        match self.kind {
            Kind::Rejected(reject) => reject.reason,
            Kind::CallDeadline => Reason::GrpcDeadline,
            Kind::CallIdle => Reason::GrpcIdle,
            Kind::NoMember | Kind::AllFailed => Reason::NoBackend,
            Kind::Shortage(shortage) => shortage.reason(),
            Kind::Full(full) => full.reason(),
            Kind::Connect { timed_out: false } => Reason::ConnectFailed,
            Kind::Connect { timed_out: true } => Reason::ConnectTimeout,
            Kind::Tls { .. } => Reason::TlsFailed,
            Kind::Stale | Kind::Closed | Kind::Truncated => Reason::Truncated,
            Kind::Refused | Kind::GoneAway | Kind::ConnectionReset | Kind::StreamReset(_) => Reason::Reset,
            Kind::Malformed(reason) => reason,
            Kind::Timeout => Reason::Timeout,
            Kind::Status(_) => Reason::UpstreamStatus,
        }
    }

    /// What the client's stream is reset with where a response has begun. A backend's reset keeps its meaning, except for a refusal: a
    /// request whose response has begun was processed.
    pub fn reset(self) -> ResetReason {
        match self.kind {
            Kind::StreamReset(Reset { reason: ResetReason::Refused, .. }) => ResetReason::Fault,
            Kind::StreamReset(reset) => reset.reason,
            _ => ResetReason::Fault,
        }
    }

    /// The family of counters that has it under [`Self::reason`]. `None` where another family tells it (connects, overflows, retries).
    pub fn counted_in(self) -> Option<Count> {
        match self.kind {
            Kind::Rejected(reject) if Reason::FILTERS.contains(&reject.reason) => Some(Count::FilterAnswers),
            Kind::Rejected(_) | Kind::Shortage(_) => Some(Count::RequestRejected),
            Kind::Stale
            | Kind::Closed
            | Kind::Refused
            | Kind::GoneAway
            | Kind::ConnectionReset
            | Kind::StreamReset(_)
            | Kind::Truncated
            | Kind::Malformed(_)
            | Kind::Timeout => Some(Count::UpstreamRejected),
            _ => None,
        }
    }
}

/// The counters of failures by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// `request_rejected_total`.
    RequestRejected,
    /// `filter_answers_total`.
    FilterAnswers,
    /// `upstream_rejected_total`.
    UpstreamRejected,
}

#[cfg(test)]
mod tests;
