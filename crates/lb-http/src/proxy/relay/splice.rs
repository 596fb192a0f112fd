//! Large bodies on their way from socket to socket, past user space.

use std::task::{Context, Poll};

use lb_io::pipe::Pipe;
use tokio::time::Instant;

use super::Stop;
use crate::exchange::{Back, Front, Gone, Progress};
use crate::proxy::timing::Stall;
use crate::service::HttpWorker;

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

/// Moves a part of the body through `pipe`, which the exchange holds only while there are bytes in it.
#[expect(clippy::too_many_arguments, reason = "the parts of one exchange, borrowed one by one")]
pub(super) fn splice(
    cx: &mut Context<'_>,
    front: &mut impl Front,
    back: &mut impl Back,
    mut pipe: Pipe,
    slot: &mut Option<Pipe>,
    worker: &HttpWorker,
    stall: &mut Stall,
    now: Instant,
) -> Spliced {
    let result =
        if pipe.held() > 0 { Poll::Ready(Ok(Progress::Moved)) } else { back.poll_splice(cx, &mut pipe) };
    let outcome = match result {
        Poll::Pending => Spliced::Idle,
        Poll::Ready(Err(error)) => Spliced::Stop(Stop::Failed(error)),
        Poll::Ready(Ok(_)) => match front.poll_splice(cx, &mut pipe) {
            Poll::Ready(Ok(())) => {
                stall.end();
                if back.splice_left() == 0 { Spliced::End } else { Spliced::Moved }
            }
            Poll::Ready(Err(Gone)) => Spliced::Stop(Stop::ClientGone),
            Poll::Pending => {
                stall.begin(now);
                *slot = Some(pipe);
                return Spliced::Idle;
            }
        },
    };
    worker.io.pipes.put(pipe);
    outcome
}
