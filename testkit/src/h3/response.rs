//! What a client has seen of a request stream.

use crate::pattern::Verifier;
use crate::wire::Headers;

/// How much of a body is kept; all of it is compared with the pattern.
pub(super) const BODY_KEPT: usize = 1024 * 1024;

/// What came on a stream so far.
#[derive(Debug, Clone, Default)]
pub struct H3Response {
    /// Interim heads.
    pub interim: Vec<Headers>,
    /// The final head.
    pub head: Option<Headers>,
    /// The first MiB of the body.
    pub body: Vec<u8>,
    /// The whole body, compared with the pattern.
    pub pattern: Verifier,
    /// The trailer section.
    pub trailers: Option<Headers>,
    /// Whether the stream was ended by the peer.
    pub ended: bool,
    /// The code with which the peer reset it.
    pub reset: Option<u64>,
}

impl H3Response {
    /// The status; 0 when there is no head.
    pub fn status(&self) -> u16 {
        status_of(self.head.as_ref())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether nothing more can come.
    pub fn is_over(&self) -> bool {
        self.ended || self.reset.is_some()
    }
}

pub(super) fn status_of(head: Option<&Headers>) -> u16 {
    head.and_then(|h| h.get(":status")).and_then(|s| s.parse().ok()).unwrap_or(0)
}
