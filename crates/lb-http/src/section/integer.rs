//! Integers with a prefix of some bits (RFC 7541 §5.1).

use super::CodingError;

/// Continuation bytes that an integer may have: enough for 32 bits.
const MAX_CONTINUATION: u32 = 5;

/// Reads the integer that starts in the low `prefix` bits of `first` and goes on in `rest`, which is moved behind it.
///
/// # Errors
/// When it is cut short, does not fit 32 bits, or is stretched over more bytes than 32 bits need.
#[inline]
pub(crate) fn decode(first: u8, prefix: u32, rest: &mut &[u8]) -> Result<usize, CodingError> {
    let mask = (1u8 << prefix) - 1;
    let value = first & mask;
    if value < mask {
        return Ok(usize::from(value));
    }
    continued(u32::from(value), rest)
}

fn continued(mut value: u32, rest: &mut &[u8]) -> Result<usize, CodingError> {
    for place in 0..MAX_CONTINUATION {
        let (byte, behind) = rest.split_first().ok_or(CodingError::Truncated)?;
        *rest = behind;
        let part = u32::from(byte & 0x7f);
        let shifted = part << (7 * place);
        if shifted >> (7 * place) != part {
            return Err(CodingError::Integer);
        }
        value = value.checked_add(shifted).ok_or(CodingError::Integer)?;
        if byte & 0x80 == 0 {
            return usize::try_from(value).map_err(|_| CodingError::Integer);
        }
    }
    Err(CodingError::Integer)
}

/// Writes `value` with a prefix of `prefix` bits, below the `pattern` that fills the high bits of the first byte.
#[inline]
pub(crate) fn encode(value: usize, prefix: u32, pattern: u8, out: &mut Vec<u8>) {
    let mask = (1u8 << prefix) - 1;
    if value < usize::from(mask) {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | mask);
    let mut left = value - usize::from(mask);
    while left >= 0x80 {
        out.push(0x80 | (left & 0x7f) as u8);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], prefix: u32) -> Result<(usize, usize), CodingError> {
        let (first, mut rest) = bytes.split_first().unwrap();
        decode(*first, prefix, &mut rest).map(|value| (value, rest.len()))
    }

    #[test]
    fn the_examples_of_appendix_c_1() {
        for (value, prefix, bytes) in
            [(10, 5, &[10u8][..]), (1337, 5, &[0x1f, 0x9a, 0x0a]), (42, 8 - 1, &[42])]
        {
            let mut out = Vec::new();
            encode(value, prefix, 0, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(read(bytes, prefix), Ok((value, 0)));
        }
        // The pattern above the prefix is not part of the value.
        assert_eq!(read(&[0xea], 5), Ok((10, 0)));
    }

    #[test]
    fn every_width_comes_back() {
        for prefix in 4..=7 {
            for value in (0..70_000).chain([1 << 20, (1 << 28) + 5, u32::MAX as usize]) {
                let mut out = Vec::new();
                encode(value, prefix, 0, &mut out);
                assert_eq!(read(&out, prefix), Ok((value, 0)));
            }
        }
    }

    #[test]
    fn overflow_and_stretching_are_refused() {
        assert_eq!(read(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0x0f], 5), Err(CodingError::Integer));
        assert_eq!(read(&[0x1f, 0xe0, 0xff, 0xff, 0xff, 0x0f], 5), Ok((u32::MAX as usize, 0)));
        assert_eq!(read(&[0x1f, 0x80, 0x80, 0x80, 0x80, 0x10], 5), Err(CodingError::Integer));
        assert_eq!(read(&[0x1f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], 5), Err(CodingError::Integer));
        assert_eq!(read(&[0x1f, 0x80, 0x00], 5), Ok((31, 0)));
        assert_eq!(read(&[0x1f, 0x80], 5), Err(CodingError::Truncated));
    }
}
