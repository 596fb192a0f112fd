//! Bodies of messages, in whatever way they are delimited.

use super::Wire;
use super::fault::{Fault, malformed};
use super::head::{Framing, Headers};

/// A body in the middle of being read.
#[derive(Debug)]
pub struct Body {
    /// How it is delimited.
    pub framing: Framing,
    /// The trailer section, once the body has ended.
    pub trailers: Headers,
    /// Whether a chunk carried an extension.
    pub extensions: bool,
    /// Bytes of content so far.
    pub received: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

impl Body {
    /// A body that has not begun.
    pub fn new(framing: Framing) -> Self {
        let stage = match framing {
            Framing::None | Framing::Length(0) => Stage::Done,
            Framing::Length(len) => Stage::Data(len),
            Framing::Chunked => Stage::ChunkSize,
            Framing::Close => Stage::UntilClose,
        };
        Body { framing, trailers: Headers::default(), extensions: false, received: 0, stage }
    }

    /// Whether the whole body was read.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// The next piece of content; `None` at the end.
    pub fn next<'w>(&mut self, wire: &'w mut Wire) -> Result<Option<&'w [u8]>, Fault> {
        loop {
            match self.stage {
                Stage::Done => return Ok(None),
                Stage::Data(left) => {
                    let take = self.available(wire, left)?;
                    let left = left - take as u64;
                    self.stage = if left == 0 { Stage::Done } else { Stage::Data(left) };
                    return Ok(Some(taken(wire, take)));
                }
                Stage::ChunkData(left) => {
                    let take = self.available(wire, left)?;
                    let left = left - take as u64;
                    self.stage = if left == 0 { Stage::ChunkEnd } else { Stage::ChunkData(left) };
                    return Ok(Some(taken(wire, take)));
                }
                Stage::ChunkSize => {
                    let line = self.framed_line(wire)?;
                    let text = String::from_utf8_lossy(&line).into_owned();
                    let (digits, extension) = match text.split_once(';') {
                        Some((digits, _)) => (digits, true),
                        None => (&text[..], false),
                    };
                    self.extensions |= extension;
                    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
                    if digits.is_empty() || digits.len() > 16 || !plain {
                        return malformed(format!("chunk size {text:?}"));
                    }
                    let size = u64::from_str_radix(digits, 16).unwrap();
                    self.stage = if size == 0 { Stage::Trailers } else { Stage::ChunkData(size) };
                }
                Stage::ChunkEnd => {
                    let line = self.framed_line(wire)?;
                    if !line.is_empty() {
                        return malformed("a chunk is longer than its size says");
                    }
                    self.stage = Stage::ChunkSize;
                }
                Stage::Trailers => {
                    self.trailers = wire.fields("a trailer section", &mut Vec::new())?;
                    self.stage = Stage::Done;
                }
                Stage::UntilClose => {
                    if wire.pending().is_empty() && wire.fill()? == 0 {
                        self.stage = Stage::Done;
                        continue;
                    }
                    let take = wire.pending().len();
                    self.received += take as u64;
                    return Ok(Some(taken(wire, take)));
                }
            }
        }
    }

    /// How many of the `left` bytes can be taken now, waiting for at least one.
    fn available(&mut self, wire: &mut Wire, left: u64) -> Result<usize, Fault> {
        if wire.pending().is_empty() && wire.fill()? == 0 {
            return Err(Fault::Truncated(format!("a body, after {} bytes", self.received)));
        }
        let take = left.min(wire.pending().len() as u64) as usize;
        self.received += take as u64;
        Ok(take)
    }

    fn framed_line(&self, wire: &mut Wire) -> Result<Vec<u8>, Fault> {
        wire.line("a chunk size").map_err(|e| match e {
            Fault::Closed => Fault::Truncated(format!("a chunked body, after {} bytes", self.received)),
            other => other,
        })
    }

    /// Reads to the end, handing each piece to `sink`.
    pub fn drain(&mut self, wire: &mut Wire, mut sink: impl FnMut(&[u8])) -> Result<(), Fault> {
        while let Some(piece) = self.next(wire)? {
            sink(piece);
        }
        Ok(())
    }
}

fn taken(wire: &mut Wire, count: usize) -> &[u8] {
    let at = wire.start;
    wire.start += count;
    &wire.buffer[at..at + count]
}
