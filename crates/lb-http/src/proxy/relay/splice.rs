//! Large bodies on their way from socket to socket, past user space.

use std::task::{Context, Poll};

use lb_io::pipe::Pipe;

use super::Stop;
use crate::message::{Back, Front, Progress};
use crate::proxy::exchange::Exchange;

/// Bodies with at least this much still to come are moved without copying.
const SPLICE_BYTES: u64 = 64 * 1024;

/// What a turn of splicing came to.
pub(super) enum Spliced {
    Moved,
    Idle,
    End,
    Stop(Stop),
}

/// Whether the rest of the response can go from socket to socket.
pub(super) fn splices(front: &impl Front, back: &impl Back) -> bool {
    back.splice_left() >= SPLICE_BYTES && front.can_splice()
}

impl Exchange {
    /// Moves a part of the body through `pipe`, which the response holds only while there are bytes in it.
    pub(super) fn splice(&mut self, cx: &mut Context<'_>, front: &mut impl Front, mut pipe: Pipe) -> Spliced {
        let Some(back) = self.tries.current.back() else { return Spliced::Idle };
        let result =
            if pipe.held() > 0 { Poll::Ready(Ok(Progress::Moved)) } else { back.poll_splice(cx, &mut pipe) };
        let stall = &mut self.client.stall;
        let outcome = match result {
            Poll::Pending => Spliced::Idle,
            Poll::Ready(Err(failure)) => Spliced::Stop(Stop::Failed(failure)),
            Poll::Ready(Ok(_)) => match front.poll_splice(cx, &mut pipe) {
                Poll::Ready(Ok(())) => {
                    stall.end();
                    if back.splice_left() == 0 { Spliced::End } else { Spliced::Moved }
                }
                Poll::Ready(Err(gone)) => Spliced::Stop(Stop::ClientGone(gone)),
                Poll::Pending => {
                    stall.begin(self.clock.now);
                    self.response.pipe = Some(pipe);
                    return Spliced::Idle;
                }
            },
        };
        self.service.worker.io.pipes.put(pipe);
        outcome
    }
}
