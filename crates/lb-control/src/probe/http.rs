//! A health check by a request (`type = "http"`).

use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::http::{Error, header};
use hyper::{Method, Request, Uri};
use lb_config::{HttpProbe, ProbeMethod};
use lb_core::health::ProbeOutcome;
use lb_io::WorkerIo;
use memchr::memmem;

use super::exchange::{Exchange, OVERHEAD_BYTES, USER_AGENT};
use super::plan::Plan;

/// Whether the response is the one that is expected.
pub(super) async fn check(plan: &Plan, probe: &HttpProbe, io: &Rc<WorkerIo>) -> Result<(), ProbeOutcome> {
    let Ok(request) = request(plan, probe) else { return Err(ProbeOutcome::Malformed) };
    // The framing of small pieces may be as large as what they carry.
    let limit = OVERHEAD_BYTES.saturating_add(probe.max_body_bytes.saturating_mul(2));
    let (exchange, response) = Exchange::begin(plan, request, limit, io).await?;
    let status = response.status().as_u16();
    if !probe.expected_statuses.iter().any(|expected| expected.contains(&status)) {
        return Err(ProbeOutcome::Status(status));
    }
    let mut body = response.into_body();
    let mut search = Search::new(probe.body_contains.as_deref().unwrap_or_default().as_bytes());
    let mut left = probe.max_body_bytes;
    while left > 0
        && let Some(frame) = body.frame().await
    {
        let Ok(data) = frame.map_err(|error| exchange.fault(&error))?.into_data() else { continue };
        let looked_at = data.get(..left).unwrap_or(&data);
        left -= looked_at.len();
        search.push(looked_at);
    }
    if !search.is_found {
        return Err(ProbeOutcome::Body);
    }
    exchange.settle();
    Ok(())
}

fn request(plan: &Plan, probe: &HttpProbe) -> Result<Request<Full<Bytes>>, Error> {
    let method = match probe.method {
        ProbeMethod::Get => Method::GET,
        ProbeMethod::Head => Method::HEAD,
        ProbeMethod::Options => Method::OPTIONS,
    };
    let request = Request::builder().method(method).header(header::USER_AGENT, USER_AGENT);
    let request = if plan.http2 {
        let scheme = if plan.tls.is_some() { "https" } else { "http" };
        let authority = plan.authority.clone();
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(probe.path.as_str());
        request.uri(uri.build()?)
    } else {
        let request = request.uri(probe.path.as_str()).header(header::HOST, plan.authority.as_str());
        request.header(header::CONNECTION, "close")
    };
    request.header(header::ACCEPT, "*/*").body(Full::default())
}

/// A text that is looked for in pieces of a body. Of what has passed only as much is kept as may be the beginning of the text.
#[derive(Debug)]
struct Search<'a> {
    wanted: &'a [u8],
    tail: Vec<u8>,
    is_found: bool,
}

impl<'a> Search<'a> {
    /// An empty text is in every body.
    fn new(wanted: &'a [u8]) -> Self {
        Self { wanted, tail: Vec::new(), is_found: wanted.is_empty() }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.is_found {
            return;
        }
        let keep = self.wanted.len().saturating_sub(1);
        // Across the border, then in what is new.
        self.tail.extend_from_slice(bytes.get(..keep).unwrap_or(bytes));
        self.is_found =
            memmem::find(&self.tail, self.wanted).is_some() || memmem::find(bytes, self.wanted).is_some();
        if bytes.len() >= keep {
            self.tail.clear();
            self.tail.extend_from_slice(bytes.get(bytes.len() - keep..).unwrap_or_default());
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(keep));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
    use super::Search;

    #[test]
    fn a_text_is_found_however_the_body_is_cut() {
        let body = b"aab aaab aabaaab!";
        for wanted in [&b"aabaaab"[..], b"!", b"aab aaab aabaaab!", b"b a"] {
            for piece in 1..=body.len() {
                let mut search = Search::new(wanted);
                body.chunks(piece).for_each(|bytes| search.push(bytes));
                assert!(search.is_found, "{wanted:?} in pieces of {piece}");
                assert!(search.tail.len() < 2 * wanted.len());
            }
        }
        for (wanted, piece) in [(&b"abba"[..], 1), (b"aabaab", 2), (b"!!", 3), (b"baaa", 5)] {
            let mut search = Search::new(wanted);
            body.chunks(piece).for_each(|bytes| search.push(bytes));
            assert_eq!(search.is_found, body.windows(wanted.len()).any(|window| window == wanted));
        }
        assert!(Search::new(b"").is_found);
    }
}
