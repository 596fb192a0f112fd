//! Close frames of the gateway's own (RFC 6455 §5.5.1).

/// Why the gateway ends a tunnel, as its ends are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The status code (RFC 6455 §7.4.1).
    pub code: u16,
    /// The reason, fixed for each cause.
    pub reason: &'static str,
}

impl Close {
    /// The gateway goes away: a drain has reached its end.
    pub const GOING_AWAY: Self = Self::new(1001, "going away");
    /// Both sides were silent for too long.
    pub const IDLE_TIMEOUT: Self = Self::new(1001, "idle timeout");
    /// A frame broke the framing.
    pub const PROTOCOL_ERROR: Self = Self::new(1002, "protocol error");
    /// The client sent too many pings.
    pub const PING_FLOOD: Self = Self::new(1008, "ping flood: rate limit exceeded");
    /// A frame took too long to arrive.
    pub const READ_FRAME_TIMEOUT: Self = Self::new(1008, "ws read frame timeout");
    /// The far side took too long to accept what was forwarded to it.
    pub const WRITE_TIMEOUT: Self = Self::new(1008, "ws backpressure/write timeout");
    /// A message is larger than the listener allows.
    pub const MESSAGE_TOO_BIG: Self = Self::new(1009, "message too big");

    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }

    /// The frame that says so.
    pub fn frame(self, mask: Option<[u8; 4]>) -> Vec<u8> {
        close_frame(self.code, self.reason, mask)
    }
}

/// Payload of a control frame at most (RFC 6455 §5.5).
pub(super) const MAX_CONTROL_PAYLOAD: u8 = 125;

/// A close frame. Towards a backend it needs a `mask` that the backend cannot foresee, towards a client it has none (RFC 6455 §5.1,
/// §5.3). A reason that does not fit is cut at a character's end.
pub fn close_frame(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let room = usize::from(MAX_CONTROL_PAYLOAD).saturating_sub(2);
    let end = (0..=reason.len().min(room)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    let reason = reason.as_bytes().get(..end).unwrap_or(&[]);
    let length = u8::try_from(reason.len()).unwrap_or_default().saturating_add(2);
    let mut frame = vec![0x88, length | if mask.is_some() { 0x80 } else { 0 }];
    frame.extend(mask.into_iter().flatten());
    let payload = code.to_be_bytes().into_iter().chain(reason.iter().copied());
    let key = mask.unwrap_or([0; 4]).into_iter().cycle();
    frame.extend(payload.zip(key).map(|(byte, key)| byte ^ key));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_the_rfc_says() {
        assert_eq!(close_frame(1001, "idle timeout", None), b"\x88\x0e\x03\xe9idle timeout");
        let masked = close_frame(1008, "no", Some([1, 2, 3, 4]));
        assert_eq!(masked, [0x88, 0x84, 1, 2, 3, 4, 0x03 ^ 1, 0xf0 ^ 2, b'n' ^ 3, b'o' ^ 4]);
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let frame = close_frame(1008, &format!("{}é", "x".repeat(122)), None);
        assert_eq!((frame.len(), frame[1]), (126, 124));
        assert_eq!(close_frame(1008, &"x".repeat(500), None).len(), 127);
    }
}
