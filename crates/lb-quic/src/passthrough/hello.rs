//! The server name in a ClientHello that arrives in pieces.
//!
//! A ClientHello with post-quantum keys does not fit into one datagram, and clients send its pieces in any order. [`HelloReader`] takes the
//! CRYPTO frames of Initial packets (RFC 9000 §19.6) and looks for the name in what has arrived without a gap. Its memory is bounded by
//! [`MAX_HELLO`], whatever arrives.

use lb_core::quic::header::variable;

/// The bytes of the longest ClientHello that is read.
pub const MAX_HELLO: usize = 16 * 1024;

/// The pieces that may lie apart from each other at a time.
const MAX_PIECES: usize = 64;

/// What is known of a ClientHello.
#[derive(Default, Debug)]
pub struct HelloReader {
    bytes: Vec<u8>,
    /// Which parts of `bytes` have arrived: apart from each other, in order.
    pieces: Vec<(usize, usize)>,
}

/// What a ClientHello says about the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerName {
    /// More has to arrive.
    Incomplete,
    /// The name, in lower case.
    Named(String),
    /// There is none, or what arrives is no ClientHello.
    Unnamed,
}

/// Bytes that break the grammar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MalformedHello;

impl HelloReader {
    /// Takes the frames of one Initial packet.
    ///
    /// # Errors
    /// When a frame is malformed, may not stand in an Initial, or leads beyond the bounds.
    pub fn take(&mut self, mut frames: &[u8]) -> Result<(), MalformedHello> {
        while let Some((&kind, rest)) = frames.split_first() {
            frames = match kind {
                PADDING | PING => rest,
                ACK | ACK_ECN => acknowledgement(rest, kind == ACK_ECN).ok_or(MalformedHello)?,
                CRYPTO => {
                    let (offset, rest) = variable(rest).ok_or(MalformedHello)?;
                    let (length, rest) = variable(rest).ok_or(MalformedHello)?;
                    let length = usize::try_from(length).map_err(|_| MalformedHello)?;
                    let (data, rest) = rest.split_at_checked(length).ok_or(MalformedHello)?;
                    self.put(usize::try_from(offset).map_err(|_| MalformedHello)?, data)?;
                    rest
                }
                _ => return Err(MalformedHello),
            };
        }
        Ok(())
    }

    /// The server name, as far as it has arrived.
    pub fn server_name(&self) -> ServerName {
        let whole = match self.pieces.first() {
            Some((0, end)) => self.bytes.get(..*end).unwrap_or_default(),
            _ => return ServerName::Incomplete,
        };
        match Hello(whole).server_name() {
            Ok(Some(name)) => ServerName::Named(name),
            Ok(None) => ServerName::Unnamed,
            Err(Stop::Malformed) => ServerName::Unnamed,
            Err(Stop::Incomplete) => ServerName::Incomplete,
        }
    }

    /// Adds a piece. Bytes that arrive again do not replace those that were there.
    fn put(&mut self, offset: usize, data: &[u8]) -> Result<(), MalformedHello> {
        let end = offset.checked_add(data.len()).filter(|end| *end <= MAX_HELLO).ok_or(MalformedHello)?;
        if data.is_empty() {
            return Ok(());
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let mut at = offset;
        for (from, to) in self.pieces.iter().copied().chain([(MAX_HELLO, MAX_HELLO)]) {
            let until = from.min(end);
            if at < until
                && let Some(place) = self.bytes.get_mut(at..until)
                && let Some(new) = data.get(at - offset..until - offset)
            {
                place.copy_from_slice(new);
            }
            at = at.max(to);
        }
        let first = self.pieces.partition_point(|(_, to)| *to < offset);
        let last = self.pieces.partition_point(|(from, _)| *from <= end);
        let joined = self.pieces.get(first..last).unwrap_or_default();
        let from = joined.first().map_or(offset, |piece| piece.0.min(offset));
        let to = joined.last().map_or(end, |piece| piece.1.max(end));
        self.pieces.splice(first..last.max(first), [(from, to)]);
        if self.pieces.len() > MAX_PIECES { Err(MalformedHello) } else { Ok(()) }
    }
}

const PADDING: u8 = 0;
const PING: u8 = 1;
const ACK: u8 = 2;
const ACK_ECN: u8 = 3;
const CRYPTO: u8 = 6;

/// What follows an ACK frame (RFC 9000 §19.3).
fn acknowledgement(bytes: &[u8], has_ecn: bool) -> Option<&[u8]> {
    let (_, rest) = variable(bytes)?;
    let (_, rest) = variable(rest)?;
    let (ranges, rest) = variable(rest)?;
    let (_, mut rest) = variable(rest)?;
    // Each number takes a byte at least, so that a count beyond the bytes ends the loop.
    let numbers = ranges.checked_mul(2)?.checked_add(if has_ecn { 3 } else { 0 })?;
    for _ in 0..numbers {
        (_, rest) = variable(rest)?;
    }
    Some(rest)
}

/// The beginning of a handshake message, perhaps not all of it.
struct Hello<'a>(&'a [u8]);

/// Why reading stops.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Incomplete,
    Malformed,
}

impl<'a> Hello<'a> {
    /// The name (RFC 6066 §3) in a ClientHello (RFC 8446 §4.1.2).
    fn server_name(mut self) -> Result<Option<String>, Stop> {
        if self.number(1)? != CLIENT_HELLO {
            return Err(Stop::Malformed);
        }
        let length = self.number(3)?;
        let missing = length.saturating_sub(self.0.len());
        self.0 = self.0.get(..length).unwrap_or(self.0);
        let name = self.name_in_body();
        match name {
            // The message is there whole, so that nothing more can arrive.
            Err(Stop::Incomplete) if missing == 0 => Err(Stop::Malformed),
            name => name,
        }
    }

    fn name_in_body(&mut self) -> Result<Option<String>, Stop> {
        self.bytes(2 + 32)?;
        for size in [1, 2, 1] {
            let length = self.number(size)?;
            self.bytes(length)?;
        }
        let mut left = self.number(2)?;
        while left > 0 {
            let (kind, length) = (self.number(2)?, self.number(2)?);
            let data = self.bytes(length)?;
            if kind == SERVER_NAME {
                let mut list = Self(data);
                list.number(2)?;
                let kind = list.number(1)?;
                let length = list.number(2)?;
                let name = list.bytes(length)?;
                let is_name = kind == HOST_NAME && (1..=255).contains(&length) && name.is_ascii();
                let name = std::str::from_utf8(name).ok().filter(|_| is_name).ok_or(Stop::Malformed)?;
                return Ok(Some(name.trim_end_matches('.').to_ascii_lowercase()));
            }
            left = left.checked_sub(4 + length).ok_or(Stop::Malformed)?;
        }
        Ok(None)
    }

    fn number(&mut self, size: usize) -> Result<usize, Stop> {
        Ok(self.bytes(size)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Stop::Incomplete)?;
        self.0 = rest;
        Ok(bytes)
    }
}

const CLIENT_HELLO: usize = 1;
const SERVER_NAME: usize = 0;
const HOST_NAME: usize = 0;

#[cfg(test)]
mod tests;
