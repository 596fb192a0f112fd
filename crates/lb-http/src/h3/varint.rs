//! Integers of variable length (RFC 9000 §16).

/// The largest value.
pub(crate) const MAX: u64 = (1 << 62) - 1;

/// Takes bytes from the front of `input` until a value is whole. `None` when the input is used up before that; `value` and `missing` then
/// hold what was read. `missing` is 0 before the first byte and behind the last.
#[inline]
pub(crate) fn read(value: &mut u64, missing: &mut u8, input: &mut &[u8]) -> Option<u64> {
    if *missing == 0
        && let [first @ ..0x40, rest @ ..] = *input
    {
        *input = rest;
        return Some(u64::from(*first));
    }
    read_long(value, missing, input)
}

fn read_long(value: &mut u64, missing: &mut u8, input: &mut &[u8]) -> Option<u64> {
    while let Some((byte, rest)) = input.split_first() {
        *input = rest;
        if *missing == 0 {
            *value = u64::from(byte & 0x3f);
            *missing = (1 << (byte >> 6)) - 1;
        } else {
            *value = *value << 8 | u64::from(*byte);
            *missing -= 1;
        }
        if *missing == 0 {
            return Some(*value);
        }
    }
    None
}

/// Takes a whole value from the front of `input`.
pub(crate) fn take(input: &mut &[u8]) -> Option<u64> {
    read(&mut 0, &mut 0, input)
}

/// Appends `value`, of which no bits beyond the 62 that the encoding has may be set, in as few bytes as it needs.
#[inline]
pub(crate) fn put(value: u64, out: &mut Vec<u8>) {
    debug_assert!(value <= MAX, "a value of 62 bits");
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9000() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            let mut out = Vec::new();
            put(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(take(&mut &bytes[..]), Some(value));
        }
        // More bytes than needed are no error.
        assert_eq!(take(&mut &[0x40, 0x25][..]), Some(37));
    }

    #[test]
    fn every_width_comes_back_in_any_pieces() {
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, MAX] {
            let mut out = Vec::new();
            put(value, &mut out);
            out.push(0xaa);
            for step in 1..=out.len() {
                let (mut partial, mut missing, mut whole) = (0, 0, None);
                for mut piece in out.chunks(step) {
                    if whole.is_none() {
                        whole = read(&mut partial, &mut missing, &mut piece);
                        assert_eq!(missing > 0, whole.is_none());
                    }
                }
                assert_eq!(whole, Some(value));
            }
        }
    }
}
