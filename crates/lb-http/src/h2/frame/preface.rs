//! What a client says first (RFC 9113 §3.4).

/// The client's connection preface.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Checks the preface, in as many parts as it comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Preface {
    seen: usize,
}

/// The peer does not speak HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHttp2;

impl Preface {
    /// Takes what belongs to the preface from the start of `input`. True once it is complete.
    ///
    /// # Errors
    /// At the first byte that differs.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<bool, NotHttp2> {
        let expected = PREFACE.get(self.seen..).unwrap_or_default();
        let (here, behind) = input.split_at(expected.len().min(input.len()));
        if !expected.starts_with(here) {
            return Err(NotHttp2);
        }
        *input = behind;
        self.seen += here.len();
        Ok(self.seen == PREFACE.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_in_any_parts_and_nothing_else_does() {
        let wire = [&PREFACE[..], b"next"].concat();
        for cut in 0..=PREFACE.len() {
            let mut preface = Preface::default();
            let (mut one, mut two) = wire.split_at(cut);
            assert_eq!(preface.take(&mut one), Ok(cut == PREFACE.len()));
            assert_eq!(preface.take(&mut two), Ok(true));
            assert_eq!(two, b"next");
        }
        assert_eq!(Preface::default().take(&mut &b"PRI * HTTP/1.1"[..]), Err(NotHttp2));
        assert_eq!(Preface::default().take(&mut &b"G"[..]), Err(NotHttp2));
    }
}
