use super::*;

/// A failure of each kind.
fn all() -> Vec<Failure> {
    let reset = |reason| Kind::StreamReset(Reset { reason, code: 0 });
    let fulls = [Full::Connections, Full::Requests, Full::Pending, Full::PendingTimeout].map(Kind::Full);
    let shortages = [Shortage::Descriptors, Shortage::Memory, Shortage::Ports].map(Kind::Shortage);
    let timed = [false, true].into_iter();
    let timed = timed.flat_map(|timed_out| [Kind::Connect { timed_out }, Kind::Tls { timed_out }]);
    let refused = Reason::REJECTIONS
        .iter()
        .chain(Reason::FILTERS)
        .map(|reason| Kind::Rejected(Reject::new(400, *reason)));
    let malformed = Reason::UPSTREAM.iter().map(|reason| Kind::Malformed(*reason));
    let resets = [
        ResetReason::Fault,
        ResetReason::Refused,
        ResetReason::Cancelled,
        ResetReason::ExcessiveLoad,
        ResetReason::InadequateSecurity,
        ResetReason::Other,
    ];
    let plain = [
        Kind::CallDeadline,
        Kind::CallIdle,
        Kind::NoMember,
        Kind::AllFailed,
        Kind::Stale,
        Kind::Closed,
        Kind::Refused,
        Kind::GoneAway,
        Kind::ConnectionReset,
        Kind::Truncated,
        Kind::Timeout,
        Kind::Status(500),
    ];
    let kinds = fulls.into_iter().chain(shortages).chain(timed).chain(refused).chain(malformed);
    kinds.chain(resets.map(reset)).chain(plain).map(|kind| kind.at(Reach::Sent)).collect()
}

#[test]
fn what_is_counted_has_a_place_in_its_family() {
    for failure in all() {
        match failure.counted_in() {
            Some(Count::RequestRejected) => assert!(Reason::REJECTIONS.contains(&failure.reason())),
            Some(Count::FilterAnswers) => assert!(Reason::FILTERS.contains(&failure.reason())),
            Some(Count::UpstreamRejected) => assert!(Reason::UPSTREAM.contains(&failure.reason())),
            None => {}
        }
    }
}

#[test]
fn only_backends_are_judged_by_failures_and_only_for_their_own() {
    for failure in all() {
        let judged = failure.ending().is_some();
        assert_eq!(judged, failure.account() == Account::Backend, "{failure:?}");
        assert!(judged || !failure.blames(), "{failure:?}");
        assert!((400..600).contains(&failure.status()), "{failure:?}");
        assert_ne!(failure.grpc_status(), Status::Ok, "{failure:?}");
    }
    let spared = [Kind::Stale, Kind::Refused, Kind::GoneAway].map(|kind| kind.at(Reach::Unsent));
    assert!(spared.iter().all(|failure| !failure.blames() && failure.ending().is_some()));
    assert!(Kind::Closed.at(Reach::Sent).blames());
}

#[test]
fn a_response_that_has_begun_is_never_reset_as_unprocessed() {
    for failure in all() {
        let told = failure.reset();
        assert_ne!(told, ResetReason::Refused, "{failure:?}");
        match failure.kind {
            Kind::StreamReset(Reset { reason, .. }) if reason != ResetReason::Refused => {
                assert_eq!(told, reason);
            }
            _ => assert_eq!(told, ResetReason::Fault, "{failure:?}"),
        }
    }
}

#[test]
fn clients_are_told_whose_fault_it_is_and_whether_it_was_time() {
    let told = |kind: Kind| {
        let failure = kind.at(Reach::Sent);
        (failure.status(), failure.grpc_status(), failure.reason().name())
    };
    let cases = [
        (Kind::NoMember, (503, Status::Unavailable, "no_backend")),
        (Kind::AllFailed, (502, Status::Unavailable, "no_backend")),
        (Kind::Connect { timed_out: false }, (502, Status::Unavailable, "connect_failed")),
        (Kind::Connect { timed_out: true }, (504, Status::Unavailable, "connect_timeout")),
        (Kind::Tls { timed_out: false }, (502, Status::Unavailable, "tls_failed")),
        (Kind::Shortage(Shortage::Ports), (503, Status::Unavailable, "no_ports")),
        (Kind::Full(Full::Pending), (503, Status::Unavailable, "max_pending")),
        (Kind::Closed, (502, Status::Unavailable, "truncated")),
        (Kind::GoneAway, (502, Status::Unavailable, "reset")),
        (Kind::Malformed(Reason::Framing), (502, Status::Internal, "framing")),
        (Kind::Timeout, (504, Status::Unavailable, "timeout")),
        (Kind::CallDeadline, (504, Status::DeadlineExceeded, "grpc_deadline")),
        (
            Kind::Rejected(Reject::new(431, Reason::HeaderTooLarge)),
            (431, Status::ResourceExhausted, "header_too_large"),
        ),
    ];
    for (kind, expected) in cases {
        assert_eq!(told(kind), expected, "{kind:?}");
    }
}

#[test]
fn a_used_connection_that_closes_is_stale_unless_it_is_shared_and_the_request_had_left() {
    let closed = |reach| Kind::Closed.at(reach);
    assert_eq!(closed(Reach::Sent).on_reused(false).kind, Kind::Stale);
    assert_eq!(closed(Reach::Unsent).on_reused(true).kind, Kind::Stale);
    assert_eq!(closed(Reach::Sent).on_reused(true).kind, Kind::Closed);
    assert_eq!(Kind::Truncated.at(Reach::Sent).on_reused(false).kind, Kind::Truncated);
}
