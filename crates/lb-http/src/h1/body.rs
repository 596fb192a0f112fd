//! Bodies off the wire: length, chunks, or the end of the connection.

use std::task::Context;

use lb_core::head::Fields;

use super::chunked::{ChunkDecoder, ChunkPiece};
use super::request::{has_bare_lf, span_in};
use crate::message::Sink;
use crate::rules::{self, MAX_TRAILER_BYTES, MAX_TRAILER_FIELDS};

/// Why a body cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Chunk framing is broken.
    Chunk,
    /// The trailer section is broken or larger than allowed.
    Trailer,
}

/// Reads one body.
#[derive(Debug)]
pub enum BodyReader {
    /// Nothing (more) to read.
    Done,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks are still to come.
    Chunked(ChunkDecoder),
    /// All chunks have come; the trailer section is being gathered.
    Trailer(Vec<u8>),
    /// Everything until the connection ends.
    UntilClose,
}

impl BodyReader {
    /// Reader of a body of known length.
    pub fn length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    /// Reader of a chunked body.
    pub fn chunked() -> Self {
        Self::Chunked(ChunkDecoder::new())
    }

    /// Whether the body is complete.
    #[inline]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Decodes `input`, pushes what it holds of the body into `to`, tells `to` the end, and returns how many bytes of `input` belong to
    /// this body.
    ///
    /// # Errors
    /// When the framing is broken. Body bytes before that place were pushed already.
    pub fn read(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        to: &mut impl Sink,
    ) -> Result<usize, BodyError> {
        match self {
            Self::Done => Ok(0),
            Self::UntilClose => {
                to.data(cx, input);
                Ok(input.len())
            }
            Self::Length(left) => {
                let n = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                let (body, _) = input.split_at_checked(n).unwrap_or((input, &[]));
                to.data(cx, body);
                *left = left.saturating_sub(u64::try_from(n).unwrap_or(u64::MAX));
                if *left == 0 {
                    *self = Self::Done;
                    to.end();
                }
                Ok(n)
            }
            Self::Chunked(_) | Self::Trailer(_) => self.read_chunked(cx, input, to),
        }
    }

    fn read_chunked(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        to: &mut impl Sink,
    ) -> Result<usize, BodyError> {
        let mut at = 0usize;
        while let Self::Chunked(decoder) = self {
            let (skip, piece) = decoder.next(input.get(at..).unwrap_or(&[])).map_err(|_| BodyError::Chunk)?;
            at = at.saturating_add(skip);
            match piece {
                ChunkPiece::More => return Ok(at),
                ChunkPiece::Last => *self = Self::Trailer(Vec::new()),
                ChunkPiece::Data(n) => {
                    let end = at.saturating_add(n);
                    to.data(cx, input.get(at..end).unwrap_or(&[]));
                    at = end;
                }
            }
        }
        if let Self::Trailer(section) = self {
            while let Some(byte) = input.get(at) {
                at = at.saturating_add(1);
                section.push(*byte);
                if section == b"\r\n" || section.ends_with(b"\r\n\r\n") {
                    let fields = parse_trailers(section)?;
                    if !fields.is_empty() {
                        to.trailers(&fields);
                    }
                    *self = Self::Done;
                    to.end();
                    break;
                }
                if section.len() >= MAX_TRAILER_BYTES {
                    return Err(BodyError::Trailer);
                }
            }
        }
        Ok(at)
    }
}

/// Parses a trailer section and leaves out what may not stand there (RFC 9110 §6.5.1, attack H1-17).
fn parse_trailers(section: &[u8]) -> Result<Fields, BodyError> {
    let mut fields = Fields::default();
    if section.len() <= 2 {
        return Ok(fields);
    }
    if has_bare_lf(section) {
        return Err(BodyError::Trailer);
    }
    let mut lines = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let Ok(httparse::Status::Complete((_, lines))) = httparse::parse_headers(section, &mut lines) else {
        return Err(BodyError::Trailer);
    };
    fields.append_text(section);
    for line in lines {
        fields.add_span(span_in(section, line.name.as_bytes()), span_in(section, line.value));
    }
    let forbidden: Vec<bool> = fields.iter().map(|field| rules::is_forbidden_trailer(field.name)).collect();
    for (line, forbidden) in fields.lines_mut().iter_mut().zip(forbidden) {
        line.dropped = forbidden;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use std::task::{Poll, Waker};

    use super::*;
    use crate::message::Gone;

    /// Remembers what it was told.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Record {
        body: Vec<u8>,
        trailers: Vec<String>,
        ended: bool,
    }

    impl Sink for Record {
        fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
            assert!(!self.ended);
            self.body.extend_from_slice(bytes);
        }
        fn trailers(&mut self, fields: &Fields) {
            self.trailers = fields.iter().map(|f| String::from_utf8_lossy(f.name).into_owned()).collect();
        }
        fn end(&mut self) {
            assert!(!std::mem::replace(&mut self.ended, true));
        }
        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
            Poll::Ready(Ok(()))
        }
    }

    fn read(mut reader: BodyReader, input: &[u8], step: usize) -> Result<(Record, usize), BodyError> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut record = Record::default();
        let mut used = 0;
        for part in input.chunks(step) {
            let n = reader.read(&mut cx, part, &mut record)?;
            used += n;
            if n < part.len() {
                break;
            }
        }
        Ok((record, used))
    }

    #[test]
    fn bytes_after_the_body_are_left_alone() {
        for step in 1..12 {
            let (record, used) = read(BodyReader::length(5), b"helloNEXT", step).unwrap();
            assert_eq!((record.body.as_slice(), record.ended, used), (&b"hello"[..], true, 5));
            let (record, used) = read(BodyReader::chunked(), b"5\r\nhello\r\n0\r\n\r\nNEXT", step).unwrap();
            assert_eq!((record.body.as_slice(), record.ended, used), (&b"hello"[..], true, 15));
        }
    }

    #[test]
    fn h1_17_trailers_pass_without_the_forbidden_ones() {
        let input = b"0\r\nX-Sum: 1\r\nContent-Length: 9\r\nhost: a\r\nAuthorization: x\r\nX-More: 2\r\n\r\n";
        for step in [1, 7, 100] {
            let (record, used) = read(BodyReader::chunked(), input, step).unwrap();
            assert_eq!(record.trailers, ["X-Sum", "X-More"]);
            assert_eq!(used, input.len());
        }
    }

    #[test]
    fn h1_17_trailer_sections_are_limited_and_strict() {
        let many = format!("0\r\n{}\r\n", "A: b\r\n".repeat(33));
        let large = format!("0\r\nA: {}\r\n\r\n", "b".repeat(9000));
        for bad in [&many, &large, "0\r\nA: b\n\r\n\r\n", "0\r\nA : b\r\n\r\n", "0\r\nA: b\r\n c\r\n\r\n"] {
            assert_eq!(
                read(BodyReader::chunked(), bad.as_bytes(), 64).unwrap_err(),
                BodyError::Trailer,
                "{bad:.40}"
            );
        }
    }

    #[test]
    fn a_body_of_no_bytes_is_done_from_the_start() {
        assert!(BodyReader::length(0).is_done());
    }
}
