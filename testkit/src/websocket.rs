//! WebSocket frames (RFC 6455 §5.2), written and read by hand.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::wire::{Fault, Wire};

/// The masking key of [`to_server`]'s frames. Bytes stay as they are under it, so that a test finds them on the wire.
const NO_MASK: [u8; 4] = [0; 4];

/// A frame. `first` is its first byte: FIN, reserved bits, opcode.
pub fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(bit | length as u8),
        length @ 126..=0xffff => {
            frame.push(bit | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(bit | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend(mask.into_iter().flatten());
    let key = mask.unwrap_or_default().into_iter().cycle();
    frame.extend(payload.iter().zip(key).map(|(byte, key)| byte ^ key));
    frame
}

/// A binary message as a client sends it.
pub fn to_server(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(0x82, payload.as_ref(), Some(NO_MASK))
}

/// A binary message as a server sends it.
pub fn to_client(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(0x82, payload.as_ref(), None)
}

/// What a server proves itself with to a client that sent this `Sec-WebSocket-Key`.
pub fn accept_key(key: &str) -> String {
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let mut text = [0; 28];
    STANDARD.encode_slice(digest, &mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads a frame at the start of `bytes`, whichever side sent it: its first byte, its payload without the mask, and how many bytes the frame
/// takes. `None` when it is not all there.
pub fn parse(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
    let (length, mut at) = match *bytes.get(1)? & 0x7f {
        126 => (number(bytes.get(2..4)?), 4),
        127 => (number(bytes.get(2..10)?), 10),
        length => (usize::from(length), 2),
    };
    let mut mask = NO_MASK;
    if bytes[1] & 0x80 != 0 {
        mask.copy_from_slice(bytes.get(at..at + 4)?);
        at += 4;
    }
    let mut payload = bytes.get(at..at.checked_add(length)?)?.to_vec();
    payload.iter_mut().zip(mask.into_iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    Some((bytes[0], payload, at + length))
}

/// Reads the next frame: its first byte and its payload without the mask. `None` when the stream ends before it.
///
/// # Errors
/// When the stream ends within a frame, or fails.
pub fn read(wire: &mut Wire) -> Result<Option<(u8, Vec<u8>)>, Fault> {
    loop {
        if let Some((first, payload, length)) = parse(wire.pending()) {
            wire.consume(length);
            return Ok(Some((first, payload)));
        }
        if wire.fill()? == 0 {
            let left = wire.pending().len();
            return if left == 0 {
                Ok(None)
            } else {
                Err(Fault::Truncated(format!("a frame after {left} bytes")))
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        for size in [0, 125, 126, 65_535, 65_536] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let payload = vec![b'p'; size];
                let bytes = frame(0x82, &payload, mask);
                assert_eq!(parse(&bytes), Some((0x82, payload, bytes.len())));
                assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
            }
        }
        // The example of RFC 6455 §1.3.
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
