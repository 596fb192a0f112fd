//! The unidirectional streams of the peer (RFC 9114 §6.2): what each is for, and what they say.

use super::code::{H3Code, H3Error};
use super::frame::Side;
use super::frame::control::{CLOSED, ControlEvent, ControlReader};
use super::qpack::instructions::{DecoderStream, check_encoder_stream};
use super::varint;

/// What a stream is for, as far as it has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The type has not arrived yet.
    Untold,
    Control,
    Encoder,
    Decoder,
    /// Of an unknown or reserved type: its bytes mean nothing.
    Discarded,
}

/// One unidirectional stream that the peer has opened.
#[derive(Debug)]
pub struct UniStream {
    kind: u64,
    missing: u8,
    purpose: Purpose,
}

impl UniStream {
    /// A stream of which no byte was read.
    pub fn new() -> Self {
        Self { kind: 0, missing: 0, purpose: Purpose::Untold }
    }

    /// Whether the stream is of an unknown type: what arrives on it is thrown away, and the peer may be told to stop by
    /// STOP_SENDING with H3_STREAM_CREATION_ERROR.
    pub fn is_discarded(&self) -> bool {
        self.purpose == Purpose::Discarded
    }
}

impl Default for UniStream {
    fn default() -> Self {
        Self::new()
    }
}

/// What the peer's control stream and its two QPACK streams have said so far.
///
/// The peer's dynamic table has no room, for the gateway's SETTINGS give it none; so the instructions of a QPACK stream are checked and
/// have no other effect.
#[derive(Debug)]
pub struct PeerStreams {
    side: Side,
    control: ControlReader,
    decoder: DecoderStream,
    /// Which of the three are open.
    open: u8,
}

const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const QPACK_ENCODER: u64 = 0x2;
const QPACK_DECODER: u64 = 0x3;

impl PeerStreams {
    /// The streams of a client, which a server reads.
    pub fn server() -> Self {
        Self::new(Side::Server)
    }

    /// The streams of a server, which a client reads.
    pub fn client() -> Self {
        Self::new(Side::Client)
    }

    fn new(side: Side) -> Self {
        Self { side, control: ControlReader::new(side), decoder: DecoderStream::default(), open: 0 }
    }

    /// Reads bytes of a stream, up to the next event. `None` when `input` is used up.
    ///
    /// # Errors
    /// When a rule is broken; all of them end the connection.
    pub fn receive(
        &mut self,
        stream: &mut UniStream,
        input: &mut &[u8],
    ) -> Result<Option<ControlEvent>, H3Error> {
        if stream.purpose == Purpose::Untold {
            let Some(kind) = varint::read(&mut stream.kind, &mut stream.missing, input) else {
                return Ok(None);
            };
            stream.purpose = self.opened(kind)?;
        }
        match stream.purpose {
            Purpose::Control => return self.control.next(input),
            Purpose::Encoder => check_encoder_stream(std::mem::take(input))?,
            Purpose::Decoder => self.decoder.read(input)?,
            Purpose::Untold | Purpose::Discarded => *input = &[],
        }
        Ok(None)
    }

    /// The peer has opened a stream of this type.
    fn opened(&mut self, kind: u64) -> Result<Purpose, H3Error> {
        let purpose = match kind {
            CONTROL => Purpose::Control,
            QPACK_ENCODER => Purpose::Encoder,
            QPACK_DECODER => Purpose::Decoder,
            PUSH if self.side == Side::Server => {
                return Err(H3Error::connection(H3Code::STREAM_CREATION_ERROR, "a push by a client"));
            }
            PUSH => return Err(H3Error::connection(H3Code::ID_ERROR, "a push though push is not allowed")),
            _ => return Ok(Purpose::Discarded),
        };
        let bit = 1 << kind;
        if self.open & bit != 0 {
            return Err(H3Error::connection(H3Code::STREAM_CREATION_ERROR, "a critical stream opened twice"));
        }
        self.open |= bit;
        Ok(purpose)
    }

    /// The peer has ended or reset a stream.
    ///
    /// # Errors
    /// When the stream has to last as long as the connection.
    pub fn finish(&mut self, stream: &UniStream) -> Result<(), H3Error> {
        match stream.purpose {
            Purpose::Control | Purpose::Encoder | Purpose::Decoder => Err(CLOSED),
            // RFC 9114 §6.2: a stream may end before it has told its type.
            Purpose::Untold | Purpose::Discarded => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
