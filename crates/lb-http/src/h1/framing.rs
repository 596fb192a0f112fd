//! Where a message ends (RFC 9112 §6). Anything that two parsers could read differently is refused.

use lb_core::head::FieldName;

/// The framing fields of one head, gathered while its lines are walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    content_length: Option<u64>,
    transfer: Transfer,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Transfer {
    #[default]
    Absent,
    Chunked,
    /// A well-formed coding that is not `chunked`, alone or before it.
    Unknown,
}

/// Why a head does not say where its message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `Content-Length` is no plain decimal number, or stands there twice (attack H1-02).
    ContentLength,
    /// `Transfer-Encoding` is malformed, repeated, or has `chunked` in a wrong place (attack H1-03).
    TransferEncoding,
    /// A coding other than `chunked`, which the gateway cannot decode.
    UnknownCoding,
    /// Both fields (attack H1-01).
    Both,
    /// `Transfer-Encoding` in an HTTP/1.0 message (attack H1-04).
    OldVersion,
}

/// What the framing fields say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delimiter {
    /// No framing field.
    Absent,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

impl Framing {
    /// Takes notice of one field line.
    #[inline]
    pub fn line(&mut self, known: FieldName, value: &[u8]) {
        match known {
            FieldName::ContentLength => {
                let length = parse_length(value);
                if length.is_none() || self.content_length.is_some() {
                    self.fault = Some(Fault::ContentLength);
                }
                self.content_length = length.or(Some(0));
            }
            FieldName::TransferEncoding => {
                if self.transfer != Transfer::Absent {
                    self.fault = Some(Fault::TransferEncoding);
                }
                self.transfer = match parse_transfer(value) {
                    Ok(transfer) => transfer,
                    Err(fault) => {
                        self.fault = Some(fault);
                        Transfer::Chunked
                    }
                };
            }
            _ => {}
        }
    }

    /// The decision, once all lines were seen.
    ///
    /// # Errors
    /// When the fields contradict each other or cannot be understood.
    #[inline]
    pub fn decide(&self, http10: bool) -> Result<Delimiter, Fault> {
        match (self.transfer, self.content_length) {
            (Transfer::Absent, _) if self.fault.is_some() => Err(self.fault.unwrap_or(Fault::Both)),
            (Transfer::Absent, None) => Ok(Delimiter::Absent),
            (Transfer::Absent, Some(length)) => Ok(Delimiter::Length(length)),
            (_, Some(_)) => Err(Fault::Both),
            _ if http10 => Err(Fault::OldVersion),
            (_, None) if self.fault.is_some() => Err(self.fault.unwrap_or(Fault::Both)),
            (Transfer::Chunked, None) => Ok(Delimiter::Chunked),
            (Transfer::Unknown, None) => Err(Fault::UnknownCoding),
        }
    }
}

/// The longest body that may be announced: more does not fit the signed numbers of others, where it would be another length
/// (RFC 9110 §8.6).
const MAX_LENGTH: u64 = u64::MAX >> 1;

/// A plain decimal number of at most 19 digits and at most [`MAX_LENGTH`]: no sign, no list, no white space inside.
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let length = value.iter().try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum.wrapping_mul(10).wrapping_add(u64::from(byte.wrapping_sub(b'0'))))
    });
    length.filter(|length| *length <= MAX_LENGTH)
}

/// `chunked` alone is understood; a list of plain tokens without `chunked` before its end is well-formed but unknown.
fn parse_transfer(value: &[u8]) -> Result<Transfer, Fault> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Transfer::Chunked);
    }
    let mut codings = value.split(|byte| *byte == b',').map(trim_spaces);
    let is_token = |coding: &[u8]| {
        !coding.is_empty() && coding.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    let known = ["gzip", "deflate", "compress", "br", "zstd", "identity", "x-gzip", "x-compress"];
    let Some(last) = codings.next_back() else { return Err(Fault::TransferEncoding) };
    let plain = |coding: &[u8]| {
        is_token(coding) && known.iter().any(|name| coding.eq_ignore_ascii_case(name.as_bytes()))
    };
    let last_ok = plain(last) || last.eq_ignore_ascii_case(b"chunked");
    if last_ok && codings.all(plain) { Ok(Transfer::Unknown) } else { Err(Fault::TransferEncoding) }
}

/// Trims spaces only: a tab is legal white space that some parsers trim and others do not.
fn trim_spaces(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| *byte != b' ').unwrap_or(text.len());
    let end = text.iter().rposition(|byte| *byte != b' ').map_or(start, |at| at.saturating_add(1));
    text.get(start..end).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(lines: &[(FieldName, &str)]) -> Result<Delimiter, Fault> {
        let mut framing = Framing::default();
        for (known, value) in lines {
            framing.line(*known, value.as_bytes());
        }
        framing.decide(false)
    }

    const CL: FieldName = FieldName::ContentLength;
    const TE: FieldName = FieldName::TransferEncoding;

    #[test]
    fn plain_cases() {
        assert_eq!(decide(&[]), Ok(Delimiter::Absent));
        assert_eq!(decide(&[(CL, "0")]), Ok(Delimiter::Length(0)));
        assert_eq!(decide(&[(CL, "007")]), Ok(Delimiter::Length(7)));
        assert_eq!(decide(&[(CL, "9223372036854775807")]), Ok(Delimiter::Length(u64::MAX / 2)));
        assert_eq!(decide(&[(TE, "Chunked")]), Ok(Delimiter::Chunked));
    }

    #[test]
    fn h1_01_both_fields_are_refused() {
        assert_eq!(decide(&[(CL, "3"), (TE, "chunked")]), Err(Fault::Both));
        assert_eq!(decide(&[(TE, "gzip"), (CL, "x")]), Err(Fault::Both));
    }

    #[test]
    fn h1_02_lengths_that_are_not_one_plain_number() {
        for bad in [
            "",
            "5, 6",
            "5,5",
            "+5",
            "-1",
            "0x10",
            "5 ",
            "1_0",
            "99999999999999999999",
            "٣",
            "5;q",
            "9223372036854775808",
            "9999999999999999999",
        ] {
            assert_eq!(decide(&[(CL, bad)]), Err(Fault::ContentLength), "{bad:?}");
        }
        assert_eq!(decide(&[(CL, "5"), (CL, "6")]), Err(Fault::ContentLength));
        assert_eq!(decide(&[(CL, "5"), (CL, "5")]), Err(Fault::ContentLength));
    }

    #[test]
    fn h1_03_only_one_final_chunked_is_understood() {
        for bad in [
            ",chunked",
            "chunked,",
            "chunked,chunked",
            "xchunked",
            "chunked;q=1",
            "chunked gzip",
            "",
            "\tchunked",
            "chunked, gzip",
            "\u{b}chunked",
            "\"chunked\"",
            "chunked\t",
        ] {
            assert_eq!(decide(&[(TE, bad)]), Err(Fault::TransferEncoding), "{bad:?}");
        }
        assert_eq!(decide(&[(TE, "chunked"), (TE, "chunked")]), Err(Fault::TransferEncoding));
        assert_eq!(decide(&[(TE, "gzip"), (TE, "chunked")]), Err(Fault::TransferEncoding));
        assert_eq!(decide(&[(TE, "gzip")]), Err(Fault::UnknownCoding));
        assert_eq!(decide(&[(TE, "gzip, chunked")]), Err(Fault::UnknownCoding));
    }

    #[test]
    fn h1_04_transfer_encoding_needs_http11() {
        let mut framing = Framing::default();
        framing.line(TE, b"chunked");
        assert_eq!(framing.decide(true), Err(Fault::OldVersion));
    }
}
