//! The Huffman code of RFC 7541 Appendix B.
//!
//! The code is canonical: among codes of one length it counts up with the symbol, so the table of lengths says all, and the rest is
//! computed while compiling. Decoding looks at eleven bits at once, which mostly hold two symbols whole; the few codes that
//! are longer are found by comparing with the largest code of each length.

use super::CodingError;

/// The bits that the first table looks at.
const PEEK: u32 = 11;

/// The symbol that is not a byte, and must not occur.
const EOS: usize = 256;

/// The shortest and the longest code.
const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// Bits of the code of each symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// Code and length of each byte.
static CODES: [(u32, u8); 256] = codes();

/// Symbols in the order of their codes.
static ORDERED: [u16; 257] = ORDER.0;

/// What is needed to find a code longer than [`PEEK`] bits.
static LONG: [Length; LONGEST + 1] = ORDER.1;

const ORDER: ([u16; 257], [Length; LONGEST + 1]) = order();

/// What the next [`PEEK`] bits start with.
static STEPS: [Step; 1 << PEEK] = steps();

/// All codes of one length.
#[derive(Clone, Copy)]
struct Length {
    /// One more than the last code, moved to the top of 32 bits; 0 where no code has this length.
    end: u32,
    /// The first code.
    first: u32,
    /// Where its symbol stands in [`ORDERED`].
    rank: u16,
}

/// One or two symbols. `length` is 0 where not even one code is whole.
#[derive(Clone, Copy)]
struct Step {
    symbols: [u8; 2],
    /// Bits of the first symbol.
    length: u8,
    /// Bits of all symbols, in the low six bits; above them their number.
    both: u8,
}

impl Step {
    #[inline]
    fn bits(self) -> u32 {
        u32::from(self.both & 0x3f)
    }

    #[inline]
    fn count(self) -> usize {
        usize::from(self.both >> 6)
    }
}

/// Appends the text that `input` encodes to `out`: at most eight bytes for each five of `input`.
///
/// # Errors
/// When the code is broken. What `out` then holds behind its old end means nothing.
pub(crate) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), CodingError> {
    let start = out.len();
    // No symbol is shorter than five bits. Two more bytes, because symbols are written in pairs.
    let bound = input.len().saturating_mul(8) / SHORTEST;
    out.resize(start + bound + 2, 0);
    let text = out.get_mut(start..).unwrap_or_default();
    let length = decode_into(input, text)?;
    out.truncate(start + length);
    Ok(())
}

fn decode_into(input: &[u8], text: &mut [u8]) -> Result<usize, CodingError> {
    // The next bits stand at the top of `window`; `held` of them are from the input, those behind are 0.
    let (mut window, mut held, mut at, mut length) = (0u64, 0u32, 0usize, 0usize);
    while let Some(next) = input.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        window |= u64::from_be_bytes(*next) >> held;
        at += ((63 - held) >> 3) as usize;
        held |= 56;
        while held >= 32 {
            let step = look(window);
            if step.length == 0 {
                let (symbol, bits) = long(window)?;
                put(text, &mut length, &[symbol]);
                window <<= bits;
                held -= bits;
            } else {
                if let Some(pair) = text.get_mut(length..).and_then(|rest| rest.first_chunk_mut::<2>()) {
                    *pair = step.symbols;
                }
                length += step.count();
                window <<= step.bits();
                held -= step.bits();
            }
        }
    }
    let mut tail = [0u8; 8];
    let rest = input.get(at..).unwrap_or_default();
    // At most 31 bits are held and at most 7 bytes left, of which the window takes what fits; the others follow.
    let mut left = rest.len();
    for (to, from) in tail.iter_mut().zip(rest) {
        *to = *from;
    }
    let mut behind = u64::from_be_bytes(tail);
    let mut refill = |window: &mut u64, held: &mut u32| {
        let bytes = (((64 - *held) >> 3) as usize).min(left);
        if bytes > 0 {
            *window |= behind >> *held;
            behind = behind.checked_shl(8 * bytes as u32).unwrap_or(0);
            left -= bytes;
            *held += 8 * bytes as u32;
            // What stands behind the bytes taken comes again with the next.
            *window &= !(u64::MAX.checked_shr(*held).unwrap_or(0));
        }
    };
    loop {
        refill(&mut window, &mut held);
        // Behind the end stand ones, as padding has them.
        let padded = window | u64::MAX.checked_shr(held).unwrap_or(0);
        let step = look(padded);
        if step.length != 0 && step.bits() <= held {
            put(text, &mut length, step.symbols.get(..step.count()).unwrap_or_default());
            window <<= step.bits();
            held -= step.bits();
            continue;
        }
        let (symbol, bits) = match step.length {
            // A lone one at the end, or the padding.
            0 if held < 8 && padded == u64::MAX => return Ok(length),
            0 => long(padded)?,
            bits => (step.symbols[0], u32::from(bits)),
        };
        if bits > held {
            return Err(CodingError::Huffman);
        }
        put(text, &mut length, &[symbol]);
        window <<= bits;
        held -= bits;
    }
}

#[inline]
fn look(window: u64) -> Step {
    STEPS.get((window >> (64 - PEEK)) as usize).copied().unwrap_or(Step {
        symbols: [0; 2],
        length: 0,
        both: 0,
    })
}

#[inline]
fn put(text: &mut [u8], length: &mut usize, symbols: &[u8]) {
    for symbol in symbols {
        if let Some(slot) = text.get_mut(*length) {
            *slot = *symbol;
        }
        *length += 1;
    }
}

/// The symbol and length of the long code at the top of `window`.
#[cold]
fn long(window: u64) -> Result<(u8, u32), CodingError> {
    let top = (window >> 32) as u32;
    let lengths = LONG.iter().enumerate().skip(PEEK as usize + 1);
    for (bits, length) in lengths {
        if top < length.end {
            let rank = usize::from(length.rank) + ((top >> (32 - bits)) - length.first) as usize;
            let symbol = ORDERED.get(rank).copied().unwrap_or(EOS as u16);
            // EOS has no byte.
            return u8::try_from(symbol)
                .map(|symbol| (symbol, bits as u32))
                .map_err(|_| CodingError::Huffman);
        }
    }
    // The largest code is EOS itself.
    Err(CodingError::Huffman)
}

/// Bytes that the code of `text` takes.
#[inline]
pub(crate) fn encoded_length(text: &[u8]) -> usize {
    let bits: usize =
        text.iter().map(|byte| usize::from(CODES.get(usize::from(*byte)).map_or(0, |code| code.1))).sum();
    bits.div_ceil(8)
}

/// Appends the code of `text` to `out`.
pub(crate) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut window, mut held) = (0u64, 0u32);
    for byte in text {
        let (code, bits) = CODES.get(usize::from(*byte)).copied().unwrap_or_default();
        held += u32::from(bits);
        window |= u64::from(code) << (64 - held);
        if held >= 32 {
            let [a, b, c, d, ..] = window.to_be_bytes();
            out.extend_from_slice(&[a, b, c, d]);
            window <<= 32;
            held -= 32;
        }
    }
    window |= u64::MAX >> held;
    out.extend_from_slice(window.to_be_bytes().get(..held.div_ceil(8) as usize).unwrap_or_default());
}

#[expect(clippy::indexing_slicing, reason = "runs while compiling, where it fails the build")]
const fn order() -> ([u16; 257], [Length; LONGEST + 1]) {
    let mut ordered = [0u16; 257];
    let mut lengths = [Length { end: 0, first: 0, rank: 0 }; LONGEST + 1];
    let (mut code, mut rank, mut bits) = (0u32, 0usize, SHORTEST);
    while bits <= LONGEST {
        code <<= 1;
        lengths[bits].first = code;
        lengths[bits].rank = rank as u16;
        let before = rank;
        let mut symbol = 0;
        while symbol <= EOS {
            if LENGTHS[symbol] as usize == bits {
                ordered[rank] = symbol as u16;
                rank += 1;
                code += 1;
            }
            symbol += 1;
        }
        // The code is complete: behind the last one of 30 bits there is nothing, which is 2^32 and stands for "always".
        if rank > before {
            lengths[bits].end = if bits == LONGEST { u32::MAX } else { code << (32 - bits) };
        }
        bits += 1;
    }
    assert!(rank == 257 && code == 1 << LONGEST, "the code is complete");
    (ordered, lengths)
}

#[expect(clippy::indexing_slicing, reason = "runs while compiling, where it fails the build")]
const fn codes() -> [(u32, u8); 256] {
    let mut codes = [(0u32, 0u8); 256];
    let (ordered, lengths) = ORDER;
    let mut rank = 0;
    while rank < EOS {
        let symbol = ordered[rank] as usize;
        let bits = LENGTHS[symbol];
        let length = lengths[bits as usize];
        codes[symbol] = (length.first + (rank as u32 - length.rank as u32), bits);
        rank += 1;
    }
    codes
}

#[expect(clippy::indexing_slicing, reason = "runs while compiling, where it fails the build")]
const fn steps() -> [Step; 1 << PEEK] {
    let mut steps = [Step { symbols: [0; 2], length: 0, both: 0 }; 1 << PEEK];
    // The symbol that the top of so many bits starts with, and its length; 0 where it has more bits.
    let mut single = [(0u8, 0u8); 1 << PEEK];
    let codes = codes();
    let mut symbol = 0;
    while symbol < 256 {
        let (code, bits) = codes[symbol];
        if bits as u32 <= PEEK {
            let shift = PEEK - bits as u32;
            let mut low = 0;
            while low < 1 << shift {
                single[((code << shift) | low) as usize] = (symbol as u8, bits);
                low += 1;
            }
        }
        symbol += 1;
    }
    let mut at = 0;
    while at < 1 << PEEK {
        let (first, bits) = single[at];
        if bits > 0 {
            let (second, more) = single[(at << bits) & ((1 << PEEK) - 1)];
            let both = bits + more;
            steps[at] = if more > 0 && both as u32 <= PEEK {
                Step { symbols: [first, second], length: bits, both: (2 << 6) | both }
            } else {
                Step { symbols: [first, 0], length: bits, both: (1 << 6) | bits }
            };
        }
        at += 1;
    }
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(code: &[u8]) -> Result<Vec<u8>, CodingError> {
        let mut out = b"before".to_vec();
        decode(code, &mut out)?;
        Ok(out.split_off(6))
    }

    fn code(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text, &mut out);
        assert_eq!(out.len(), encoded_length(text));
        out
    }

    #[test]
    fn codes_are_those_of_appendix_b() {
        // From each group of lengths, the first and the last that the RFC prints.
        for (symbol, code, bits) in [
            (b'0', 0x0, 5),
            (b't', 0x9, 5),
            (b' ', 0x14, 6),
            (b'u', 0x2d, 6),
            (b':', 0x5c, 7),
            (b'z', 0x7b, 7),
            (b'&', 0xf8, 8),
            (b'Z', 0xfd, 8),
            (b'!', 0x3f8, 10),
            (b'|', 0x7fc, 11),
            (b'#', 0xffa, 12),
            (0, 0x1ff8, 13),
            (b'\\', 0x7fff0, 19),
            (9, 0xff_ffea, 24),
            (10, 0x3fff_fffc, 30),
            (22, 0x3fff_fffe, 30),
            (249, 0xfff_fffe, 28),
        ] {
            assert_eq!(CODES[usize::from(symbol)], (code, bits), "{symbol}");
        }
    }

    #[test]
    fn every_byte_comes_back_alone_and_after_every_other() {
        for first in 0..=255u8 {
            assert_eq!(text(&code(&[first])), Ok(vec![first]));
            for second in 0..=255 {
                let both = [first, second, b'a', first];
                assert_eq!(text(&code(&both)), Ok(both.to_vec()));
            }
        }
    }

    #[test]
    fn padding_is_at_most_seven_ones_and_eos_never_occurs() {
        assert_eq!(text(&[]), Ok(vec![]));
        assert_eq!(text(&[0b0001_1111]), Ok(b"a".to_vec()));
        assert_eq!(text(&[0b0001_1110]), Err(CodingError::Huffman));
        assert_eq!(text(&[0b0001_1011]), Err(CodingError::Huffman));
        assert_eq!(text(&[0xff]), Err(CodingError::Huffman));
        assert_eq!(text(&[0b0001_1111, 0xff]), Err(CodingError::Huffman));
        assert_eq!(text(&[0xff, 0xff, 0xff, 0xff]), Err(CodingError::Huffman));
        assert_eq!(text(&[0xff; 16]), Err(CodingError::Huffman));
    }

    /// One bit at a time, by the table of codes alone.
    fn slowly(input: &[u8]) -> Result<Vec<u8>, CodingError> {
        let (mut out, mut value, mut bits, mut ones) = (Vec::new(), 0u32, 0u8, true);
        for bit in input.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
            value = value << 1 | u32::from(bit);
            bits += 1;
            ones &= bit == 1;
            if let Some(symbol) = CODES.iter().position(|code| *code == (value, bits)) {
                out.push(u8::try_from(symbol).unwrap());
                (value, bits, ones) = (0, 0, true);
            } else if bits == 30 {
                return Err(CodingError::Huffman);
            }
        }
        if bits < 8 && ones { Ok(out) } else { Err(CodingError::Huffman) }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(text(&code(&bytes)), Ok(bytes));
        }

        #[test]
        fn any_code_means_what_it_means_bit_by_bit(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(text(&bytes), slowly(&bytes));
        }

        #[test]
        fn a_code_with_one_bit_wrong_means_what_it_means_bit_by_bit(text_in in "[ -~]{0,40}", flip in any::<prop::sample::Index>()) {
            let mut bytes = code(text_in.as_bytes());
            if !bytes.is_empty() {
                let bit = flip.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            prop_assert_eq!(text(&bytes), slowly(&bytes));
        }
    }
}
