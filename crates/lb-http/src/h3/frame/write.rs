//! Frames that are sent.

use super::{DATA, GOAWAY, HEADERS, SETTINGS};
use crate::h3::settings::H3Settings;
use crate::h3::varint;

/// The type of a control stream (RFC 9114 §6.2.1).
pub(crate) const CONTROL_STREAM: u64 = 0x0;

/// The longest payload of HEADERS for whose length two bytes are kept.
const SHORT: usize = 0x3fff;

/// Appends a HEADERS frame whose payload `section` appends.
#[inline]
pub(crate) fn headers(out: &mut Vec<u8>, section: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    // A length of two bytes, written when it is known: nearly every section is that short, and few are shorter than a byte tells.
    out.extend_from_slice(&[HEADERS as u8, 0, 0]);
    let begin = out.len();
    section(out);
    let length = out.len() - begin;
    if length <= SHORT {
        if let Some([_, place @ ..]) = out.get_mut(start..begin) {
            place.copy_from_slice(&(length as u16 | 0x4000).to_be_bytes());
        }
        return;
    }
    let mut header = Vec::with_capacity(9);
    varint::put(HEADERS, &mut header);
    varint::put(length as u64, &mut header);
    out.splice(start..begin, header);
}

/// Appends the header of a DATA frame; `length` bytes of content follow.
#[inline]
pub fn data_header(length: u64, out: &mut Vec<u8>) {
    varint::put(DATA, out);
    varint::put(length, out);
}

/// Appends what a control stream begins with: its type, and SETTINGS.
pub fn control_stream(settings: &H3Settings, out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    settings.write(&mut payload);
    varint::put(CONTROL_STREAM, out);
    varint::put(SETTINGS, out);
    varint::put(payload.len() as u64, out);
    out.extend_from_slice(&payload);
}

/// Appends GOAWAY. A server names the first request that it has not taken and will not take, a client a push.
pub fn goaway(id: u64, out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(8);
    varint::put(id, &mut payload);
    varint::put(GOAWAY, out);
    varint::put(payload.len() as u64, out);
    out.extend_from_slice(&payload);
}

/// Appends a frame of a reserved type without content, which every peer has to ignore (RFC 9114 §7.2.8). `seed` chooses the type.
pub fn grease(seed: u64, out: &mut Vec<u8>) {
    let most = (varint::MAX - 0x21) / 0x1f;
    varint::put(0x1f * (seed % most) + 0x21, out);
    varint::put(0, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_any_length_get_their_header() {
        for length in [0, 1, 63, 64, SHORT, SHORT + 1, 100_000] {
            let mut out = b"before".to_vec();
            headers(&mut out, |out| out.extend(std::iter::repeat_n(7, length)));
            let mut rest = &out[6..];
            assert_eq!(varint::take(&mut rest), Some(HEADERS));
            assert_eq!(varint::take(&mut rest), Some(length as u64));
            assert_eq!(rest, vec![7; length]);
        }
    }

    #[test]
    fn reserved_types_are_reserved() {
        for seed in [0, 1, 77, u64::MAX] {
            let mut out = Vec::new();
            grease(seed, &mut out);
            let kind = varint::take(&mut &out[..]).unwrap();
            assert_eq!((kind - 0x21) % 0x1f, 0);
        }
    }
}
