//! The health protocol (`grpc.health.v1`), which the gateway answers from what it knows of its backends
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
//!
//! Of the messages that clients send, its requests are the only ones that are read ([`lb_core::grpc::health`]). A request holds the name of
//! a service and nothing else, so it is small by nature: what claims to be larger is refused by its prefix, before any of it is kept
//! (attack C-14).

use lb_core::grpc::health::{self, PREFIX};

use super::Status;

/// A method of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One answer.
    Check,
    /// An answer at once, and another whenever it changes.
    Watch,
}

impl Method {
    /// Recognises the target of a request.
    pub fn of(target: &[u8]) -> Option<Self> {
        if target == health::CHECK.as_bytes() {
            Some(Self::Check)
        } else if target == health::WATCH.as_bytes() {
            Some(Self::Watch)
        } else {
            None
        }
    }
}

/// Collects the one message of a request, whose pieces come as they like.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
}

impl Reader {
    /// Takes the next piece of the body.
    ///
    /// # Errors
    /// How the call ends when the request is not one that can be answered; further pieces are not wanted.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Status> {
        for part in piece.chunks(PREFIX) {
            self.bytes.extend_from_slice(part);
            self.check_prefix()?;
        }
        Ok(())
    }

    /// The body is complete: the name of the service, empty for the server as a whole.
    ///
    /// # Errors
    /// How the call ends when that is no request.
    pub fn finish(&self) -> Result<&str, Status> {
        health::sole_message(&self.bytes).and_then(health::service).ok_or(Status::InvalidArgument)
    }

    fn check_prefix(&self) -> Result<(), Status> {
        let Some((prefix, message)) = self.bytes.split_at_checked(PREFIX) else { return Ok(()) };
        // No compression was offered, so none may be used (the protocol, "Compression").
        if health::is_compressed(prefix) {
            return Err(Status::Unimplemented);
        }
        match health::message_length(prefix) {
            length if length > MAX_MESSAGE => Err(Status::ResourceExhausted),
            // More than the one message of a unary request.
            length if message.len() > length => Err(Status::InvalidArgument),
            _ => Ok(()),
        }
    }
}

/// Bytes of a request's message: far more than any service's name.
const MAX_MESSAGE: usize = 1024;

#[cfg(test)]
mod tests {
    use lb_core::grpc::health::ServingStatus;
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    fn read(body: &[u8], step: usize) -> Result<String, Status> {
        let mut reader = Reader::default();
        for piece in body.chunks(step) {
            reader.push(piece)?;
        }
        reader.finish().map(str::to_owned)
    }

    #[test]
    fn the_service_is_read_wherever_the_body_is_cut() {
        let name = "a.very.long.package.of.services.v1.Service".repeat(4);
        let long = [&[0x0a, 0xa8, 0x01][..], name.as_bytes()].concat();
        for (message, wanted) in [
            (&b""[..], ""),
            (b"\x0a\x05hello", "hello"),
            (b"\x0a\x01a\x0a\x01b", "b"),
            (b"\x10\x96\x01\x0a\x01a\x1a\x02xx\x25\0\0\0\0\x29\0\0\0\0\0\0\0\0", "a"),
            (&long, &name),
        ] {
            for step in [1, 2, 5, 6, 1000] {
                assert_eq!(read(&framed(message), step).as_deref(), Ok(wanted), "by {step}");
            }
        }
    }

    #[test]
    fn c_14_prefixes_and_messages_that_lie_are_refused() {
        for (body, status) in [
            (vec![0, 0xff, 0xff, 0xff, 0xff], Status::ResourceExhausted),
            (vec![0, 0, 0, 0x04, 0x01], Status::ResourceExhausted),
            (vec![1, 0, 0, 0, 0], Status::Unimplemented),
            (vec![], Status::InvalidArgument),
            (vec![0, 0, 0], Status::InvalidArgument),
            (vec![0, 0, 0, 0, 1], Status::InvalidArgument),
            (framed(b"").repeat(2), Status::InvalidArgument),
            (framed(b"\x0a\x05hell"), Status::InvalidArgument),
            (framed(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Status::InvalidArgument),
            (framed(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), Status::InvalidArgument),
            (framed(b"\x08\x01"), Status::InvalidArgument),
            (framed(b"\x02\x00"), Status::InvalidArgument),
            (framed(b"\x0b"), Status::InvalidArgument),
            (framed(b"\x0a\x01\xff"), Status::InvalidArgument),
        ] {
            for step in [1, 3, 1000] {
                assert_eq!(read(&body, step), Err(status), "{body:02x?} by {step}");
            }
        }
    }

    #[test]
    fn nothing_is_kept_of_what_comes_behind_a_lie() {
        let mut reader = Reader::default();
        let flood = [&[0, 0xff, 0xff, 0xff, 0xff][..], &[0; 100_000]].concat();
        assert_eq!(reader.push(&flood), Err(Status::ResourceExhausted));
        assert!(reader.bytes.capacity() <= 64);
    }

    #[test]
    fn responses_and_paths() {
        assert_eq!(ServingStatus::Serving.message(), *b"\0\0\0\0\x02\x08\x01");
        assert_eq!(ServingStatus::NotServing.message()[6], 2);
        assert_eq!(ServingStatus::ServiceUnknown.message()[6], 3);
        assert_eq!(Method::of(b"/grpc.health.v1.Health/Check"), Some(Method::Check));
        assert_eq!(Method::of(b"/grpc.health.v1.Health/Watch"), Some(Method::Watch));
        for other in
            ["/grpc.health.v1.Health/check", "/grpc.health.v1.Health/Check?a", "/grpc.health.v1.Health/List"]
        {
            assert_eq!(Method::of(other.as_bytes()), None);
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_any_body_reads_the_same(
            message in proptest::collection::vec(any::<u8>(), 0..60),
            raw in proptest::collection::vec(any::<u8>(), 0..20),
            step in 1usize..30,
        ) {
            for body in [framed(&message), raw] {
                prop_assert_eq!(read(&body, step), read(&body, body.len().max(1)));
            }
        }
    }
}
