//! A reader of frame headers in one direction of a tunnel (RFC 6455 §5.2).
//!
//! It holds a header's progress and a few counters, never a byte of payload, so that no length that a peer claims costs memory
//! (attack C-13). It judges what concerns someone between the two ends: masks, control frames, lengths, the size of messages, the
//! rate of pings and the time a frame takes. What only an end can judge passes: reserved bits and opcodes (extensions), text that is
//! not UTF-8, and the order of fragments.

use std::time::{Duration, Instant};

use super::close::{Close, MAX_CONTROL_PAYLOAD};

/// Whose frames are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The client's: each is masked, and pings are counted.
    FromClient,
    /// The server's: none is masked.
    FromServer,
}

/// The limits of a listener (`[listeners.websocket]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// Bytes of payload that the frames of one message may have together, as they stand on the wire.
    pub max_message_size_bytes: u64,
    /// Pings that a client may send in a window beyond one for each of its messages.
    pub ping_rate_limit_per_window: u32,
    /// The length of that window, which begins with its first ping.
    pub ping_rate_limit_window: Duration,
    /// How long one frame may take to arrive, from its first byte to its last.
    pub read_frame_timeout: Duration,
}

/// The sender broke the framing or a limit. The tunnel is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What it did.
    pub kind: ViolationKind,
    /// How many of the bytes given last may still be passed on.
    pub passable: usize,
    /// Whether the receiver, once it has those, stands between two frames and has not been told to close: a close frame may follow.
    pub may_close: bool,
    /// How many bytes of this direction came before the one that gave it away.
    pub position: u64,
}

/// What a sender did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViolationKind {
    /// A client's frame without a mask, or a server's with one (§5.1).
    Mask,
    /// A control frame that is not the last of its message (§5.5).
    FragmentedControl,
    /// A control frame of more than 125 bytes (§5.5).
    LongControl,
    /// A length of 2^63 or more (§5.2).
    Length,
    /// A message over `max_message_size_bytes`.
    MessageTooBig,
    /// More than `ping_rate_limit_per_window` pings that no message of its made up for.
    PingFlood,
}

impl ViolationKind {
    /// What both ends are told.
    pub fn close(self) -> Close {
        match self {
            Self::Mask | Self::FragmentedControl | Self::LongControl | Self::Length => Close::PROTOCOL_ERROR,
            Self::MessageTooBig => Close::MESSAGE_TOO_BIG,
            Self::PingFlood => Close::PING_FLOOD,
        }
    }
}

/// What comes next in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first byte of a frame.
    Start,
    /// The second byte: mask bit and 7-bit length.
    Length,
    /// So many more bytes of an extended length.
    Extended(u8),
    /// So many more bytes of the masking key.
    Mask(u8),
    /// So many more bytes of payload; never 0.
    Payload(u64),
}

/// Reads one direction of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspector {
    role: Role,
    limits: MessageLimits,
    state: State,
    /// First byte of the current frame: FIN, reserved bits, opcode.
    first: u8,
    /// Length of the current frame's payload, as far as its header has been read.
    length: u64,
    /// A message has begun and not ended.
    in_message: bool,
    /// Payload of that message so far, the current frame included once its length is known.
    message_size: u64,
    frame_since: Option<Instant>,
    pings: u32,
    pings_since: Option<Instant>,
    closed: bool,
    position: u64,
}

impl Inspector {
    /// Stands before the first byte of the tunnel.
    pub fn new(role: Role, limits: MessageLimits) -> Self {
        Self {
            role,
            limits,
            state: State::Start,
            first: 0,
            length: 0,
            in_message: false,
            message_size: 0,
            frame_since: None,
            pings: 0,
            pings_since: None,
            closed: false,
            position: 0,
        }
    }

    /// Looks through the next bytes of the direction. They may be passed on once it returns `Ok`.
    ///
    /// # Errors
    /// When the sender broke the framing or a limit. Nothing may be inspected afterwards.
    pub fn inspect(&mut self, bytes: &[u8], now: Instant) -> Result<(), Violation> {
        // Where the current frame began, if it began in these bytes.
        let mut frame_at = (self.state == State::Start).then_some(0);
        let mut at = 0usize;
        while let Some(byte) = bytes.get(at).copied() {
            let taken = if let State::Payload(left) = self.state {
                let here = bytes.len().saturating_sub(at);
                let taken = usize::try_from(left).map_or(here, |left| left.min(here));
                let left = left.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
                self.state = State::Payload(left);
                if left == 0 {
                    self.end_frame();
                }
                taken
            } else {
                if self.state == State::Start {
                    frame_at = Some(at);
                }
                if let Err(kind) = self.header(byte, now) {
                    return Err(Violation {
                        kind,
                        passable: frame_at.unwrap_or(0),
                        may_close: frame_at.is_some() && !self.closed,
                        position: self.position.saturating_add(u64::try_from(at).unwrap_or(u64::MAX)),
                    });
                }
                1
            };
            at = at.saturating_add(taken);
        }
        self.position = self.position.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// When the frame under way will have taken too long; `None` between frames.
    pub fn deadline(&self) -> Option<Instant> {
        self.frame_since?.checked_add(self.limits.read_frame_timeout)
    }

    /// Grants the frame under way more time: the gateway itself did not read for so long, because the other side did not take what
    /// had come.
    pub fn extend_deadline(&mut self, by: Duration) {
        self.frame_since = self.frame_since.and_then(|since| since.checked_add(by));
    }

    /// Whether a frame of the gateway's own may follow what has been passed on: it stands between two frames, perhaps of one
    /// message (RFC 6455 §5.4), and no close frame has passed.
    pub fn may_close(&self) -> bool {
        self.at_boundary() && !self.closed
    }

    /// Whether the stream stands between two frames.
    pub fn at_boundary(&self) -> bool {
        self.state == State::Start
    }

    /// One byte of a header.
    fn header(&mut self, byte: u8, now: Instant) -> Result<(), ViolationKind> {
        match self.state {
            State::Start => {
                self.first = byte;
                self.length = 0;
                if self.is_control() && byte & FIN == 0 {
                    return Err(ViolationKind::FragmentedControl);
                }
                if self.role == Role::FromClient && self.opcode() == PING {
                    self.count_ping(now)?;
                }
                self.frame_since = Some(now);
                self.state = State::Length;
            }
            State::Length => {
                if (byte & MASK != 0) != (self.role == Role::FromClient) {
                    return Err(ViolationKind::Mask);
                }
                let length = byte & !MASK;
                if self.is_control() && length > MAX_CONTROL_PAYLOAD {
                    return Err(ViolationKind::LongControl);
                }
                match length {
                    126 => self.state = State::Extended(2),
                    127 => self.state = State::Extended(8),
                    _ => {
                        self.length = u64::from(length);
                        self.begin_payload()?;
                    }
                }
            }
            State::Extended(left) => {
                if left == 8 && byte & 0x80 != 0 {
                    return Err(ViolationKind::Length);
                }
                self.length = (self.length << 8) | u64::from(byte);
                match left {
                    ..=1 => self.begin_payload()?,
                    _ => self.state = State::Extended(left.saturating_sub(1)),
                }
            }
            State::Mask(..=1) => self.after_mask(),
            State::Mask(left) => self.state = State::Mask(left.saturating_sub(1)),
            // Payload is skipped in runs.
            State::Payload(_) => {}
        }
        Ok(())
    }

    /// The length is known: charges it to its message.
    fn begin_payload(&mut self) -> Result<(), ViolationKind> {
        if !self.is_control() {
            // A frame that begins a message inside another one is charged to the open one, so that no order of fragments hides a
            // size. That the order is wrong is for the receiver to say.
            let before = if self.in_message { self.message_size } else { 0 };
            self.message_size = before.saturating_add(self.length);
            if self.message_size > self.limits.max_message_size_bytes {
                return Err(ViolationKind::MessageTooBig);
            }
            self.in_message = true;
        }
        match self.role {
            Role::FromClient => self.state = State::Mask(4),
            Role::FromServer => self.after_mask(),
        }
        Ok(())
    }

    fn after_mask(&mut self) {
        self.state = State::Payload(self.length);
        if self.length == 0 {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        self.state = State::Start;
        self.frame_since = None;
        if self.opcode() == CLOSE {
            self.closed = true;
        }
        if !self.is_control() && self.first & FIN != 0 {
            self.in_message = false;
            // A client that asks with each message how far it is away is busy, and no flood.
            self.pings = self.pings.saturating_sub(1);
        }
    }

    fn count_ping(&mut self, now: Instant) -> Result<(), ViolationKind> {
        let window = self.limits.ping_rate_limit_window;
        match self.pings_since {
            Some(since) if now.saturating_duration_since(since) < window => {
                self.pings = self.pings.saturating_add(1);
            }
            _ => {
                self.pings = 1;
                self.pings_since = Some(now);
            }
        }
        if self.pings > self.limits.ping_rate_limit_per_window {
            return Err(ViolationKind::PingFlood);
        }
        Ok(())
    }

    fn opcode(&self) -> u8 {
        self.first & OPCODE
    }

    /// Opcodes with the high bit are control frames, the reserved ones included (§5.5).
    fn is_control(&self) -> bool {
        self.first & 0x08 != 0
    }
}

const FIN: u8 = 0x80;
const MASK: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

#[cfg(test)]
mod tests;
