//! One direction of a relay.
//!
//! Bytes are copied through the worker's read buffer at first: for small exchanges that is the cheapest way. Once a flow has filled
//! several large reads in a row it is bulk, and moves by splice(2) through a pipe until its reads have been small for a while. A
//! pipe belongs to a direction only while it holds bytes. Where either side is inside TLS there is nothing to splice.

use std::io;
use std::task::{Context, Poll};

use lb_io::WorkerIo;
use lb_io::pipe::{PIPE_BYTES, Pipe};
use lb_security::Stream;

/// A copied read of at least this many bytes counts towards bulk.
const LARGE_READ: usize = 16 * 1024;

/// Large reads in a row that make a flow bulk.
const LARGE_READS: u8 = 2;

/// A spliced read below this counts against bulk.
const SMALL_SPLICE: usize = 4 * 1024;

/// Small spliced reads in a row that end bulk.
const SMALL_SPLICES: u8 = 16;

/// Reads before other connections get their turn.
const ROUNDS: usize = 32;

/// What a turn of a direction came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Bytes handed to the receiving socket.
    pub(crate) bytes: u64,
    /// The part of them that never entered user space.
    pub(crate) spliced: u64,
    /// More could be moved at once.
    pub(crate) more: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Half {
    /// Read but not taken by the receiver, from `sent` on.
    waiting: Vec<u8>,
    sent: usize,
    pipe: Option<Pipe>,
    bulk: bool,
    streak: u8,
    ended: bool,
    shut: bool,
    /// All is sent, the end included.
    done: bool,
}

impl Half {
    /// Whether the sender has ended, and the receiver has got its end.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Moves what can be moved from `from` to `to`.
    ///
    /// # Errors
    /// When either socket fails; the relay is over then.
    pub(crate) fn pump(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        io: &WorkerIo,
        splice: bool,
    ) -> io::Result<Moved> {
        let mut moved = Moved::default();
        let result = self.rounds(cx, from, to, io, splice, &mut moved);
        if let Some(pipe) = self.pipe.take_if(|pipe| pipe.held() == 0) {
            io.pipes.put(pipe);
        }
        result.map(|()| moved)
    }

    fn rounds(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        io: &WorkerIo,
        splice: bool,
        moved: &mut Moved,
    ) -> io::Result<()> {
        for _ in 0..ROUNDS {
            if self.flush(cx, to, io, moved)?.is_pending() {
                return Ok(());
            }
            if self.ended {
                if !self.shut {
                    self.shut = true;
                    // A receiver that is gone already needs no telling; any other would wait for the end in vain.
                    match to.shutdown_write() {
                        Err(error) if error.kind() != io::ErrorKind::NotConnected => return Err(error),
                        _ => {}
                    }
                }
                self.done = !matches!(to.poll_flush(cx), Poll::Pending);
                return Ok(());
            }
            if splice && self.bulk && self.pipe.is_none() {
                // Without descriptors the copy goes on.
                self.pipe = io.pipes.take().ok();
            }
            let read = match &mut self.pipe {
                Some(pipe) => match from.poll_splice_in(cx, pipe, PIPE_BYTES) {
                    Poll::Ready(n) => n?,
                    Poll::Pending => return Ok(()),
                },
                None => {
                    let mut scratch = io.scratch.borrow_mut();
                    let input = match from.poll_take(cx, &mut scratch, usize::MAX) {
                        Poll::Ready(input) => input?,
                        Poll::Pending => return Ok(()),
                    };
                    let taken = match to.poll_send(cx, input) {
                        _ if input.is_empty() => 0,
                        Poll::Ready(n) => n?,
                        Poll::Pending => 0,
                    };
                    moved.bytes = moved.bytes.saturating_add(count(taken));
                    if taken < input.len() {
                        if self.waiting.capacity() == 0 {
                            self.waiting = io.buffers.take();
                        }
                        self.waiting.extend_from_slice(input.get(taken..).unwrap_or(&[]));
                    }
                    input.len()
                }
            };
            self.ended = read == 0;
            self.judge(read);
        }
        moved.more = true;
        Ok(())
    }

    /// Sends what waits in the pipe or in the buffer.
    fn flush(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Stream,
        io: &WorkerIo,
        moved: &mut Moved,
    ) -> io::Result<Poll<()>> {
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held() > 0) {
            match to.poll_splice_out(cx, pipe) {
                Poll::Ready(n) => {
                    let n = count(n?);
                    moved.bytes = moved.bytes.saturating_add(n);
                    moved.spliced = moved.spliced.saturating_add(n);
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match to.poll_send(cx, rest) {
                Poll::Ready(n) => {
                    let n = n?;
                    self.sent = self.sent.saturating_add(n);
                    moved.bytes = moved.bytes.saturating_add(count(n));
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        self.sent = 0;
        io.buffers.put(&mut self.waiting);
        // Inside TLS, what the stream has taken may still wait.
        match to.poll_flush(cx) {
            Poll::Ready(result) => result.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Learns from the size of a read whether the flow is bulk.
    fn judge(&mut self, read: usize) {
        let (counts, enough) =
            if self.bulk { (read < SMALL_SPLICE, SMALL_SPLICES) } else { (read >= LARGE_READ, LARGE_READS) };
        self.streak = if counts { self.streak.saturating_add(1) } else { 0 };
        if self.streak >= enough {
            self.streak = 0;
            self.bulk = !self.bulk;
        }
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk_after(reads: &[usize]) -> bool {
        let mut half = Half::default();
        reads.iter().for_each(|read| half.judge(*read));
        half.bulk
    }

    #[test]
    fn only_large_reads_in_a_row_make_a_flow_bulk() {
        assert!(bulk_after(&[65536, 65536]));
        assert!(!bulk_after(&[65536, 100, 65536]));
        assert!(!bulk_after(&[100; 1000]));
    }

    #[test]
    fn a_flow_stays_bulk_through_pauses_and_stops_when_it_turned_small() {
        let mut reads = vec![65536, 65536];
        reads.extend([300; 15]);
        assert!(bulk_after(&reads));
        reads.push(300);
        assert!(!bulk_after(&reads));
    }
}
