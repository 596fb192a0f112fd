//! A health check by `grpc.health.v1.Health/Check` (`type = "grpc"`).

use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::http::{Error, HeaderMap, header};
use hyper::{Method, Request, Uri, Version};
use lb_core::health::Outcome;
use lb_io::WorkerIo;

use super::exchange::{Exchange, OVERHEAD_BYTES, USER_AGENT};
use super::plan::Plan;

const PATH: &str = "/grpc.health.v1.Health/Check";

/// The largest answer that is looked at; a sensible one has seven bytes.
const ANSWER_BYTES: usize = 1024;

/// Whether the backend says that the service serves.
pub(super) async fn check(plan: &Plan, service: &str, io: &Rc<WorkerIo>) -> Result<(), Outcome> {
    let Ok(request) = request(plan, service) else { return Err(Outcome::Malformed) };
    let (exchange, response) = Exchange::begin(plan, request, OVERHEAD_BYTES, io).await?;
    if response.status() != 200 {
        return Err(Outcome::Status(response.status().as_u16()));
    }
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if !content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return Err(Outcome::Malformed);
    }
    // Where there is nothing but a status, it stands in the head.
    let mut status = status(response.headers());
    let mut answer = Vec::new();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| exchange.fault(&error))?.into_data() {
            Ok(data) if answer.len() + data.len() > ANSWER_BYTES => return Err(Outcome::Malformed),
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
    let uri = Uri::builder().scheme(scheme).authority(plan.authority.clone()).path_and_query(PATH);
    Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(uri.build()?)
        .header(header::TE, "trailers")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::USER_AGENT, USER_AGENT)
        .header("grpc-timeout", format!("{}m", plan.timeout.as_millis()))
        .body(Full::new(Bytes::from(message(service))))
}

fn status(fields: &HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// What status and message say. The codes are those of gRPC.
fn verdict(status: Option<u16>, answer: &[u8]) -> Result<(), Outcome> {
    match status {
        None => Err(Outcome::Malformed),
        // OK
        Some(0) => match serving_status(answer) {
            None => Err(Outcome::Malformed),
            Some(SERVING) => Ok(()),
            Some(_) => Err(Outcome::NotServing),
        },
        // DEADLINE_EXCEEDED
        Some(4) => Err(Outcome::Timeout),
        // NOT_FOUND is said of a service that is not known, UNAVAILABLE of a server on its way out.
        Some(5 | 14) => Err(Outcome::NotServing),
        Some(code) => Err(Outcome::Status(code)),
    }
}

/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: u64 = 1;

/// `HealthCheckRequest { service }`, with the prefix of a gRPC message.
fn message(service: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    if !service.is_empty() {
        // Field 1, a string.
        fields.push(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            fields.push(0x80 | u8::try_from(length & 0x7f).unwrap_or_default());
            length >>= 7;
        }
        fields.push(u8::try_from(length).unwrap_or_default());
        fields.extend_from_slice(service.as_bytes());
    }
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(fields.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(&fields);
    message
}

/// The `status` of exactly one `HealthCheckResponse`, which is 0 where it is absent. Unknown fields are passed over.
fn serving_status(answer: &[u8]) -> Option<u64> {
    // Not compressed: nothing was offered.
    let (0, rest) = answer.split_first()? else { return None };
    let (length, mut rest) = rest.split_first_chunk()?;
    if usize::try_from(u32::from_be_bytes(*length)).ok()? != rest.len() {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (0, _) => return None,
            (1, 0) => status = varint(&mut rest)?,
            (1, _) => return None,
            (_, 0) => {
                varint(&mut rest)?;
            }
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
    use super::*;

    fn framed(fields: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 0, u8::try_from(fields.len()).unwrap_or_default()][..], fields].concat()
    }

    #[test]
    fn a_request_names_its_service() {
        assert_eq!(message(""), [0, 0, 0, 0, 0]);
        assert_eq!(message("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = message(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
        assert_eq!(long.len(), 5 + 3 + 300);
    }

    #[test]
    fn only_serving_is_a_success() {
        let serving = framed(&[8, 1]);
        assert_eq!(verdict(Some(0), &serving), Ok(()));
        // An unknown field of each kind before and behind it.
        let fields = [16, 0xff, 1, 0x1a, 2, 9, 9, 8, 1, 0x25, 1, 2, 3, 4, 0x29, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(verdict(Some(0), &framed(&fields)), Ok(()));
        for fields in [&[][..], &[8, 0], &[8, 2], &[8, 3], &[8, 1, 8, 2], &[8, 0x81, 1]] {
            assert_eq!(verdict(Some(0), &framed(fields)), Err(Outcome::NotServing), "{fields:?}");
        }
        assert_eq!(verdict(None, &serving), Err(Outcome::Malformed));
        assert_eq!(verdict(Some(4), &serving), Err(Outcome::Timeout));
        assert_eq!(verdict(Some(5), &[]), Err(Outcome::NotServing));
        assert_eq!(verdict(Some(12), &[]), Err(Outcome::Status(12)));
    }

    #[test]
    fn what_is_no_answer_is_malformed() {
        for cut in 0..7 {
            assert_eq!(serving_status(&framed(&[8, 1])[..cut]), None, "{cut}");
        }
        for fields in [&[8][..], &[0], &[9], &[10, 1, 1], &[0x1a, 200, 1], &[0x1b], &[8, 0x80], &[0x80; 11]] {
            assert_eq!(serving_status(&framed(fields)), None, "{fields:?}");
        }
        assert_eq!(serving_status(&[&framed(&[8, 1])[..], &[0]].concat()), None, "bytes behind it");
        assert_eq!(serving_status(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
    }
}
