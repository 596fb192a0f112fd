//! The client's side of one HTTP/3 exchange: a stream.

use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::failure::ResetReason;
use lb_core::head::{Fields, ResponseHead, TunnelBy};
use lb_core::reason::Reason;
use lb_http::h3::{self, ExtensiblePriority, H3Code, H3Scope};
use lb_http::message::{Front, FrontCapabilities, FrontError, Gone, Progress, Sink, Traffic};
use lb_io::Scratch;

use super::priority;
use super::read::{BodyFault, Part, Took};
use super::server::Server;
use super::stream::Stream;
use crate::endpoint::Shared;

/// A stream that a client has opened. Dropping it ends the stream.
pub(super) struct H3Front {
    connection: Shared<Server>,
    id: u64,
    to_head: bool,
    /// Bytes that the request body may still have.
    /// What the client is told when the stream ends before it is complete.
    farewell: H3Code,
}

impl H3Front {
    /// The stream `id`.
    pub(super) fn new(connection: Shared<Server>, id: u64, to_head: bool) -> Self {
        Self { connection, id, to_head, farewell: H3Code::REQUEST_CANCELLED }
    }

    /// The exchange was completed: what the client still sends is not wanted, and no fault (RFC 9114 §4.1).
    pub(super) fn complete(mut self) {
        self.farewell = H3Code::NO_ERROR;
    }

    /// Has the stream say something at the end of this turn.
    fn say(&mut self, what: impl FnOnce(&mut Stream)) {
        let mut connection = self.connection.borrow_mut();
        let Some(stream) = connection.app.stream(self.id) else { return };
        if stream.gone.is_none() {
            what(stream);
        }
    }
}

impl Drop for H3Front {
    fn drop(&mut self) {
        Server::leave(&mut self.connection.borrow_mut(), self.id, self.farewell);
    }
}

impl Sink for H3Front {
    fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
        if !self.to_head {
            self.say(|stream| stream.say_data(bytes));
        }
    }

    fn trailers(&mut self, fields: &Fields) {
        self.say(|stream| h3::encode_trailers(fields, &mut stream.pending));
    }

    fn end(&mut self) {
        self.say(|stream| stream.ends = true);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let connection = &mut *self.connection.borrow_mut();
        let Some(stream) = connection.app.stream(self.id) else { return Poll::Ready(Err(Gone::Closed)) };
        if stream.gone.is_none() && stream.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        let before = stream.traffic.sent;
        let given = stream.poll_given(cx, &mut connection.quic, self.id);
        if !stream.is_ordered && !stream.has_ended {
            // Its other bytes come before those of later responses (RFC 9218 §4.2); a response that was given at once is spared it.
            stream.is_ordered = true;
            priority::apply(&mut connection.quic, self.id, ExtensiblePriority::default());
        }
        let sent = stream.traffic.sent.saturating_sub(before);
        if sent > 0 || stream.has_ended {
            connection.app.paid(sent);
            connection.said();
        }
        given
    }
}

impl Front for H3Front {
    fn capabilities(&self) -> FrontCapabilities {
        FrontCapabilities { interim: true, trailers: true, tunnel: TunnelBy::ExtendedConnect, streams: true }
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        to: &mut impl Sink,
    ) -> Poll<Result<Progress, FrontError>> {
        let connection = &mut *self.connection.borrow_mut();
        let shared = Rc::clone(&connection.app.shared);
        let (app, quic, holding) = (&mut connection.app, &mut connection.quic, &mut connection.holding);
        let Some(stream) = app.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(FrontError::Gone(Gone::Closed)));
        };
        if let Some(gone) = stream.gone {
            return Poll::Ready(Err(FrontError::Gone(gone)));
        }
        let (ledger, now) = (&mut app.ledger, std::time::Instant::now());
        let mut verdict = lb_core::ledger::Verdict::Fine;
        let before = stream.traffic.received;
        let took = stream.take_body(quic, self.id, scratch, &mut shared.qpack.borrow_mut(), &mut |part| {
            let charged = match part {
                Part::Data(bytes) => {
                    to.data(cx, bytes);
                    return true;
                }
                // The end of the stream stands by itself, so that an empty frame never ends anything.
                Part::Frame(length) => ledger.data_received(length, false, now),
                Part::Unknown => ledger.charge(lb_core::ledger::Charge::Unknown, now),
            };
            if charged != lb_core::ledger::Verdict::Fine {
                verdict = charged;
                return false;
            }
            true
        });
        let passed = stream.traffic.received.saturating_sub(before);
        holding.passes(usize::try_from(passed).unwrap_or(usize::MAX));
        // quiche may have a window to open.
        let outcome = match took {
            Ok(Took::Nothing) => {
                stream.wait(cx);
                return Poll::Pending;
            }
            Ok(Took::Some) => Ok(Progress::Moved),
            Ok(Took::End) => {
                let trailers = stream.trailers.take();
                if let Some(trailers) = trailers {
                    to.trailers(&trailers);
                }
                to.end();
                Ok(Progress::End)
            }
            Ok(Took::Reset(code)) => {
                let gone = Gone::Reset(H3Code(code).reset());
                stream.is_read = true;
                stream.is_gone(gone);
                Err(FrontError::Gone(gone))
            }
            Ok(Took::Gone) => Err(FrontError::Gone(Gone::Closed)),
            Err(BodyFault::Refused) => {
                Server::exceeded(connection, verdict);
                return Poll::Ready(Err(FrontError::Gone(Gone::GivenUp(Reason::ProtocolError))));
            }
            Err(BodyFault::Broken(error)) => {
                if error.scope == H3Scope::Connection {
                    Server::fault(connection, error);
                    return Poll::Ready(Err(FrontError::Gone(Gone::GivenUp(Reason::ProtocolError))));
                }
                self.farewell = error.code;
                Err(FrontError::Gone(Gone::GivenUp(Reason::ProtocolError)))
            }
        };
        connection.due();
        Poll::Ready(outcome)
    }

    fn interim(&mut self, head: &ResponseHead) {
        self.say(|stream| h3::encode_response(head, &mut stream.pending));
    }

    fn head(&mut self, head: &ResponseHead) {
        let end = head.status != 101 && h3::is_whole(head.body, self.to_head);
        self.say(|stream| {
            h3::encode_response(head, &mut stream.pending);
            stream.is_answered = true;
            stream.ends |= end;
        });
        self.connection.borrow_mut().app.ledger.request();
    }

    fn switch(&mut self) {
        self.say(|stream| stream.reader.expect_tunnel());
    }

    fn room(&self) -> usize {
        let connection = &mut *self.connection.borrow_mut();
        Stream::room(&mut connection.quic, self.id, connection.holding.is_scarce())
    }

    fn poll_hangup(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let connection = &mut *self.connection.borrow_mut();
        let Some(stream) = connection.app.stream(self.id) else { return Poll::Ready(Gone::Closed) };
        if let Some(gone) = stream.gone {
            return Poll::Ready(gone);
        }
        stream.wait(cx);
        Poll::Pending
    }

    fn last_request(&mut self) {}

    fn take_traffic(&mut self) -> Traffic {
        let mut connection = self.connection.borrow_mut();
        connection.app.stream(self.id).map(|stream| std::mem::take(&mut stream.traffic)).unwrap_or_default()
    }

    fn abort(&mut self, why: ResetReason) {
        self.farewell = H3Code::of(why);
    }
}
