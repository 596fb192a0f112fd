//! What a peer says on a request stream: bytes taken from quiche, and read frame by frame.

use lb_core::head::Fields;
use lb_http::h3::{H3Error, MessagePiece, QpackDecoder, decode_trailers};
use lb_io::Scratch;

use super::stream::Stream;
use crate::connection::Quic;

/// What taking bytes from a stream has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// Nothing has come.
    Nothing,
    /// Some bytes, which were read.
    Some,
    /// The last bytes, or the end alone.
    End,
    /// The peer has reset the stream, with this code.
    Reset(u64),
    /// The stream is gone.
    Gone,
}

/// A part of a message that is of use.
pub(super) enum Part<'a> {
    Data(&'a [u8]),
    /// What the frame that ends here had in all.
    Frame(u32),
    Unknown,
}

/// Why a body cannot be read on.
#[derive(Debug)]
pub(super) enum BodyFault {
    Broken(H3Error),
    /// What was found is more than is taken; the rest is not read.
    Refused,
}

impl Stream {
    /// Takes bytes of the body once, and hands what is in them to `each`, which may refuse them.
    pub(super) fn take_body(
        &mut self,
        quic: &mut Quic,
        id: u64,
        scratch: &mut Scratch,
        qpack: &mut QpackDecoder,
        each: &mut dyn FnMut(Part<'_>) -> bool,
    ) -> Result<Took, BodyFault> {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            self.pieces(&early, qpack, each)?;
            return self.took(self.is_read);
        }
        if self.is_read {
            return self.took(true);
        }
        let room = scratch.room(usize::MAX);
        let (length, fin) = match quic.stream_recv(id, room) {
            Ok(taken) => taken,
            // quiche shows nobody an end that comes with bytes which were read before, as when their acknowledgement was lost.
            Err(quiche::Error::Done) if quic.stream_finished(id) => {
                self.is_read = true;
                return self.took(true);
            }
            Err(quiche::Error::Done) => return Ok(Took::Nothing),
            Err(quiche::Error::StreamReset(code)) => return Ok(Took::Reset(code)),
            Err(_) => return Ok(Took::Gone),
        };
        self.received(length);
        self.is_read = fin;
        let bytes = room.get(..length).unwrap_or_default();
        self.pieces(bytes, qpack, each)?;
        self.took(fin)
    }

    pub(super) fn received(&mut self, length: usize) {
        let bytes = u64::try_from(length).unwrap_or(u64::MAX);
        self.traffic.received = self.traffic.received.saturating_add(bytes);
    }

    fn took(&self, end: bool) -> Result<Took, BodyFault> {
        if end {
            self.reader.finish().map_err(BodyFault::Broken)?;
            return Ok(Took::End);
        }
        Ok(Took::Some)
    }

    fn pieces(
        &mut self,
        mut input: &[u8],
        qpack: &mut QpackDecoder,
        each: &mut dyn FnMut(Part<'_>) -> bool,
    ) -> Result<(), BodyFault> {
        while let Some(piece) = self.reader.next(&mut input).map_err(BodyFault::Broken)? {
            let goes_on = match piece {
                MessagePiece::Data { bytes, frame } => {
                    (bytes.is_empty() || each(Part::Data(bytes)))
                        && frame.is_none_or(|length| each(Part::Frame(length)))
                }
                MessagePiece::Trailers(section) => {
                    let fields: Fields = decode_trailers(qpack, section).map_err(BodyFault::Broken)?;
                    self.trailers = Some(fields);
                    true
                }
                // Trailers that are too long are left out: a message is whole without them (RFC 9110 §6.5.1).
                MessagePiece::Oversized { .. } => true,
                MessagePiece::Unknown { .. } => each(Part::Unknown),
                MessagePiece::Head(_) => true,
            };
            if !goes_on {
                return Err(BodyFault::Refused);
            }
        }
        Ok(())
    }
}
