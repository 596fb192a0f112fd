//! Response heads and trailers from field sections. A backend is trusted with its content, not with the framing (RFC 9113 §8.3.2,
//! RFC 9114 §4.3.2).

use lb_core::head::{BodyLength, FieldName, Fields, ResponseHead, Version};
use lb_core::reason::Reason;

use super::field::{self, FIELD_OVERHEAD};
use crate::h1::request::MAX_FIELDS;
use crate::rules::{self, MAX_TRAILER_BYTES, MAX_TRAILER_FIELDS};

/// Takes the fields of one response head.
#[derive(Debug)]
pub(crate) struct ResponseReader<'a> {
    head: &'a mut ResponseHead,
    left: usize,
    fields: usize,
    regular: bool,
    length: Option<u64>,
    fault: Option<Reason>,
}

impl<'a> ResponseReader<'a> {
    /// A reader into `head`, which is empty. The decoded list may have `max_bytes`.
    #[inline]
    pub(crate) fn new(head: &'a mut ResponseHead, max_bytes: usize, version: Version) -> Self {
        head.version = version;
        Self { head, left: max_bytes, fields: 0, regular: false, length: None, fault: None }
    }

    /// Takes one field.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        if self.fault.is_none() {
            self.fault = self.take(name, value).err();
        }
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), Reason> {
        let size = name.len().saturating_add(value.len()).saturating_add(FIELD_OVERHEAD);
        self.left = self.left.checked_sub(size).ok_or(Reason::HeadTooLarge)?;
        self.fields = self.fields.saturating_add(1);
        if self.fields > MAX_FIELDS {
            return Err(Reason::HeadTooLarge);
        }
        if name == b":status" {
            let status = match value {
                [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                    [a, b, c].into_iter().fold(0, |status, digit| status * 10 + u16::from(*digit - b'0'))
                }
                _ => return Err(Reason::HeadSyntax),
            };
            // 101 does not exist in HTTP/2 and HTTP/3 (RFC 9113 §8.6, RFC 9114 §4.5).
            if self.regular || self.head.status != 0 || status == 101 {
                return Err(Reason::HeadSyntax);
            }
            self.head.status = status;
            return Ok(());
        }
        self.regular = true;
        let known = field::check(name, value).map_err(|_| Reason::HeadSyntax)?;
        if known == FieldName::ContentLength {
            let length = field::content_length(value).map_err(|_| Reason::Framing)?;
            if self.length.replace(length).is_some() {
                return Err(Reason::Framing);
            }
        }
        self.head.fields.push_known(known, name, value);
        Ok(())
    }

    /// The block is complete. `end_stream` says that no body follows, `to_head` that the request was HEAD.
    pub(crate) fn finish(self, end_stream: bool, to_head: bool) -> Result<(), Reason> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let head = self.head;
        let status = head.status;
        if status == 0 || (status < 200 && end_stream) {
            return Err(Reason::HeadSyntax);
        }
        let bodiless = status < 200 || status == 204;
        if bodiless {
            // RFC 9110 §8.6: no length may stand here.
            head.fields.remove(FieldName::ContentLength);
        }
        head.body = match self.length {
            _ if bodiless || to_head || status == 304 => BodyLength::None,
            Some(0) if end_stream => BodyLength::Known(0),
            Some(_) if end_stream => return Err(Reason::Framing),
            Some(length) => BodyLength::Known(length),
            None if end_stream => BodyLength::Known(0),
            None => BodyLength::Unknown,
        };
        Ok(())
    }
}

/// Takes the fields of a trailer section; what may not stand there is left out.
#[derive(Debug, Default)]
pub(crate) struct TrailerReader {
    fields: Fields,
    bytes: usize,
    count: usize,
    malformed: bool,
}

impl TrailerReader {
    /// Takes one field.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        self.bytes =
            self.bytes.saturating_add(name.len()).saturating_add(value.len()).saturating_add(FIELD_OVERHEAD);
        self.count = self.count.saturating_add(1);
        self.malformed |= self.bytes > MAX_TRAILER_BYTES || self.count > MAX_TRAILER_FIELDS;
        if self.malformed {
            return;
        }
        match field::check(name, value) {
            Ok(_) if rules::is_forbidden_trailer(name) => {}
            Ok(known) => self.fields.push_known(known, name, value),
            Err(_) => self.malformed = true,
        }
    }

    /// The section, unless it is broken or too large.
    pub(crate) fn finish(self) -> Option<Fields> {
        (!self.malformed).then_some(self.fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)], end: bool, to_head: bool) -> Result<ResponseHead, Reason> {
        let mut head = ResponseHead::default();
        let mut reader = ResponseReader::new(&mut head, 200, Version::H2);
        for (name, value) in fields {
            reader.field(name.as_bytes(), value.as_bytes());
        }
        reader.finish(end, to_head).map(|()| head)
    }

    #[test]
    fn bodies_are_known_from_length_and_end() {
        let body = |fields: &[(&str, &str)], end, to_head| read(fields, end, to_head).unwrap().body;
        let ok = (":status", "200");
        assert_eq!(body(&[ok], false, false), BodyLength::Unknown);
        assert_eq!(body(&[ok], true, false), BodyLength::Known(0));
        assert_eq!(body(&[ok, ("content-length", "7")], false, false), BodyLength::Known(7));
        assert_eq!(body(&[ok, ("content-length", "7")], true, true), BodyLength::None);
        assert_eq!(body(&[(":status", "304"), ("content-length", "7")], true, false), BodyLength::None);
        assert!(read(&[(":status", "204"), ("content-length", "0")], true, false).unwrap().fields.is_empty());
    }

    #[test]
    fn h2_13_broken_heads_are_refused() {
        let syntax = Some(Reason::HeadSyntax);
        for bad in ["", "99", "600", "101", "2000", "2x0"] {
            assert_eq!(read(&[(":status", bad)], true, false).err(), syntax, "{bad}");
        }
        assert_eq!(read(&[], true, false).err(), syntax);
        assert_eq!(read(&[("a", "b"), (":status", "200")], true, false).err(), syntax);
        assert_eq!(read(&[(":status", "200"), (":status", "200")], true, false).err(), syntax);
        assert_eq!(read(&[(":status", "200"), ("A", "b")], true, false).err(), syntax);
        assert_eq!(read(&[(":status", "100")], true, false).err(), syntax);
        let framing = Some(Reason::Framing);
        assert_eq!(read(&[(":status", "200"), ("content-length", "1")], true, false).err(), framing);
        assert_eq!(read(&[(":status", "200"), ("content-length", "-1")], true, false).err(), framing);
        let large = "v".repeat(200);
        assert_eq!(read(&[(":status", "200"), ("a", &large)], true, false).err(), Some(Reason::HeadTooLarge));
    }

    #[test]
    fn trailers_pass_without_the_forbidden_ones() {
        let mut reader = TrailerReader::default();
        for (name, value) in [("grpc-status", "0"), ("content-length", "3"), ("x-sum", "1")] {
            reader.field(name.as_bytes(), value.as_bytes());
        }
        let names: Vec<_> = reader.finish().unwrap().iter().map(|f| f.name.to_vec()).collect();
        assert_eq!(names, [b"grpc-status".to_vec(), b"x-sum".to_vec()]);
        for bad in [":status", "Upper", ""] {
            let mut reader = TrailerReader::default();
            reader.field(bad.as_bytes(), b"x");
            assert!(reader.finish().is_none(), "{bad}");
        }
    }
}
