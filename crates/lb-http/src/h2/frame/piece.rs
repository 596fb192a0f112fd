//! What comes out of reading: frames, and parts of DATA frames.

use super::code::{ErrorCode, FrameError};
use super::header::FrameType;
use super::payload::{Priority, SettingsPayload};

/// What was read: a frame, or a part of a DATA frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A part of a DATA frame, without padding.
    Data {
        /// The stream.
        stream: u32,
        /// The part.
        bytes: &'a [u8],
        /// What the part costs of the flow-control windows: its bytes, and the padding that was read with it.
        flow_len: u32,
        /// Bytes in the whole frame, without padding.
        frame_bytes: u32,
        /// Whether the frame ends here.
        end_of_frame: bool,
        /// Whether the stream ends here; only together with the end of the frame.
        end_stream: bool,
    },
    /// A whole block of fields.
    Headers {
        /// The stream.
        stream: u32,
        /// Whether the stream ends with it.
        end_stream: bool,
        /// The fragments, joined.
        block: &'a [u8],
        /// In how many frames it came.
        frames: u32,
        /// An error of the stream. The block has to be decoded all the same, for the sake of the blocks that follow.
        fault: Option<FrameError>,
    },
    /// PRIORITY.
    Priority {
        /// The stream.
        stream: u32,
        /// The fields.
        priority: Priority,
    },
    /// RST_STREAM.
    RstStream {
        /// The stream.
        stream: u32,
        /// Why.
        code: ErrorCode,
    },
    /// SETTINGS.
    Settings(SettingsPayload<'a>),
    /// SETTINGS with ACK.
    SettingsAck,
    /// PING.
    Ping {
        /// Whether it answers ours.
        ack: bool,
        /// What to send back.
        data: [u8; 8],
    },
    /// GOAWAY.
    GoAway {
        /// The last stream that the peer may have processed.
        last_stream: u32,
        /// Why.
        code: ErrorCode,
        /// Text for a log; any bytes at all.
        debug: &'a [u8],
    },
    /// WINDOW_UPDATE.
    WindowUpdate {
        /// The stream, or 0 for the connection.
        stream: u32,
        /// From 1 to 2^31-1.
        increment: u32,
    },
    /// PRIORITY_UPDATE (RFC 9218 §7.1).
    PriorityUpdate {
        /// The stream whose priority it is.
        stream: u32,
        /// The Priority Field Value; any bytes at all.
        value: &'a [u8],
    },
    /// A type that we do not know. Its payload is dropped.
    Unknown {
        /// The type.
        kind: FrameType,
        /// Bytes of payload.
        length: u32,
    },
}
