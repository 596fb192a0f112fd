//! Frames whose payload is complete.

use super::{BAD_PADDING, protocol, size, take};
use crate::h2::frame::code::{ErrorCode, FrameError, Scope};
use crate::h2::frame::header::{ACK, FrameHeader, FrameType, PADDED, PRIORITY, STREAM_MASK};
use crate::h2::frame::payload::{Priority, SettingsPayload};
use crate::h2::frame::piece::Piece;

/// The fragment of a HEADERS or CONTINUATION frame, without padding and priority.
pub(super) fn fragment(
    header: FrameHeader,
    payload: &[u8],
) -> Result<(&[u8], Option<FrameError>), FrameError> {
    let mut rest = payload;
    if header.kind == FrameType::CONTINUATION {
        return Ok((rest, None));
    }
    let padding = if header.has(PADDED) { take(&mut rest, 1).first().copied().unwrap_or(0) } else { 0 };
    let mut fault = None;
    if header.has(PRIORITY)
        && let Some((priority, behind)) = rest.split_first_chunk::<5>()
    {
        rest = behind;
        if Priority::parse(*priority).depends_on == header.stream {
            fault = Some(depends_on_itself(header.stream));
        }
    }
    let length = rest.len().checked_sub(usize::from(padding)).ok_or(BAD_PADDING)?;
    Ok((take(&mut rest, length), fault))
}

/// A frame that is not DATA, and not part of a block of fields. Its length has been checked.
pub(super) fn simple(header: FrameHeader, payload: &[u8]) -> Result<Piece<'_>, FrameError> {
    let stream = header.stream;
    let mut rest = payload;
    Ok(match header.kind {
        FrameType::PRIORITY => {
            let priority = Priority::parse(array(&mut rest)?);
            if priority.depends_on == stream {
                return Err(depends_on_itself(stream));
            }
            Piece::Priority { stream, priority }
        }
        FrameType::RST_STREAM => {
            Piece::RstStream { stream, code: ErrorCode(u32::from_be_bytes(array(&mut rest)?)) }
        }
        FrameType::SETTINGS if header.has(ACK) => Piece::SettingsAck,
        FrameType::SETTINGS => Piece::Settings(SettingsPayload::parse(payload)?),
        FrameType::PING => Piece::Ping { ack: header.has(ACK), data: array(&mut rest)? },
        FrameType::GOAWAY => Piece::GoAway {
            last_stream: u32::from_be_bytes(array(&mut rest)?) & STREAM_MASK,
            code: ErrorCode(u32::from_be_bytes(array(&mut rest)?)),
            debug: rest,
        },
        FrameType::WINDOW_UPDATE => {
            let increment = u32::from_be_bytes(array(&mut rest)?) & STREAM_MASK;
            if increment == 0 {
                let scope = if stream == 0 { Scope::Connection } else { Scope::Stream(stream) };
                return Err(FrameError {
                    excess: None,
                    scope,
                    code: ErrorCode::PROTOCOL_ERROR,
                    what: "WINDOW_UPDATE by 0",
                });
            }
            Piece::WindowUpdate { stream, increment }
        }
        FrameType::PRIORITY_UPDATE => {
            let stream = u32::from_be_bytes(array(&mut rest)?) & STREAM_MASK;
            if stream == 0 {
                return Err(protocol("PRIORITY_UPDATE for stream 0"));
            }
            Piece::PriorityUpdate { stream, value: rest }
        }
        kind => Piece::Unknown { kind, length: header.length },
    })
}

#[inline]
fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FrameError> {
    let (array, behind) = rest.split_first_chunk().ok_or(size("a frame that is too short"))?;
    *rest = behind;
    Ok(*array)
}

const fn depends_on_itself(stream: u32) -> FrameError {
    FrameError::stream(stream, ErrorCode::PROTOCOL_ERROR, "a stream that depends on itself")
}
