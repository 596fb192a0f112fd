//! What is decided of a frame by its header alone.

use lb_core::ledger::Charge;

use super::{BlockLimits, OpenBlock, is_fields, protocol, size};
use crate::h2::frame::DEFAULT_MAX_FRAME_SIZE;
use crate::h2::frame::code::{ErrorCode, FrameError, Scope};
use crate::h2::frame::header::{ACK, FrameHeader, FrameType, PADDED, PRIORITY};

/// Refuses a frame that its header makes impossible where it stands: inside the block `open`, if there is one.
pub(super) fn check(
    header: FrameHeader,
    open: Option<OpenBlock>,
    limits: BlockLimits,
) -> Result<(), FrameError> {
    let FrameHeader { length, kind, stream, .. } = header;
    if length > DEFAULT_MAX_FRAME_SIZE {
        return Err(size("a frame beyond SETTINGS_MAX_FRAME_SIZE"));
    }
    match open {
        Some(open) if kind != FrameType::CONTINUATION || stream != open.stream => {
            return Err(protocol("another frame inside a block of fields"));
        }
        None if kind == FrameType::CONTINUATION => {
            return Err(protocol("CONTINUATION without HEADERS"));
        }
        _ => {}
    }
    let on_stream = match kind {
        FrameType::DATA
        | FrameType::HEADERS
        | FrameType::PRIORITY
        | FrameType::RST_STREAM
        | FrameType::CONTINUATION => Some(true),
        FrameType::SETTINGS | FrameType::PING | FrameType::GOAWAY | FrameType::PRIORITY_UPDATE => Some(false),
        FrameType::PUSH_PROMISE => return Err(protocol("PUSH_PROMISE, which we never allow")),
        _ => None,
    };
    if on_stream.is_some_and(|on_stream| on_stream != (stream != 0)) {
        return Err(protocol("a frame on a stream where its type cannot be"));
    }
    let padding = u32::from(header.has(PADDED));
    let fits = match kind {
        FrameType::DATA => length >= padding,
        FrameType::HEADERS => length >= padding + if header.has(PRIORITY) { 5 } else { 0 },
        FrameType::PRIORITY if length != 5 => {
            let what = "PRIORITY of a wrong length";
            return Err(FrameError::stream(stream, ErrorCode::FRAME_SIZE_ERROR, what));
        }
        FrameType::SETTINGS if header.has(ACK) => length == 0,
        FrameType::SETTINGS => length % 6 == 0,
        FrameType::RST_STREAM | FrameType::WINDOW_UPDATE => length == 4,
        FrameType::PING => length == 8,
        FrameType::GOAWAY => length >= 8,
        FrameType::PRIORITY_UPDATE => length >= 4,
        _ => true,
    };
    if !fits {
        return Err(size("a frame of a length that its type cannot have"));
    }
    if is_fields(kind) {
        let (bytes, frames) = open.map_or((0, 0), |open| (open.wire_bytes, open.frames));
        if bytes + length as usize > limits.bytes || frames >= limits.frames {
            return Err(FrameError::excess(Scope::Connection, Charge::HeaderOverflow.budget().reason));
        }
    }
    Ok(())
}
