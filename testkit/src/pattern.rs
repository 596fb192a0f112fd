//! A byte stream that both ends can compute, so that a gibibyte can be checked without being stored.
//!
//! The stream repeats a pseudo-random block whose length is a prime. Buffers come in powers of two, so a piece that is
//! lost, doubled or out of order never lines up with the block again.

use std::sync::OnceLock;

const PERIOD: usize = 1_048_573;

fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect()
    })
}

/// Calls `each` with the contiguous pieces of the stream from `offset` on, `len` bytes in all.
fn pieces(offset: u64, len: usize, mut each: impl FnMut(usize, &[u8])) {
    let mut done = 0;
    while done < len {
        let at = ((offset + done as u64) % PERIOD as u64) as usize;
        let take = (PERIOD - at).min(len - done);
        each(done, &block()[at..at + take]);
        done += take;
    }
}

/// Fills `out` with the stream from `offset` on.
pub fn fill(offset: u64, out: &mut [u8]) {
    pieces(offset, out.len(), |done, piece| out[done..done + piece.len()].copy_from_slice(piece));
}

/// The first `len` bytes of the stream.
pub fn bytes(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    fill(0, &mut out);
    out
}

/// Compares bytes, as they come, with the stream.
#[derive(Debug, Default, Clone)]
pub struct Verifier {
    offset: u64,
    wrong_at: Option<u64>,
}

impl Verifier {
    /// Takes the next bytes.
    pub fn feed(&mut self, data: &[u8]) {
        if self.wrong_at.is_none() {
            let base = self.offset;
            let mut wrong = None;
            pieces(base, data.len(), |done, piece| {
                let seen = &data[done..done + piece.len()];
                if wrong.is_none() && seen != piece {
                    let index = seen.iter().zip(piece).position(|(a, b)| a != b).unwrap_or(0);
                    wrong = Some(base + (done + index) as u64);
                }
            });
            self.wrong_at = wrong;
        }
        self.offset += data.len() as u64;
    }

    /// How many bytes came.
    pub fn len(&self) -> u64 {
        self.offset
    }

    /// Whether nothing came yet.
    pub fn is_empty(&self) -> bool {
        self.offset == 0
    }

    /// The offset of the first byte that differs.
    pub fn wrong_at(&self) -> Option<u64> {
        self.wrong_at
    }

    /// Panics unless exactly `len` bytes came and all were right.
    #[track_caller]
    pub fn assert_complete(&self, len: u64) {
        assert_eq!(self.wrong_at, None, "the data differs at this offset");
        assert_eq!(self.offset, len, "length of the data");
    }
}
