//! Backs of protocols from other crates.

use std::fmt;
use std::task::{Context, Poll};

use lb_core::failure::Failure;
use lb_core::head::{RequestHead, ResponseHead};
use lb_io::Scratch;
use lb_io::pipe::Pipe;

use crate::message::{Back, BackCapabilities, Progress, ResponseSink, Sink, Traffic};

/// A [`Back`] behind a pointer.
pub(crate) trait PluggedBack: Sink + fmt::Debug {
    fn capabilities(&self) -> BackCapabilities;
    fn request(&mut self, head: &RequestHead);
    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        room: usize,
        head: &mut ResponseHead,
        to: &mut dyn ResponseSink,
    ) -> Poll<Result<Progress, Failure>>;
    fn splice_left(&self) -> u64;
    fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<Result<Progress, Failure>>;
    fn take_traffic(&mut self) -> Traffic;
}

impl<B: Back + fmt::Debug> PluggedBack for B {
    fn capabilities(&self) -> BackCapabilities {
        Back::capabilities(self)
    }

    fn request(&mut self, head: &RequestHead) {
        Back::request(self, head);
    }

    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        room: usize,
        head: &mut ResponseHead,
        mut to: &mut dyn ResponseSink,
    ) -> Poll<Result<Progress, Failure>> {
        Back::poll_response(self, cx, scratch, room, head, &mut to)
    }

    fn splice_left(&self) -> u64 {
        Back::splice_left(self)
    }

    fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<Result<Progress, Failure>> {
        Back::poll_splice(self, cx, pipe)
    }

    fn take_traffic(&mut self) -> Traffic {
        Back::take_traffic(self)
    }
}
