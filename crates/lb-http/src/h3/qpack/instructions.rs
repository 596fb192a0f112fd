//! The instructions on the two QPACK streams of the peer (RFC 9204 §4.3 and §4.4), where no dynamic table has room.

use crate::h3::code::{H3Code, H3Error};

/// An integer with a prefix, of which some bytes may have arrived (RFC 7541 §5.1). Up to 62 bits are taken (RFC 9204 §4.1.1).
#[derive(Clone, Copy, Debug, Default)]
struct Prefixed {
    value: u64,
    /// Bits that the next byte moves by; 0 while no integer is read.
    shift: u8,
}

impl Prefixed {
    /// Starts with the first byte. `Some` when that is all.
    fn begin(&mut self, first: u8, prefix: u32) -> Option<u64> {
        let mask = (1u8 << prefix) - 1;
        self.value = u64::from(first & mask);
        (first & mask < mask).then_some(self.value)
    }

    /// Goes on with a further byte.
    fn go_on(&mut self, byte: u8) -> Result<Option<u64>, ()> {
        // Ten bytes have 70 bits, more than any value needs.
        if self.shift > 63 {
            return Err(());
        }
        let part = u64::from(byte & 0x7f);
        let shifted = part << self.shift;
        if shifted >> self.shift != part {
            return Err(());
        }
        self.value = self.value.checked_add(shifted).filter(|value| *value < 1 << 62).ok_or(())?;
        self.shift += 7;
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        self.shift = 0;
        Ok(Some(self.value))
    }
}

/// Checks bytes of the peer's encoder stream. Without a table that it could fill, it may say that the table has no room, and nothing else.
pub(crate) fn check_encoder_stream(input: &[u8]) -> Result<(), H3Error> {
    let wrong = |what| Err(H3Error::connection(H3Code::QPACK_ENCODER_STREAM_ERROR, what));
    for byte in input {
        match byte {
            // Set Dynamic Table Capacity to 0: it is one byte.
            0x20 => {}
            0x21..=0x3f => return wrong("a table capacity beyond the limit"),
            _ => return wrong("an entry that is larger than the dynamic table"),
        }
    }
    Ok(())
}

/// The peer's decoder stream. No section that is sent refers to a dynamic table, so that there is none to acknowledge.
#[derive(Debug, Default)]
pub(crate) struct DecoderStream {
    /// The identifier in a Stream Cancellation that has begun.
    stream: Option<Prefixed>,
}

impl DecoderStream {
    /// Takes all of `input`.
    pub(crate) fn read(&mut self, input: &mut &[u8]) -> Result<(), H3Error> {
        let wrong = |what| Err(H3Error::connection(H3Code::QPACK_DECODER_STREAM_ERROR, what));
        for byte in std::mem::take(input) {
            if let Some(stream) = &mut self.stream {
                match stream.go_on(*byte) {
                    Ok(None) => {}
                    Ok(Some(_)) => self.stream = None,
                    Err(()) => return wrong("an integer that is too large"),
                }
                continue;
            }
            match byte {
                0x80.. => return wrong("an acknowledgement of a section without dynamic entries"),
                0x40.. => {
                    let mut stream = Prefixed::default();
                    self.stream = stream.begin(*byte, 6).is_none().then_some(stream);
                }
                _ => return wrong("an increment beyond the entries that were sent"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder(bytes: &[u8]) -> Result<(), H3Code> {
        check_encoder_stream(bytes).map_err(|error| error.code)
    }

    fn decoder(bytes: &[u8]) -> Result<(), H3Code> {
        let mut stream = DecoderStream::default();
        bytes.chunks(1).try_for_each(|mut byte| stream.read(&mut byte)).map_err(|error| error.code)
    }

    #[test]
    fn q_08_an_encoder_stream_can_but_confirm_that_there_is_no_table() {
        assert_eq!(encoder(&[]), Ok(()));
        assert_eq!(encoder(&[0x20, 0x20]), Ok(()));
        // A capacity of 1, one of 220 (RFC 9204 appendix B.2), two kinds of insert, and a duplicate.
        for bytes in [&[0x21][..], &[0x3f, 0xbd, 0x01], &[0xc0, 0x00], &[0x41, 0x61, 0x00], &[0x02]] {
            assert_eq!(encoder(bytes), Err(H3Code::QPACK_ENCODER_STREAM_ERROR));
        }
    }

    #[test]
    fn q_08_a_decoder_stream_can_but_cancel_streams() {
        // RFC 9204 appendix B.3 cancels stream 8; and one with the greatest identifier there is.
        assert_eq!(decoder(&[0x48]), Ok(()));
        let greatest = [0x7f, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x44];
        assert_eq!(decoder(&greatest), Ok(()));
        let mut beyond = greatest;
        beyond[1] = 0xc1;
        assert_eq!(decoder(&beyond), Err(H3Code::QPACK_DECODER_STREAM_ERROR));
        for bytes in [
            &[0x84][..],
            &[0x01],
            &[0x00],
            &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
        ] {
            assert_eq!(decoder(bytes), Err(H3Code::QPACK_DECODER_STREAM_ERROR));
        }
    }
}
