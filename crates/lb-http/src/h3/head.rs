//! Heads and trailers from field sections, and into HEADERS frames: the rules are those of HTTP/2 (RFC 9114 §4.3).

use lb_core::failure::Reject;
use lb_core::head::{BodyLength, Fields, RequestHead, ResponseHead, Version};
use lb_core::reason::Reason;

use super::code::H3Error;
use super::frame::write;
use super::qpack::{QpackDecoder, StaticEncoder};
use crate::section::encode;
use crate::section::request::{Refusal, RequestLimits, RequestReader};
use crate::section::response::{ResponseReader, TrailerReader};

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The connection or the stream ends.
    Broken(H3Error),
    /// The request is answered with a refusal.
    Answer(Reject),
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The connection ends: its field sections cannot be decoded.
    Broken(H3Error),
    /// The response is malformed, for this reason. Its stream ends with H3_MESSAGE_ERROR.
    Malformed(Reason),
}

/// Reads a request head into `head`, and throws away what that held. `end` says that the stream has ended behind this section.
///
/// Returns what [`super::MessageReader::expect_content`] is given: the length of the content, if the head announces one. Where
/// [`RequestHead::upgrade`] is set, the request is an extended CONNECT (RFC 9220), and nothing but DATA may follow.
///
/// # Errors
/// When the section is broken or malformed, or the request is refused. What can be told of a refused request then stands in `head`, for the
/// access log.
pub fn decode_request(
    qpack: &mut QpackDecoder,
    section: &[u8],
    end: bool,
    head: &mut RequestHead,
    limits: RequestLimits<'_>,
) -> Result<Option<u64>, RequestError> {
    let mut reader = RequestReader::new(head, limits, Version::H3);
    qpack
        .decode(section, &mut |name, value, _| reader.field(name, value))
        .map_err(|error| RequestError::Broken(error.into()))?;
    reader.finish(end).map_err(|refusal| match refusal {
        Refusal::Malformed(what) => RequestError::Broken(H3Error::message(what)),
        Refusal::Answer(reject) => RequestError::Answer(reject),
    })
}

/// Reads a response head into `head`, which is empty. `end` says that the stream has ended behind this section, `to_head` that the request
/// was HEAD. The decoded list may have `max_list` bytes.
///
/// Returns what [`super::MessageReader::expect_content`] is given behind a final head. An interim head is followed by another one:
/// [`super::MessageReader::expect_head`].
///
/// # Errors
/// When the section is broken or the response malformed.
pub fn decode_response(
    qpack: &mut QpackDecoder,
    section: &[u8],
    end: bool,
    to_head: bool,
    head: &mut ResponseHead,
    max_list: usize,
) -> Result<Option<u64>, ResponseError> {
    let mut reader = ResponseReader::new(head, max_list, Version::H3);
    qpack
        .decode(section, &mut |name, value, _| reader.field(name, value))
        .map_err(|error| ResponseError::Broken(error.into()))?;
    reader.finish(end, to_head).map_err(ResponseError::Malformed)?;
    Ok(match head.body {
        // Neither a length that the head tells of another representation, nor any content (RFC 9110 §6.4.1).
        BodyLength::None => Some(0),
        BodyLength::Known(length) => Some(length),
        BodyLength::Unknown => None,
    })
}

/// Reads a trailer section; fields that may not stand there are left out.
///
/// # Errors
/// When the section is broken, malformed or too large.
pub fn decode_trailers(qpack: &mut QpackDecoder, section: &[u8]) -> Result<Fields, H3Error> {
    let mut reader = TrailerReader::default();
    qpack.decode(section, &mut |name, value, _| reader.field(name, value))?;
    reader.finish().ok_or(H3Error::message("a broken trailer section"))
}

/// Appends a request head as a HEADERS frame. An upgrade is asked for by the extended CONNECT (RFC 9220).
pub fn encode_request(head: &RequestHead, scheme: &[u8], out: &mut Vec<u8>) {
    write::headers(out, |out| encode::request(head, scheme, &mut StaticEncoder, out));
}

/// Appends a response head, interim or final, as a HEADERS frame. A switch of protocols is an acceptance (RFC 9220).
pub fn encode_response(head: &ResponseHead, out: &mut Vec<u8>) {
    write::headers(out, |out| encode::response(head, &mut StaticEncoder, out));
}

/// Appends a trailer section as a HEADERS frame.
pub fn encode_trailers(section: &Fields, out: &mut Vec<u8>) {
    write::headers(out, |out| encode::trailers(section, &mut StaticEncoder, out));
}

#[cfg(test)]
mod tests;
