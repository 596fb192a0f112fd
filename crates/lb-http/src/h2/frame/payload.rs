//! Payloads of fixed form.

use super::code::{ErrorCode, FrameError, SettingId};
use super::header::STREAM_MASK;

/// The fields of RFC 9113 §6.3. They are deprecated: we check them, and do as if they were not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    /// The stream that this one depends on.
    pub depends_on: u32,
    /// Whether it is the only one to depend on it.
    pub exclusive: bool,
    /// 1 to 256, less one.
    pub weight: u8,
}

impl Priority {
    #[inline]
    pub(super) fn parse(bytes: [u8; 5]) -> Self {
        let [a, b, c, d, weight] = bytes;
        let word = u32::from_be_bytes([a, b, c, d]);
        Self { depends_on: word & STREAM_MASK, exclusive: word > STREAM_MASK, weight }
    }
}

/// The entries of a SETTINGS frame, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingsPayload<'a> {
    entries: &'a [[u8; 6]],
}

impl<'a> SettingsPayload<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, FrameError> {
        match payload.as_chunks::<6>() {
            (entries, []) => Ok(Self { entries }),
            _ => Err(FrameError::connection(ErrorCode::FRAME_SIZE_ERROR, "SETTINGS of a broken length")),
        }
    }

    /// Entries, unknown ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Each entry with its value, checked against RFC 9113 §6.5.2, RFC 8441 §3 and RFC 9218 §2.1.
    pub fn iter(&self) -> impl Iterator<Item = Result<(SettingId, u32), FrameError>> + use<'a> {
        self.entries.iter().map(|[i0, i1, v0, v1, v2, v3]| {
            let id = SettingId(u16::from_be_bytes([*i0, *i1]));
            check(id, u32::from_be_bytes([*v0, *v1, *v2, *v3]))
        })
    }
}

fn check(id: SettingId, value: u32) -> Result<(SettingId, u32), FrameError> {
    let bad = match id {
        SettingId::ENABLE_PUSH | SettingId::ENABLE_CONNECT_PROTOCOL | SettingId::NO_RFC7540_PRIORITIES => {
            value > 1
        }
        SettingId::MAX_FRAME_SIZE => !(16_384..=16_777_215).contains(&value),
        SettingId::INITIAL_WINDOW_SIZE if value > STREAM_MASK => {
            let what = "SETTINGS_INITIAL_WINDOW_SIZE beyond 2^31-1";
            return Err(FrameError::connection(ErrorCode::FLOW_CONTROL_ERROR, what));
        }
        _ => false,
    };
    if bad {
        return Err(FrameError::connection(ErrorCode::PROTOCOL_ERROR, "a setting out of its range"));
    }
    Ok((id, value))
}
