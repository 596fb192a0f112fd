//! The messages of the health protocol (`grpc.health.v1`), for the side that asks and for the side that answers
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
//!
//! A message has a prefix of [`PREFIX`] bytes: a flag for compression, which is never offered here, and its length. Each of the two messages
//! has one field, number 1. Fields of other numbers are skipped, and of several fields 1 the last one counts.

/// The target of a call that asks once.
pub const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The target of a call that is answered whenever the answer changes.
pub const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Bytes before a message: compression flag and length.
pub const PREFIX: usize = 5;

/// What a service is said to be: `HealthCheckResponse.ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ServingStatus {
    /// It serves.
    Serving = 1,
    /// It does not.
    NotServing = 2,
    /// There is no such service. Only the answer to [`WATCH`] says so.
    ServiceUnknown = 3,
}

impl ServingStatus {
    /// `HealthCheckResponse` with its prefix.
    pub fn message(self) -> [u8; 7] {
        [0, 0, 0, 0, 2, 0x08, self as u8]
    }
}

/// `HealthCheckRequest` with its prefix. An empty name stands for the server as a whole.
pub fn request(service: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    if !service.is_empty() {
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

/// Whether a prefix announces a compressed message.
pub fn is_compressed(prefix: &[u8]) -> bool {
    prefix.first() != Some(&0)
}

/// The length in a message's prefix.
pub fn message_length(prefix: &[u8]) -> usize {
    let length = prefix.last_chunk().copied().map_or(u32::MAX, u32::from_be_bytes);
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// The one message of a whole body; `None` where the body is not exactly one message that is not compressed.
pub fn sole_message(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    (!is_compressed(prefix) && message_length(prefix) == message.len()).then_some(message)
}

/// The name of the service in a `HealthCheckRequest` without its prefix. `None` where that is no such message.
pub fn service(message: &[u8]) -> Option<&str> {
    let mut service: &[u8] = &[];
    for field in Fields(message) {
        match field? {
            (1, Value::Bytes(value)) => service = value,
            (1, _) => return None,
            _ => {}
        }
    }
    std::str::from_utf8(service).ok()
}

/// The number of the status in a `HealthCheckResponse` without its prefix; 0 where it is absent. `None` where that is no such message.
pub fn serving_status(message: &[u8]) -> Option<u64> {
    let mut status = 0;
    for field in Fields(message) {
        match field? {
            (1, Value::Number(value)) => status = value,
            (1, _) => return None,
            _ => {}
        }
    }
    Some(status)
}

/// The fields of a message in the encoding of Protocol Buffers, each with its number. Ends after the first that is malformed, which is `None`.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed width. No message here has one.
    Fixed,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, value)).filter(|(number, _)| *number > 0)
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            // The tenth byte has room for one bit.
            if shift == 63 && *byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(fields: &[u8]) -> Vec<u8> {
        [&[0][..], &u32::try_from(fields.len()).unwrap().to_be_bytes(), fields].concat()
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = "x".repeat(300);
        assert_eq!(request(&long)[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
        for name in ["", "a.B", &long] {
            assert_eq!(sole_message(&request(name)).and_then(service), Some(name));
        }
    }

    #[test]
    fn a_response_is_read_as_it_was_written() {
        for status in [ServingStatus::Serving, ServingStatus::NotServing, ServingStatus::ServiceUnknown] {
            let number = sole_message(&status.message()).and_then(serving_status);
            assert_eq!(number, Some(status as u64));
        }
        assert_eq!(serving_status(&[]), Some(0));
        // An unknown field of each kind before and behind it.
        let fields = [16, 0xff, 1, 0x1a, 2, 9, 9, 8, 1, 0x25, 1, 2, 3, 4, 0x29, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(serving_status(&fields), Some(1));
        assert_eq!(serving_status(&[8, 1, 8, 2]), Some(2), "the last one counts");
        assert_eq!(serving_status(&[8, 0x81, 1]), Some(129));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for cut in 0..7 {
            assert_eq!(sole_message(&framed(&[8, 1])[..cut]), None, "{cut}");
        }
        for fields in [&[8][..], &[0], &[9], &[10, 1, 1], &[0x1a, 200, 1], &[0x1b], &[8, 0x80], &[0x80; 11]] {
            assert_eq!(serving_status(fields), None, "{fields:?}");
        }
        assert_eq!(sole_message(&[&framed(&[8, 1])[..], &[0]].concat()), None, "bytes behind it");
        assert_eq!(sole_message(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
        let overlong = [&[8][..], &[0xff; 9], &[2]].concat();
        assert_eq!(serving_status(&overlong), None, "more than 64 bits");
    }
}
