//! A health check by `grpc.health.v1.Health/Check` (`type = "grpc"`).

use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::http::{Error, HeaderMap, header};
use hyper::{Method, Request, Uri, Version};
use lb_core::grpc::health::{self, ServingStatus};
use lb_core::health::ProbeOutcome;
use lb_io::WorkerIo;

use super::exchange::{Exchange, OVERHEAD_BYTES, USER_AGENT};
use super::plan::Plan;

/// The largest answer that is looked at; a sensible one has seven bytes.
const ANSWER_BYTES: usize = 1024;

/// Whether the backend says that the service serves.
pub(super) async fn check(plan: &Plan, service: &str, io: &Rc<WorkerIo>) -> Result<(), ProbeOutcome> {
    let Ok(request) = request(plan, service) else { return Err(ProbeOutcome::Malformed) };
    let (exchange, response) = Exchange::begin(plan, request, OVERHEAD_BYTES, io).await?;
    if response.status() != 200 {
        return Err(ProbeOutcome::Status(response.status().as_u16()));
    }
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if !content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return Err(ProbeOutcome::Malformed);
    }
    // Where there is nothing but a status, it stands in the head.
    let mut status = status(response.headers());
    let mut answer = Vec::new();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| exchange.fault(&error))?.into_data() {
            Ok(data) if answer.len() + data.len() > ANSWER_BYTES => return Err(ProbeOutcome::Malformed),
            Ok(data) => answer.extend_from_slice(&data),
            Err(frame) => status = frame.trailers_ref().and_then(self::status),
        }
    }
    verdict(status, &answer)?;
    exchange.settle();
    Ok(())
}

fn request(plan: &Plan, service: &str) -> Result<Request<Full<Bytes>>, Error> {
    let scheme = if plan.tls.is_some() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(plan.authority.clone()).path_and_query(health::CHECK);
    Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(uri.build()?)
        .header(header::TE, "trailers")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::USER_AGENT, USER_AGENT)
        .header("grpc-timeout", format!("{}m", plan.timeout.as_millis()))
        .body(Full::new(Bytes::from(health::request(service))))
}

fn status(fields: &HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// What status and message say. The codes are those of gRPC.
fn verdict(status: Option<u16>, answer: &[u8]) -> Result<(), ProbeOutcome> {
    match status {
        None => Err(ProbeOutcome::Malformed),
        // OK
        Some(0) => match health::sole_message(answer).and_then(health::serving_status) {
            None => Err(ProbeOutcome::Malformed),
            Some(status) if status == ServingStatus::Serving as u64 => Ok(()),
            Some(_) => Err(ProbeOutcome::NotServing),
        },
        // DEADLINE_EXCEEDED
        Some(4) => Err(ProbeOutcome::Timeout),
        // NOT_FOUND is said of a service that is not known, UNAVAILABLE of a server on its way out.
        Some(5 | 14) => Err(ProbeOutcome::NotServing),
        Some(code) => Err(ProbeOutcome::Status(code)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
    use super::*;

    fn framed(fields: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 0, u8::try_from(fields.len()).unwrap_or_default()][..], fields].concat()
    }

    #[test]
    fn only_serving_is_a_success() {
        let serving = framed(&[8, 1]);
        assert_eq!(verdict(Some(0), &serving), Ok(()));
        // An unknown field of each kind before and behind it.
        let fields = [16, 0xff, 1, 0x1a, 2, 9, 9, 8, 1, 0x25, 1, 2, 3, 4, 0x29, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(verdict(Some(0), &framed(&fields)), Ok(()));
        for fields in [&[][..], &[8, 0], &[8, 2], &[8, 3], &[8, 1, 8, 2], &[8, 0x81, 1]] {
            assert_eq!(verdict(Some(0), &framed(fields)), Err(ProbeOutcome::NotServing), "{fields:?}");
        }
        assert_eq!(verdict(None, &serving), Err(ProbeOutcome::Malformed));
        assert_eq!(verdict(Some(4), &serving), Err(ProbeOutcome::Timeout));
        assert_eq!(verdict(Some(5), &[]), Err(ProbeOutcome::NotServing));
        assert_eq!(verdict(Some(12), &[]), Err(ProbeOutcome::Status(12)));
    }

    #[test]
    fn what_is_no_answer_is_malformed() {
        for answer in [&framed(&[8])[..], &framed(&[8, 1])[..6], &[1, 0, 0, 0, 2, 8, 1]] {
            assert_eq!(verdict(Some(0), answer), Err(ProbeOutcome::Malformed), "{answer:?}");
        }
    }
}
