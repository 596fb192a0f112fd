//! The codecs towards backends as one type.

use std::task::{Context, Poll};

use lb_core::failure::Failure;
use lb_core::head::{Fields, RequestHead, ResponseHead};
use lb_core::reason::Reason;
use lb_io::Scratch;
use lb_io::pipe::Pipe;

use crate::h1::back::H1Back;
use crate::h2::H2Back;
use crate::message::{Back, BackCapabilities, Gone, Progress, ResponseSink, Sink, Traffic};

pub(crate) mod plugged;

/// The backend's side of an exchange, whatever the backend speaks. The protocols of this crate are called directly; one that is plugged in
/// from outside costs a virtual call for each read and write.
#[derive(Debug)]
pub(crate) enum AnyBack {
    /// A connection of its own. It stays where it is from one request to the next.
    H1(Box<H1Back>),
    /// A stream of a shared connection.
    H2(H2Back),
    /// A protocol from another crate.
    Plugged(Box<dyn plugged::PluggedBack>),
}

impl AnyBack {
    /// The connection of its own, if it can carry another request: the response is complete, and nothing follows it.
    ///
    /// # Errors
    /// When bytes came that belong to no response.
    pub(crate) fn into_idle(self) -> Result<Option<Box<H1Back>>, Reason> {
        match self {
            Self::H1(mut back) => Ok(if back.rest()? { Some(back) } else { None }),
            Self::H2(_) | Self::Plugged(_) => Ok(None),
        }
    }
}

macro_rules! each {
    ($self:ident, $back:ident => $call:expr) => {
        match $self {
            AnyBack::H1($back) => $call,
            AnyBack::H2($back) => $call,
            AnyBack::Plugged($back) => $call,
        }
    };
}

impl Sink for AnyBack {
    #[inline]
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        each!(self, back => back.data(cx, bytes));
    }

    fn trailers(&mut self, fields: &Fields) {
        each!(self, back => back.trailers(fields));
    }

    fn end(&mut self) {
        each!(self, back => back.end());
    }

    #[inline]
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        each!(self, back => back.poll_flush(cx))
    }
}

impl Back for AnyBack {
    #[inline]
    fn capabilities(&self) -> BackCapabilities {
        each!(self, back => back.capabilities())
    }

    fn request(&mut self, head: &RequestHead) {
        each!(self, back => back.request(head));
    }

    #[inline]
    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        room: usize,
        head: &mut ResponseHead,
        to: &mut impl ResponseSink,
    ) -> Poll<Result<Progress, Failure>> {
        each!(self, back => back.poll_response(cx, scratch, room, head, to))
    }

    fn splice_left(&self) -> u64 {
        each!(self, back => back.splice_left())
    }

    fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<Result<Progress, Failure>> {
        each!(self, back => back.poll_splice(cx, pipe))
    }

    fn take_traffic(&mut self) -> Traffic {
        each!(self, back => back.take_traffic())
    }
}
