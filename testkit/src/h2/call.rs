//! One request at a scripted HTTP/2 backend, in the hands of its script.

use super::backend::H2Request;
use super::frame::{self, code};
use super::hpack;
use super::link::{Link, Shared};
use crate::wire::Fault;
use crate::{ms, seconds};
use std::net::Shutdown;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

const PIECE: usize = 16_384;

/// A request and the stream to answer it on.
pub struct Call {
    link: Arc<Link>,
    /// The stream.
    pub stream: u32,
    limit: Duration,
}

impl Call {
    pub(super) fn new(link: Arc<Link>, stream: u32) -> Call {
        Call { link, stream, limit: seconds(30) }
    }

    /// Which connection of this backend it came on, from 1.
    pub fn connection(&self) -> usize {
        self.link.number
    }

    /// Sets how long reading and sending may wait.
    pub fn set_timeout(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// The request as far as it has come.
    pub fn request(&self) -> H2Request {
        self.link.shared.lock().unwrap().streams[&self.stream].request.clone()
    }

    /// The path of the request.
    pub fn path(&self) -> String {
        self.request().path()
    }

    /// Waits until `probe` gives a value, or the stream is lost.
    fn wait<T>(&self, mut probe: impl FnMut(&mut Shared) -> Option<T>) -> Result<T, Fault> {
        let start = Instant::now();
        let mut shared: MutexGuard<'_, Shared> = self.link.shared.lock().unwrap();
        loop {
            if let Some(value) = probe(&mut shared) {
                return Ok(value);
            }
            if shared.streams[&self.stream].request.reset.is_some() {
                return Err(Fault::Reset);
            }
            if shared.gone {
                return Err(Fault::Closed);
            }
            let left = self.limit.checked_sub(start.elapsed()).ok_or(Fault::TimedOut)?;
            shared = self.link.changed.wait_timeout(shared, left.min(ms(500))).unwrap().0;
        }
    }

    /// The next piece of the body, whose window is given back; `None` at the end.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let stream = self.stream;
        let piece = self.wait(|shared| {
            let own = shared.streams.get_mut(&stream)?;
            match own.queue.pop_front() {
                Some(piece) => Some(Some(piece)),
                None if own.request.complete => Some(None),
                None => None,
            }
        })?;
        let Some((bytes, flow)) = piece else { return Ok(None) };
        if flow > 0 && !self.link.manners.withholds {
            self.credit(stream, flow as u32)?;
        }
        Ok(Some(bytes))
    }

    /// Reads the body to its end.
    pub fn body(&mut self) -> Result<H2Request, Fault> {
        while self.piece()?.is_some() {}
        Ok(self.request())
    }

    /// Opens a window further; stream 0 is the connection.
    pub fn credit(&self, stream: u32, increment: u32) -> Result<(), Fault> {
        self.link.shared.lock().unwrap().receive_windows.credit(stream, increment);
        self.raw(frame::window_update(stream, increment))
    }

    /// Sends bytes as they are, frames or not.
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
        self.link.send(bytes)
    }

    /// Sends a head, interim or final.
    pub fn head(&mut self, status: u16, headers: &[(&str, &str)], end: bool) -> Result<(), Fault> {
        let status = status.to_string();
        let fields = [&[(":status", status.as_str())], headers].concat();
        self.section(&fields, end)
    }

    /// Sends trailers.
    pub fn trailers(&mut self, fields: &[(&str, &str)]) -> Result<(), Fault> {
        self.section(fields, true)
    }

    fn section(&mut self, fields: &[(&str, &str)], end: bool) -> Result<(), Fault> {
        self.raw(frame::headers_in_pieces(self.stream, &hpack::block(fields), end, PIECE))?;
        if end {
            self.answered();
        }
        Ok(())
    }

    fn answered(&mut self) {
        let mut shared = self.link.shared.lock().unwrap();
        if let Some(own) = shared.streams.get_mut(&self.stream) {
            own.answered = true;
        }
        self.link.settle(&mut shared, self.stream);
    }

    /// Sends content as the windows allow.
    pub fn data(&mut self, bytes: &[u8], end: bool) -> Result<(), Fault> {
        let stream = self.stream;
        let mut rest = bytes;
        while !rest.is_empty() {
            let wanted = rest.len().min(PIECE);
            let room = self.wait(|shared| {
                let room = shared.send_windows.room(stream).min(wanted);
                (room > 0).then(|| {
                    shared.send_windows.take(stream, room).ok();
                    room
                })
            })?;
            let (piece, after) = rest.split_at(room);
            rest = after;
            self.raw(frame::data(stream, piece, end && rest.is_empty()))?;
        }
        if end {
            if bytes.is_empty() {
                self.raw(frame::data(stream, [], true))?;
            }
            self.answered();
        }
        Ok(())
    }

    /// Sends a whole response with its `content-length`.
    pub fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Result<(), Fault> {
        let length = body.len().to_string();
        let fields = [headers, &[("content-length", length.as_str())]].concat();
        self.head(status, &fields, body.is_empty())?;
        if body.is_empty() { Ok(()) } else { self.data(body, true) }
    }

    /// Resets the stream.
    pub fn reset(&mut self, code: u32) -> Result<(), Fault> {
        self.raw(frame::rst_stream(self.stream, code))?;
        self.answered();
        Ok(())
    }

    /// Sends GOAWAY: no stream beyond `last` was or will be processed.
    pub fn goaway(&self, last: u32, code: u32) -> Result<(), Fault> {
        self.raw(frame::goaway(last, code))
    }

    /// Ends the connection.
    pub fn cut(&self) {
        self.link.writer.lock().unwrap().shutdown(Shutdown::Both).ok();
    }

    /// Waits.
    pub fn pause(&self, span: Duration) {
        std::thread::sleep(span);
    }

    /// Waits until the peer gives up on the request, at most for `limit`; whether it did.
    pub fn abandoned(&mut self, limit: Duration) -> bool {
        let usual = std::mem::replace(&mut self.limit, limit);
        let outcome = self.wait(|_| None::<()>);
        self.limit = usual;
        matches!(outcome, Err(Fault::Reset | Fault::Closed))
    }

    /// A script that gives up on something other than its peer's end resets its stream, so that the peer does not wait for it.
    pub(super) fn conclude(&mut self, outcome: Result<(), Fault>) {
        if let Err(Fault::TimedOut | Fault::Malformed(_)) = outcome {
            self.reset(code::INTERNAL_ERROR).ok();
        }
        let mut shared = self.link.shared.lock().unwrap();
        let complete = shared.streams.get(&self.stream).is_some_and(|s| s.request.complete);
        if let Some(own) = shared.streams.get_mut(&self.stream) {
            own.answered |= complete;
            own.queue.clear();
        }
    }
}
