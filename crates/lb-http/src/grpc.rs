//! gRPC over HTTP/2 as someone between the two ends needs to understand it.
//!
//! Messages are never looked into: calls stream as any other exchange does, trailers included. What is understood is the deadline of
//! a call ([`Timeout`]), how a call ends ([`Status`]) also where the transport failed or answered in plain HTTP, and the one method
//! that the gateway may answer itself ([`health`]).
//!
//! After <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, "the protocol" in what follows.

pub mod answer;
pub mod health;
pub mod timeout;

use lb_core::head::RequestHead;

pub use answer::trailers_only;
pub use lb_core::grpc::Status;
pub use timeout::Timeout;

/// Whether a `Content-Type` is gRPC's: `application/grpc`, perhaps with a message format or parameters. gRPC-Web is another protocol.
pub fn is_grpc(content_type: &[u8]) -> bool {
    match content_type.split_at_checked(GRPC.len()) {
        Some((kind, rest)) => {
            kind.eq_ignore_ascii_case(GRPC) && matches!(rest, [] | [b'+' | b';' | b' ' | b'\t', ..])
        }
        None => false,
    }
}

/// Whether a request is a call by its content type.
pub fn is_call(request: &RequestHead) -> bool {
    request.fields.value_of(b"content-type").is_some_and(is_grpc)
}

const GRPC: &[u8] = b"application/grpc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for yes in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC;charset=utf-8",
            "application/grpc ; a=b",
        ] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in [
            "",
            "application/grp",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpcx",
            "text/plain",
        ] {
            assert!(!is_grpc(no.as_bytes()), "{no}");
        }
    }
}
