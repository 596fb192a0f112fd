//! The backend's side of an HTTP/3 exchange: a stream of a connection that many exchanges share.

use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::failure::{Failure, Kind, Reach};
use lb_core::head::{BodyLength, FieldName, Fields, RequestHead, ResponseHead, TunnelBy};
use lb_core::reason::Reason;
use lb_http::h3::{self, H3Code, H3Scope, MessagePiece, ResponseError};
use lb_http::message::{Back, BackCapabilities, Gone, Next, Progress, ResponseSink, Sink, Traffic};
use lb_io::Scratch;

use super::client::Client;
use super::stream::Stream;
use crate::connection::Connection;
use crate::endpoint::Shared;

/// A stream to a backend. Dropping it ends the stream; the backend hears of it when it was not complete.
pub(crate) struct H3Back {
    connection: Shared<Client>,
    id: u64,
    to_head: bool,
    /// The request asks for another protocol, by the extended CONNECT (RFC 9220).
    tunnel: bool,
    /// Such a request, until the backend's SETTINGS say whether it may be sent.
    deferred: Option<Box<RequestHead>>,
    /// The final head was passed on.
    has_head: bool,
    done: bool,
}

impl fmt::Debug for H3Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H3Back").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a backend has said.
enum Said {
    /// Bytes, which were passed on.
    Some,
    /// A head stands in the place for it.
    Head,
    End,
}

impl H3Back {
    pub(crate) fn new(connection: Shared<Client>, id: u64) -> Self {
        Self { connection, id, to_head: false, tunnel: false, deferred: None, has_head: false, done: false }
    }

    fn say(&mut self, what: impl FnOnce(&mut Stream)) {
        let mut connection = self.connection.borrow_mut();
        if let Some(stream) = connection.app.streams.get_mut(&self.id)
            && stream.gone.is_none()
        {
            what(stream);
        }
    }

    /// Sends a request that has waited for the backend's SETTINGS.
    fn send_deferred(&mut self) -> Result<(), Failure> {
        let known = self.connection.borrow().app.settings;
        if let Some(settings) = known
            && let Some(head) = self.deferred.take()
        {
            if !settings.enable_connect_protocol {
                return Err(Failure::malformed(Reason::NoExtendedConnect));
            }
            self.say(|stream| {
                stream.reader.expect_head();
                h3::encode_request(&head, b"https", &mut stream.pending);
            });
        }
        Ok(())
    }

    /// Why nothing more comes.
    fn failure_of(&self, stream: &Stream, gone: Gone) -> Failure {
        let reach = Reach::of_sent(stream.has_begun);
        match gone {
            _ if stream.is_unprocessed => Kind::GoneAway.at(Reach::Sent),
            Gone::Reset(reset) => Kind::StreamReset(reset).at(Reach::Sent),
            _ if self.has_head => Kind::Truncated.at(Reach::Sent),
            _ => Kind::Closed.at(reach),
        }
    }

    /// Takes what has come once, and hands the body to `to`.
    fn take(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        room: usize,
        head: &mut ResponseHead,
        to: &mut impl ResponseSink,
    ) -> Poll<Result<Said, Failure>> {
        let connection = &mut *self.connection.borrow_mut();
        let Connection { app, quic, holding, .. } = &mut *connection;
        let max_list = usize::try_from(app.limits.max_list).unwrap_or(usize::MAX);
        let qpack = Rc::clone(&app.qpack);
        let Some(stream) = app.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(Kind::Closed.at(Reach::Sent)));
        };
        let early = std::mem::take(&mut stream.early);
        let mut input: &[u8] = &early;
        if early.is_empty() && !stream.is_read {
            let place = scratch.room(room.max(1));
            match quic.stream_recv(self.id, place) {
                Ok((length, fin)) => {
                    stream.received(length);
                    holding.passes(length);
                    stream.is_read = fin;
                    input = place.get(..length).unwrap_or_default();
                }
                Err(quiche::Error::StreamReset(code)) => {
                    stream.is_read = true;
                    let failure = match H3Code(code) {
                        H3Code::REQUEST_REJECTED => Kind::Refused,
                        code => Kind::StreamReset(code.reset()),
                    };
                    return Poll::Ready(Err(failure.at(Reach::Sent)));
                }
                // quiche shows nobody an end that comes with bytes which were read before, as when their acknowledgement was lost.
                Err(quiche::Error::Done) if quic.stream_finished(self.id) => stream.is_read = true,
                // A stream of which nothing was sent is not there yet.
                Err(error) => {
                    // A backend that wants no more of the request still has its response under way (RFC 9114 §4.1).
                    let goes_on = error == quiche::Error::Done;
                    let gone = stream.gone.filter(|gone| !(goes_on && matches!(gone, Gone::Reset(_))));
                    if let Some(gone) = gone {
                        let gone = self.failure_of(stream, gone);
                        return Poll::Ready(Err(gone));
                    }
                    stream.wait(cx);
                    return Poll::Pending;
                }
            }
        }
        let broken = |error: h3::H3Error| (error.scope == H3Scope::Connection).then_some(error);
        let mut fatal = None;
        let mut outcome = Ok(Said::Some);
        loop {
            match stream.reader.next(&mut input) {
                Ok(Some(MessagePiece::Head(section))) => {
                    head.clear();
                    let end = stream.is_read && input.is_empty();
                    let qpack = &mut qpack.borrow_mut();
                    match h3::decode_response(qpack, section, end, self.to_head, head, max_list) {
                        Ok(_) if head.is_interim() => stream.reader.expect_head(),
                        Ok(content) => stream.reader.expect_content(content),
                        Err(ResponseError::Broken(error)) => {
                            fatal = Some(error);
                            outcome = Err(Failure::malformed(Reason::Framing));
                            break;
                        }
                        Err(ResponseError::Malformed(reason)) => {
                            outcome = Err(Failure::malformed(reason));
                            break;
                        }
                    }
                    stream.early = input.to_vec();
                    outcome = Ok(Said::Head);
                    break;
                }
                Ok(Some(MessagePiece::Data { bytes, .. })) => {
                    if !bytes.is_empty() {
                        to.data(cx, bytes);
                    }
                }
                Ok(Some(MessagePiece::Trailers(section))) => {
                    match h3::decode_trailers(&mut qpack.borrow_mut(), section) {
                        Ok(fields) => stream.trailers = Some(fields),
                        Err(error) => {
                            fatal = broken(error);
                            outcome = Err(Failure::malformed(Reason::Framing));
                            break;
                        }
                    }
                }
                Ok(Some(MessagePiece::Oversized { trailers: false })) => {
                    outcome = Err(Failure::malformed(Reason::HeaderTooLarge));
                    break;
                }
                Ok(Some(MessagePiece::Oversized { trailers: true } | MessagePiece::Unknown { .. })) => {}
                Ok(None) => {
                    if stream.is_read {
                        outcome = match stream.reader.finish() {
                            Ok(()) => Ok(Said::End),
                            Err(error) => {
                                fatal = broken(error);
                                Err(match self.has_head {
                                    true => Failure::malformed(Reason::Framing),
                                    false => Kind::Closed.at(Reach::Sent),
                                })
                            }
                        };
                    }
                    break;
                }
                Err(error) => {
                    fatal = broken(error);
                    outcome = Err(Failure::malformed(Reason::Framing));
                    break;
                }
            }
        }
        if let Some(error) = fatal {
            Client::fault(connection, error);
        } else {
            // quiche may have a window to open.
            connection.due();
        }
        Poll::Ready(outcome)
    }
}

impl Drop for H3Back {
    fn drop(&mut self) {
        let code = if self.done { H3Code::NO_ERROR } else { H3Code::REQUEST_CANCELLED };
        Client::leave(&mut self.connection.borrow_mut(), self.id, code);
    }
}

impl Sink for H3Back {
    fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
        self.say(|stream| stream.say_data(bytes));
    }

    fn trailers(&mut self, fields: &Fields) {
        self.say(|stream| h3::encode_trailers(fields, &mut stream.pending));
    }

    fn end(&mut self) {
        self.say(|stream| stream.ends = true);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let connection = &mut *self.connection.borrow_mut();
        let Connection { app, quic, .. } = &mut *connection;
        let Some(stream) = app.streams.get_mut(&self.id) else { return Poll::Ready(Err(Gone::Closed)) };
        if stream.gone.is_none() && stream.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        if !stream.has_begun && !stream.pending.is_empty() {
            stream.has_begun = true;
            app.unheard = app.unheard.saturating_sub(1);
        }
        let given = stream.poll_given(cx, quic, self.id);
        connection.said();
        given
    }
}

impl Back for H3Back {
    fn capabilities(&self) -> BackCapabilities {
        BackCapabilities { tunnel: TunnelBy::ExtendedConnect, shared: true, refuses: true }
    }

    fn request(&mut self, head: &RequestHead) {
        self.to_head = head.is_head();
        self.tunnel = !head.upgrade.is_empty();
        if self.tunnel {
            self.deferred = Some(Box::new(head.clone()));
            return;
        }
        let ends = matches!(head.body, BodyLength::None | BodyLength::Known(0));
        self.say(|stream| {
            h3::encode_request(head, b"https", &mut stream.pending);
            stream.ends |= ends;
        });
    }

    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        room: usize,
        head: &mut ResponseHead,
        to: &mut impl ResponseSink,
    ) -> Poll<Result<Progress, Failure>> {
        if self.done {
            return Poll::Ready(Ok(Progress::End));
        }
        if self.tunnel && !self.has_head {
            self.send_deferred()?;
            // Nothing follows that would flush it: what a stream has no room for is given when there is some, which wakes this.
            let _ = self.poll_flush(cx);
        }
        let mut moved = false;
        loop {
            let said = match self.take(cx, scratch, room, head, to) {
                Poll::Ready(said) => said?,
                Poll::Pending if moved => return Poll::Ready(Ok(Progress::Moved)),
                Poll::Pending => return Poll::Pending,
            };
            moved = true;
            match said {
                Said::Head => {
                    if self.tunnel && (200..300).contains(&head.status) {
                        // In the words of HTTP/1.1, which the exchange speaks.
                        head.status = 101;
                        head.body = BodyLength::None;
                        head.fields.push(b"Upgrade", b"websocket");
                        // A tunnel has no length (RFC 9110 §9.3.6).
                        head.fields.remove(FieldName::ContentLength);
                        self.say(|stream| stream.reader.expect_tunnel());
                    }
                    if to.head(cx, head).map_err(Failure::malformed)? != Next::Head {
                        self.has_head = true;
                    }
                }
                Said::Some => return Poll::Ready(Ok(Progress::Moved)),
                Said::End => {
                    let mut connection = self.connection.borrow_mut();
                    let stream = connection.app.streams.get_mut(&self.id);
                    let trailers = stream.and_then(|stream| stream.trailers.take());
                    drop(connection);
                    if let Some(trailers) = trailers {
                        to.trailers(&trailers);
                    }
                    to.end();
                    self.done = true;
                    return Poll::Ready(Ok(Progress::End));
                }
            }
        }
    }

    fn take_traffic(&mut self) -> Traffic {
        let mut connection = self.connection.borrow_mut();
        let stream = connection.app.streams.get_mut(&self.id);
        stream.map(|stream| std::mem::take(&mut stream.traffic)).unwrap_or_default()
    }
}
