//! The control stream of the peer (RFC 9114 §6.2.1 and §7.2).

use super::{
    CANCEL_PUSH, DATA, GOAWAY, HEADERS, MAX_PUSH_ID, PRIORITY_UPDATE_PUSH, PRIORITY_UPDATE_REQUEST,
    PUSH_PROMISE, SETTINGS, Side, is_of_http2, unexpected,
};
use crate::h3::code::{H3Code, H3Error};
use crate::h3::priority::ExtensiblePriority;
use crate::h3::settings::H3Settings;
use crate::h3::varint;

/// The longest payload that is collected. SETTINGS of every known implementation have less than a tenth of it.
const MAX_PAYLOAD: u64 = 1024;

/// What a control stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// SETTINGS: the first frame, and the only one of its type.
    Settings(H3Settings),
    /// GOAWAY. From a server: requests on streams from this identifier on are not processed. From a client: the identifier of a push.
    GoAway(u64),
    /// MAX_PUSH_ID: pushes that a client would take.
    MaxPushId(u64),
    /// PRIORITY_UPDATE of a request (RFC 9218 §7.2).
    PriorityUpdate {
        /// The request's stream, which may not have been opened yet.
        stream: u64,
        /// How urgent its response is now.
        priority: ExtensiblePriority,
    },
    /// A frame of an unknown or reserved type, which is skipped.
    Unknown {
        /// Bytes of its payload.
        bytes: u64,
    },
}

/// Reads the control stream of the peer, which is the only one it may have.
///
/// Payloads that are understood are short and are collected; those of unknown frames are skipped in any length.
#[derive(Debug)]
pub(crate) struct ControlReader {
    side: Side,
    payload: Vec<u8>,
    left: u64,
    missing: u8,
    stage: Stage,
    has_settings: bool,
    /// The identifier of the last GOAWAY.
    goaway: Option<u64>,
    /// The identifier of the last MAX_PUSH_ID.
    max_push_id: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Type,
    Length(u64),
    Payload(u64),
    Skip,
}

impl ControlReader {
    pub(crate) fn new(side: Side) -> Self {
        Self {
            side,
            payload: Vec::new(),
            left: 0,
            missing: 0,
            stage: Stage::Type,
            has_settings: false,
            goaway: None,
            max_push_id: None,
        }
    }

    /// The next event; `None` when `input` is used up.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<ControlEvent>, H3Error> {
        loop {
            match self.stage {
                Stage::Type => {
                    let Some(kind) = self.number(input) else { return Ok(None) };
                    self.check(kind)?;
                    self.stage = Stage::Length(kind);
                }
                Stage::Length(kind) => {
                    let Some(length) = self.number(input) else { return Ok(None) };
                    self.left = length;
                    if !is_known(kind) {
                        self.stage = if length > 0 { Stage::Skip } else { Stage::Type };
                        return Ok(Some(ControlEvent::Unknown { bytes: length }));
                    }
                    if length > MAX_PAYLOAD {
                        return Err(H3Error::connection(
                            H3Code::EXCESSIVE_LOAD,
                            "a long frame on the control stream",
                        ));
                    }
                    self.stage = Stage::Payload(kind);
                }
                Stage::Payload(kind) => {
                    let bytes = self.take(input);
                    if self.left > 0 {
                        self.payload.extend_from_slice(bytes);
                        return Ok(None);
                    }
                    self.stage = Stage::Type;
                    if self.payload.is_empty() {
                        return self.event(kind, bytes).map(Some);
                    }
                    let mut payload = std::mem::take(&mut self.payload);
                    payload.extend_from_slice(bytes);
                    return self.event(kind, &payload).map(Some);
                }
                Stage::Skip => {
                    self.take(input);
                    if self.left > 0 {
                        return Ok(None);
                    }
                    self.stage = Stage::Type;
                }
            }
        }
    }

    fn number(&mut self, input: &mut &[u8]) -> Option<u64> {
        varint::read(&mut self.left, &mut self.missing, input)
    }

    fn take<'a>(&mut self, input: &mut &'a [u8]) -> &'a [u8] {
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        let (bytes, rest) = input.split_at(take);
        *input = rest;
        self.left -= take as u64;
        bytes
    }

    /// Whether a frame of this type may stand here.
    fn check(&self, kind: u64) -> Result<(), H3Error> {
        if !self.has_settings && kind != SETTINGS {
            return Err(H3Error::connection(H3Code::MISSING_SETTINGS, "a first frame that is not SETTINGS"));
        }
        match kind {
            SETTINGS if self.has_settings => Err(unexpected("SETTINGS twice")),
            DATA | HEADERS | PUSH_PROMISE => Err(unexpected("a frame that the control stream has not")),
            MAX_PUSH_ID | PRIORITY_UPDATE_REQUEST | PRIORITY_UPDATE_PUSH if self.side == Side::Client => {
                Err(unexpected("a frame that a server does not send"))
            }
            kind if is_of_http2(kind) => Err(unexpected("a frame of HTTP/2")),
            _ => Ok(()),
        }
    }

    fn event(&mut self, kind: u64, payload: &[u8]) -> Result<ControlEvent, H3Error> {
        let wrong_id = |what| Err(H3Error::connection(H3Code::ID_ERROR, what));
        if kind == SETTINGS {
            self.has_settings = true;
            return H3Settings::parse(payload).map(ControlEvent::Settings);
        }
        let mut rest = payload;
        let id = varint::take(&mut rest);
        let is_whole = matches!(kind, PRIORITY_UPDATE_REQUEST | PRIORITY_UPDATE_PUSH) || rest.is_empty();
        let Some(id) = id.filter(|_| is_whole) else {
            return Err(H3Error::connection(H3Code::FRAME_ERROR, "a payload of a wrong length"));
        };
        match kind {
            GOAWAY => {
                if self.side == Side::Client && id % 4 != 0 {
                    return wrong_id("GOAWAY with a stream that carries no request");
                }
                if self.goaway.replace(id).is_some_and(|last| id > last) {
                    return wrong_id("GOAWAY with a greater identifier than before");
                }
                Ok(ControlEvent::GoAway(id))
            }
            MAX_PUSH_ID => {
                if self.max_push_id.replace(id).is_some_and(|last| id < last) {
                    return wrong_id("MAX_PUSH_ID with a smaller identifier than before");
                }
                Ok(ControlEvent::MaxPushId(id))
            }
            PRIORITY_UPDATE_REQUEST => {
                if id % 4 != 0 {
                    return wrong_id("PRIORITY_UPDATE of a stream that carries no request");
                }
                Ok(ControlEvent::PriorityUpdate { stream: id, priority: ExtensiblePriority::parse(rest) })
            }
            // Nothing was pushed and nothing may be, so that no identifier is right (RFC 9114 §7.2.3, RFC 9218 §7.2).
            _ => wrong_id("a push that there is not"),
        }
    }
}

/// Whether the payload of a frame of this type is read.
fn is_known(kind: u64) -> bool {
    matches!(
        kind,
        SETTINGS | GOAWAY | MAX_PUSH_ID | CANCEL_PUSH | PRIORITY_UPDATE_REQUEST | PRIORITY_UPDATE_PUSH
    )
}

/// The peer has ended or reset a stream that has to last as long as the connection (RFC 9114 §6.2.1, RFC 9204 §4.2, attack Q-08).
pub(crate) const CLOSED: H3Error =
    H3Error::connection(H3Code::CLOSED_CRITICAL_STREAM, "a critical stream was closed");
