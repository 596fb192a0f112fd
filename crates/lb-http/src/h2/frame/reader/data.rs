//! DATA frames, which are handed on in parts as they come.

use super::{BAD_PADDING, take};
use crate::h2::frame::code::FrameError;
use crate::h2::frame::header::{END_STREAM, FrameHeader, PADDED};
use crate::h2::frame::piece::Piece;

/// How far a DATA frame was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    stream: u32,
    end_stream: bool,
    /// The Pad Length field is still to come.
    pad_length_due: bool,
    frame_bytes: usize,
    /// Bytes of data and of padding still to come.
    left: usize,
    padding: usize,
    /// Flow-controlled bytes that no piece has accounted for yet.
    unaccounted: usize,
}

impl Data {
    /// The frame with this header, of which nothing was read yet.
    pub(super) fn new(header: FrameHeader) -> Self {
        let length = header.length as usize;
        Self {
            stream: header.stream,
            end_stream: header.has(END_STREAM),
            pad_length_due: header.has(PADDED),
            frame_bytes: length,
            left: length,
            padding: 0,
            unaccounted: 0,
        }
    }

    /// The next part, taken from the start of `input`; `None` when there is nothing of it to hand out.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        if self.pad_length_due {
            let [padding] = *take(input, 1) else { return Ok(None) };
            let padding = usize::from(padding);
            // The length counts the Pad Length field, too.
            let data = (self.left - 1).checked_sub(padding).ok_or(BAD_PADDING)?;
            (self.frame_bytes, self.left, self.padding) = (data, data, padding);
            self.unaccounted = 1;
            self.pad_length_due = false;
        }
        let bytes = take(input, self.left);
        self.left -= bytes.len();
        let padding = if self.left == 0 { take(input, self.padding).len() } else { 0 };
        self.padding -= padding;
        self.unaccounted += bytes.len() + padding;
        let end_of_frame = self.left == 0 && self.padding == 0;
        if bytes.is_empty() && !end_of_frame {
            return Ok(None);
        }
        let flow_len = self.unaccounted as u32;
        self.unaccounted = 0;
        Ok(Some(Piece::Data {
            stream: self.stream,
            bytes,
            flow_len,
            frame_bytes: self.frame_bytes as u32,
            end_of_frame,
            end_stream: end_of_frame && self.end_stream,
        }))
    }
}
