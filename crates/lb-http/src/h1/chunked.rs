//! Chunked transfer coding (RFC 9112 §7.1), decoded strictly: lines end in CRLF, sizes are plain hexadecimal, extensions are dropped
//! and their total is capped (attacks H1-05, H1-06).

/// Bytes of chunk extensions that one body may carry beyond those that its content makes up for, byte for byte.
const MAX_EXTENSION_BYTES: u32 = 4096;

/// Hexadecimal digits of a chunk size, leading zeros included.
const MAX_SIZE_DIGITS: u8 = 16;

/// The largest chunk: more does not fit the signed numbers of others, where it would be another size (RFC 9112 §7.1).
const MAX_SIZE: u64 = u64::MAX >> 1;

/// The coding is broken; the message cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkError;

/// What the decoder found at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkPiece {
    /// So many bytes of body stand after the bytes consumed.
    Data(usize),
    /// The input is used up.
    More,
    /// The last chunk has passed; the trailer section follows.
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Last,
}

/// Decoder of one body. It holds no bytes.
#[derive(Clone, Debug)]
pub struct ChunkDecoder {
    state: State,
    size: u64,
    digits: u8,
    extension: u32,
}

impl ChunkDecoder {
    /// A decoder that stands before the first chunk.
    pub fn new() -> Self {
        Self { state: State::Size, size: 0, digits: 0, extension: 0 }
    }

    /// Decodes from the start of `input` to the next body bytes. Returns how many framing bytes to skip and what stands behind
    /// them; body bytes reported count as taken.
    ///
    /// # Errors
    /// When the coding is broken.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, ChunkPiece), ChunkError> {
        let mut at = 0usize;
        loop {
            if self.state == State::Last {
                return Ok((at, ChunkPiece::Last));
            }
            let Some(byte) = input.get(at).copied() else { return Ok((at, ChunkPiece::More)) };
            if self.state == State::Data {
                let here = input.len().saturating_sub(at);
                let n = usize::try_from(self.size).map_or(here, |size| size.min(here));
                self.size = self.size.saturating_sub(u64::try_from(n).unwrap_or(u64::MAX));
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                return Ok((at, ChunkPiece::Data(n)));
            }
            self.state = self.framing(byte)?;
            at = at.saturating_add(1);
        }
    }

    fn framing(&mut self, byte: u8) -> Result<State, ChunkError> {
        Ok(match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(ChunkError)?;
                if self.digits == MAX_SIZE_DIGITS || self.size > MAX_SIZE >> 4 {
                    return Err(ChunkError);
                }
                self.digits = self.digits.saturating_add(1);
                self.size = (self.size << 4) | u64::from(digit);
                State::Size
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) if self.extension < MAX_EXTENSION_BYTES => {
                self.extension = self.extension.saturating_add(1);
                State::Extension
            }
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                // A body that carries something with each of its chunks may be of any length.
                self.extension = self.extension.saturating_sub(u32::try_from(self.size).unwrap_or(u32::MAX));
                if self.size == 0 { State::Last } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            _ => return Err(ChunkError),
        })
    }
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes the line that stands before `length` bytes of a chunk.
#[inline]
pub fn write_size(out: &mut Vec<u8>, length: usize) {
    let mut digits = [0u8; 16];
    let mut rest = length;
    let mut start = digits.len();
    for slot in digits.iter_mut().rev() {
        let nibble = u8::try_from(rest & 15).unwrap_or_default();
        *slot = if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
        start = start.saturating_sub(1);
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or(&[]));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` cut into pieces of `step` bytes; returns the body and what is left after the last chunk.
    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, usize), ChunkError> {
        let mut decoder = ChunkDecoder::new();
        let mut body = Vec::new();
        let mut used = 0;
        for part in input.chunks(step) {
            let mut rest = part;
            loop {
                let (skip, piece) = decoder.next(rest)?;
                used += skip;
                rest = &rest[skip..];
                match piece {
                    ChunkPiece::Data(n) => {
                        body.extend_from_slice(&rest[..n]);
                        used += n;
                        rest = &rest[n..];
                    }
                    ChunkPiece::More => break,
                    ChunkPiece::Last => return Ok((body, used)),
                }
            }
        }
        Ok((body, usize::MAX))
    }

    #[test]
    fn any_cut_gives_the_same_body() {
        let input = b"5;x=\"y\"\r\nhello\r\n010\r\n0123456789abcdef\r\n0\r\nTrailer: a\r\n\r\n";
        for step in 1..=input.len() {
            let (body, used) = decode(input, step).unwrap();
            assert_eq!(body, b"hello0123456789abcdef");
            assert_eq!(&input[used..], b"Trailer: a\r\n\r\n");
        }
    }

    #[test]
    fn h1_05_h1_06_broken_framing_is_refused_wherever_it_is_cut() {
        for bad in [
            "0x5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "5_0\r\n",
            "\r\n",
            ";a\r\n",
            "5 ;a\r\nhello\r\n",
            "5 \r\nhello\r\n",
            " 5\r\n",
            "5\nhello\r\n",
            "5\rhello",
            "5;a\nhello\r\n",
            "5;a\rb\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n",
            "5\r\nhello\r\r",
            "11111111111111111\r\n",
            "5;\0\r\n",
            "g\r\n",
            "-0\r\n",
        ] {
            for step in 1..=bad.len() {
                assert_eq!(decode(bad.as_bytes(), step), Err(ChunkError), "{bad:?} by {step}");
            }
        }
    }

    #[test]
    fn h1_06_extensions_are_capped_over_the_whole_body() {
        // A checksum with each chunk, in a body of any length.
        let chunk = format!("40;sum={}\r\n{}\r\n", "5".repeat(60), "x".repeat(64));
        assert!(decode(chunk.repeat(10_000).as_bytes(), 77).is_ok());
        let chunk = format!("3f;sum={}\r\n{}\r\n", "5".repeat(60), "x".repeat(63));
        assert_eq!(decode(chunk.repeat(10_000).as_bytes(), 77), Err(ChunkError));
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(1000));
        assert!(decode(chunk.repeat(4).as_bytes(), 77).is_ok());
        assert_eq!(decode(chunk.repeat(5).as_bytes(), 77), Err(ChunkError));
    }

    #[test]
    fn sizes_are_written_without_leading_zeros() {
        for (length, text) in [(1, "1\r\n"), (10, "a\r\n"), (255, "ff\r\n"), (65536, "10000\r\n")] {
            let mut out = Vec::new();
            write_size(&mut out, length);
            assert_eq!(out, text.as_bytes());
        }
    }
}
