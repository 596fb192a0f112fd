//! Frames (RFC 9113 §4 and §6): reading them with all rules that one frame alone can break, and writing them.
//!
//! What depends on the state of a stream or of the connection is not known here: whether a stream is open, whether a window has room,
//! whether SETTINGS come first.

pub mod code;
pub mod header;
pub mod payload;
pub mod piece;
pub mod preface;
pub mod reader;
pub mod write;

pub use code::{ErrorCode, FrameError, Scope, SettingId};
pub use header::{FrameHeader, FrameType};
pub use payload::{Priority, SettingsPayload};
pub use piece::Piece;
pub use preface::Preface;
pub use reader::{BlockLimits, FrameReader};

/// Bytes of a frame header.
pub const HEADER_LENGTH: usize = 9;

/// The SETTINGS_MAX_FRAME_SIZE that holds without a setting, and that we stay with.
pub const DEFAULT_MAX_FRAME_SIZE: u32 = 16_384;
