//! The request of an exchange, as far as it has come.

use lb_core::head::{BodyLength, FieldName, RequestHead};
use tokio::time::Instant;

use super::replay::Replay;
use super::upload::Upload;

/// The head of a request, and how its body gets on.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) head: RequestHead,
    /// The route that took it, by its position.
    pub(super) route: Option<u32>,
    pub(super) upload: Upload,
    /// What of the body can be sent again.
    pub(super) replay: Replay,
    /// Bytes that may still come of the body.
    pub(super) body_left: u64,
}

impl Request {
    /// A request that `route` has taken, whose head has come and nothing of its body, of which what `replay` has room for can be sent again. The body may have `most`
    /// bytes.
    pub(super) fn new(
        head: RequestHead,
        route: Option<u32>,
        started: Instant,
        most: Option<u64>,
        replay: Replay,
    ) -> Self {
        let has_body = !matches!(head.body, BodyLength::None | BodyLength::Known(0));
        let expects = has_body && head.fields.values(FieldName::Expect).next().is_some();
        let upload = Upload::new(has_body, expects, started);
        Self { head, route, upload, replay, body_left: most.unwrap_or(u64::MAX) }
    }

    /// Whether a body is announced that is larger than it may be.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self.head.body, BodyLength::Known(length) if length > self.body_left)
    }

    /// Whether a backend gets something after the head.
    pub(super) fn has_body(&self) -> bool {
        !self.head.upgrade.is_empty() || !matches!(self.head.body, BodyLength::None | BodyLength::Known(0))
    }

    /// Announces the length of a body that is here as a whole, where the client has not: some backends read no other.
    pub(super) fn tell_length(&mut self) {
        let (head, length) = (&mut self.head, self.replay.len());
        let is_told = head.fields.values(FieldName::ContentLength).next().is_some();
        if head.body == BodyLength::Unknown && length > 0 && !is_told && !self.replay.has_trailers() {
            head.body = BodyLength::Known(u64::try_from(length).unwrap_or(u64::MAX));
            head.fields.push(b"Content-Length", length.to_string().as_bytes());
        }
    }

    /// Names a host where the client did not: only HTTP/1.0 comes without, and HTTP/1.1 must name one.
    pub(super) fn name_host(&mut self, member: &str) {
        let head = &mut self.head;
        if head.fields.values(FieldName::Host).next().is_some() {
            return;
        }
        if head.authority.is_empty() {
            head.fields.push(b"Host", member.as_bytes());
        } else {
            head.fields.push_copy(b"Host", head.authority);
        }
    }
}
