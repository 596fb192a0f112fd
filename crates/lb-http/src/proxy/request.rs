//! The request of an exchange, as far as it has come.

use lb_core::head::{BodyLength, FieldName, RequestHead};
use tokio::time::Instant;

use super::replay::Replay;
use super::upload::Upload;

/// The head of a request, and how its body gets on.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) head: RequestHead,
    pub(super) upload: Upload,
    /// What of the body can be sent again.
    pub(super) replay: Replay,
}

impl Request {
    /// A request whose head has come, and nothing of its body.
    pub(super) fn new(head: RequestHead, started: Instant) -> Self {
        let has_body = !matches!(head.body, BodyLength::None | BodyLength::Known(0));
        let expects = has_body && head.fields.values(FieldName::Expect).next().is_some();
        Self { head, upload: Upload::new(has_body, expects, started), replay: Replay::default() }
    }

    /// Whether a backend gets something after the head.
    pub(super) fn has_body(&self) -> bool {
        !self.head.upgrade.is_empty() || !matches!(self.head.body, BodyLength::None | BodyLength::Known(0))
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
