//! A request stream.

use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use lb_core::head::Fields;
use lb_http::h3::MessageReader;
use lb_http::message::{Gone, Traffic};

use crate::connection::Quic;

/// What is kept of a request stream while its exchange lives, or its head is being read.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) reader: MessageReader,
    /// Bytes that came with the head and are not looked at yet.
    pub(super) early: Vec<u8>,
    /// The peer has sent its last byte, and it was taken from quiche.
    pub(super) is_read: bool,
    /// Trailers that came before the end.
    pub(super) trailers: Option<Fields>,
    /// An exchange has begun; on a stream of ours, some of the request was given to quiche.
    pub(super) has_begun: bool,
    /// Frames that quiche has not been given.
    pub(super) pending: Vec<u8>,
    /// What quiche had no room for. It comes before `pending`.
    pub(super) rest: Option<Bytes>,
    /// Nothing follows `pending`.
    pub(super) ends: bool,
    /// quiche was told of the end.
    pub(super) has_ended: bool,
    /// The backend has said that it does not process the stream.
    pub(super) is_unprocessed: bool,
    /// A final response was given to be sent.
    pub(super) is_answered: bool,
    /// quiche knows its priority.
    pub(super) is_ordered: bool,
    pub(super) gone: Option<Gone>,
    /// The exchange waits for something here.
    waker: Option<Waker>,
    pub(super) traffic: Traffic,
    pub(super) since: Instant,
}

impl Stream {
    pub(super) fn new(reader: MessageReader, now: Instant) -> Self {
        Self {
            reader,
            early: Vec::new(),
            is_read: false,
            trailers: None,
            has_begun: false,
            pending: Vec::new(),
            rest: None,
            ends: false,
            has_ended: false,
            is_unprocessed: false,
            is_answered: false,
            is_ordered: false,
            gone: None,
            waker: None,
            traffic: Traffic::default(),
            since: now,
        }
    }

    /// Whether everything that was given to be sent has been taken by quiche.
    pub(super) fn is_flushed(&self) -> bool {
        self.rest.is_none() && self.pending.is_empty() && (!self.ends || self.has_ended)
    }

    /// Has the exchange woken when something happens here.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    /// Wakes the exchange.
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Wakes the exchange where the peer's part has ended without becoming readable.
    pub(super) fn find_end(&mut self, quic: &Quic, id: u64) {
        if self.has_begun && !self.is_read && self.waker.is_some() && quic.stream_finished(id) {
            self.wake();
        }
    }

    /// The stream is of no more use to the exchange.
    pub(super) fn is_gone(&mut self, gone: Gone) {
        self.gone.get_or_insert(gone);
        self.pending = Vec::new();
        self.rest = None;
        self.wake();
    }
}
