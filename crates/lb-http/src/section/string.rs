//! String literals (RFC 7541 §5.2, RFC 9204 §4.1.2): plain or Huffman-coded, behind their length.

use super::{CodingError, huffman, integer};

/// A decoded string literal: where its text is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Text<'a> {
    /// In the block.
    Plain(&'a [u8]),
    /// In the scratch, from the first position to the second.
    Scratch(usize, usize),
}

impl<'a> Text<'a> {
    /// The text, of a literal that was decoded with this scratch.
    #[inline]
    pub(crate) fn bytes(self, scratch: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Scratch(start, end) => scratch.get(start..end).unwrap_or_default(),
        }
    }
}

/// Reads a literal whose first byte is `first`: the bit above the `prefix` bits of the length says whether it is Huffman-coded, in which case
/// its text is appended to `scratch`. `rest` is moved behind the literal.
///
/// # Errors
/// When the literal is cut short or its code is broken.
#[inline]
pub(crate) fn decode<'a>(
    first: u8,
    prefix: u32,
    rest: &mut &'a [u8],
    scratch: &mut Vec<u8>,
) -> Result<Text<'a>, CodingError> {
    let length = integer::decode(first, prefix, rest)?;
    let (bytes, behind) = rest.split_at_checked(length).ok_or(CodingError::Truncated)?;
    *rest = behind;
    if first & (1 << prefix) == 0 {
        return Ok(Text::Plain(bytes));
    }
    let start = scratch.len();
    huffman::decode(bytes, scratch)?;
    Ok(Text::Scratch(start, scratch.len()))
}

/// Writes a literal below the `pattern` that fills the high bits of its first byte, Huffman-coded when that is shorter.
pub(crate) fn encode(text: &[u8], prefix: u32, pattern: u8, out: &mut Vec<u8>) {
    let coded = huffman::encoded_length(text);
    if coded < text.len() {
        integer::encode(coded, prefix, pattern | (1 << prefix), out);
        huffman::encode(text, out);
    } else {
        integer::encode(text.len(), prefix, pattern, out);
        out.extend_from_slice(text);
    }
}
