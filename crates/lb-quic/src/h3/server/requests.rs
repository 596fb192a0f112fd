//! Request streams: heads are read, and exchanges begin.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Instant;

use lb_core::failure::Reject;
use lb_core::head::{BodyLength, RequestHead};
use lb_core::ledger::{Charge, Verdict};
use lb_core::reason::Reason;
use lb_http::h3::{
    ExtensiblePriority, H3Code, H3Error, H3Scope, MessagePiece, MessageReader, RequestError, RequestLimits,
    decode_request,
};
use lb_http::message::{Gone, Sink};
use lb_http::proxy::{Arrival, Client, End};
use lb_http::service::Settings;
use lb_observe::metrics::EarlyRequest;

use super::Server;
use crate::connection::Connection;
use crate::endpoint::Shared;
use crate::h3::front::H3Front;
use crate::h3::priority;
use crate::h3::stream::Stream;

/// Bytes that are read at once while a head is awaited: what comes behind it is kept.
const PIECE: usize = 4096;

/// What reading a head has come to.
enum Head {
    /// More has to come.
    Incomplete,
    Complete(RequestHead),
    Refused(RequestHead, Reject),
    /// The stream is over.
    Gone,
    Broken(H3Error),
    Exceeded(Verdict),
}

/// A request whose head is complete, on its stream, and why it is refused if it is.
pub(super) type Begun = (u64, RequestHead, Option<Reject>);

/// Something has come on a request stream.
pub(super) fn readable(
    shared: &Shared<Server>,
    connection: &mut Connection<Server>,
    id: u64,
    settings: &Rc<Settings>,
    now: Instant,
) {
    let app = &mut connection.app;
    app.next_stream = app.next_stream.max(id.saturating_add(4));
    if let Some(stream) = app.streams.get_mut(&id)
        && stream.has_begun
    {
        look(connection, id, now);
        return;
    }
    if id >= app.refused_from {
        return end(connection, id, H3Code::REQUEST_REJECTED);
    }
    let most = usize::try_from(settings.h2.max_concurrent_streams).unwrap_or(usize::MAX);
    if !app.streams.contains_key(&id) {
        // Streams that the client has reset are over for QUIC, while their exchanges may still run (attack H2-02).
        if app.streams.len() >= most.saturating_mul(2) {
            return end(connection, id, H3Code::REQUEST_REJECTED);
        }
        let section = settings.h2.max_header_list_size;
        app.streams.insert(id, Stream::new(MessageReader::requests(section), now));
    }
    match read_head(connection, id, settings, now) {
        Head::Incomplete => {
            // Heads that began earlier are awaited less long.
            connection.app.heads_until.get_or_insert(now + settings.http.header_timeout);
        }
        Head::Complete(head) => begin(shared, connection, (id, head, None), settings, now),
        Head::Refused(head, reject) => begin(shared, connection, (id, head, Some(reject)), settings, now),
        Head::Gone => {
            connection.app.streams.remove(&id);
        }
        Head::Broken(error) if error.scope == H3Scope::Connection => Server::fault(connection, error),
        Head::Broken(error) => {
            tracing::debug!(code = error.code.name(), "HTTP/3 request refused: {}", error.what);
            let verdict = connection.app.ledger.charge(Charge::LocalReset, now);
            end(connection, id, error.code);
            Server::exceeded(connection, verdict);
        }
        Head::Exceeded(verdict) => Server::exceeded(connection, verdict),
    }
}

/// Gives up on heads that have not come to their end in time.
pub(super) fn expire(
    shared: &Shared<Server>,
    connection: &mut Connection<Server>,
    settings: &Rc<Settings>,
    now: Instant,
) {
    if connection.app.heads_until.is_none_or(|until| now < until) {
        return;
    }
    let wait = settings.http.header_timeout;
    let awaited: Vec<_> = connection.app.streams.iter().filter(|(_, stream)| !stream.has_begun).collect();
    let late: Vec<u64> =
        awaited.iter().filter(|(_, stream)| now >= stream.since + wait).map(|(id, _)| **id).collect();
    let next = awaited.iter().map(|(_, stream)| stream.since + wait).filter(|until| *until > now).min();
    connection.app.heads_until = next;
    for id in late {
        let mut head = connection.app.shared.service.worker.take_head();
        head.clear();
        let reject = Reject::new(408, Reason::HeaderTimeout);
        begin(shared, connection, (id, head, Some(reject)), settings, now);
    }
}

/// Charges a request that its client has given up: one that was not answered counts against the client (attack H2-01).
pub(super) fn given_up(app: &mut Server, id: u64, code: u64, now: Instant) -> Verdict {
    let Some(stream) = app.streams.get_mut(&id).filter(|stream| stream.gone.is_none()) else {
        return Verdict::Fine;
    };
    let (is_answered, open) = (stream.is_answered, now.saturating_duration_since(stream.since));
    stream.is_gone(Gone::Reset(H3Code(code).reset()));
    if is_answered { Verdict::Fine } else { app.ledger.reset(open, now) }
}

/// Looks for exchanges whose client wants no more of the response. quiche tells of it only where bytes are given to a stream, or wait
/// for room.
pub(super) fn stopped(connection: &mut Connection<Server>, now: Instant) {
    let Connection { app, quic, .. } = &mut *connection;
    let count = quic.stats().stopped_stream_count_remote;
    if count == app.stopped {
        return;
    }
    app.stopped = count;
    let stopped: Vec<(u64, u64)> = app
        .streams
        .iter()
        .filter(|(_, stream)| stream.gone.is_none() && !stream.has_ended)
        .filter_map(|(id, _)| match quic.stream_capacity(*id) {
            Ok(_) => None,
            Err(quiche::Error::StreamStopped(code)) => Some((*id, code)),
            // Everything that was sent before has been acknowledged: quiche has forgotten the stream and the code.
            Err(_) => Some((*id, H3Code::REQUEST_CANCELLED.0)),
        })
        .collect();
    for (id, code) in stopped {
        let verdict = given_up(&mut connection.app, id, code, now);
        if connection.app.streams.get(&id).is_some_and(|stream| !stream.has_begun) {
            // quiche forgets the stream, and never has it readable again.
            end(connection, id, H3Code::REQUEST_CANCELLED);
        }
        if verdict != Verdict::Fine {
            return Server::exceeded(connection, verdict);
        }
    }
}

/// Something has come for an exchange that runs.
fn look(connection: &mut Connection<Server>, id: u64, now: Instant) {
    let Connection { app, quic, .. } = connection;
    let Some(stream) = app.streams.get_mut(&id) else { return };
    if stream.is_read {
        return;
    }
    // A reset throws away what has come and shows only where bytes are asked for. What is left to be read is left to the exchange.
    if !quic.stream_finished(id) {
        return stream.wake();
    }
    match quic.stream_recv(id, &mut [0]) {
        Err(quiche::Error::StreamReset(code)) => {
            stream.is_read = true;
            let verdict = given_up(app, id, code, now);
            Server::exceeded(connection, verdict);
        }
        end => {
            stream.is_read = matches!(end, Ok((_, true)));
            stream.wake();
        }
    }
}

/// Ends a stream of which nothing was read, or not enough.
fn end(connection: &mut Connection<Server>, id: u64, code: H3Code) {
    let Connection { app, quic, .. } = connection;
    app.streams.remove(&id);
    let _ = quic.stream_shutdown(id, quiche::Shutdown::Read, code.0);
    let _ = quic.stream_shutdown(id, quiche::Shutdown::Write, code.0);
    connection.said();
}

fn read_head(connection: &mut Connection<Server>, id: u64, settings: &Settings, now: Instant) -> Head {
    let Connection { app, quic, holding, .. } = connection;
    let Some(stream) = app.streams.get_mut(&id) else { return Head::Gone };
    let worker = Rc::clone(&app.shared.service.worker);
    let mut scratch = worker.io.scratch.borrow_mut();
    loop {
        let room = scratch.room(PIECE);
        let (length, fin) = match quic.stream_recv(id, room) {
            Ok(taken) => taken,
            Err(quiche::Error::Done) => return Head::Incomplete,
            Err(quiche::Error::StreamReset(_)) => {
                return match app.ledger.reset(now.saturating_duration_since(stream.since), now) {
                    Verdict::Fine => Head::Gone,
                    verdict => Head::Exceeded(verdict),
                };
            }
            Err(_) => return Head::Gone,
        };
        stream.received(length);
        holding.passes(length);
        stream.is_read = fin;
        let mut input = room.get(..length).unwrap_or_default();
        loop {
            let (section, rest) = match stream.reader.next(&mut input) {
                Ok(Some(MessagePiece::Head(section))) => (section, input),
                Ok(Some(MessagePiece::Oversized { .. })) => {
                    let mut head = worker.take_head();
                    head.clear();
                    return match app.ledger.charge(Charge::HeaderOverflow, now) {
                        Verdict::Fine => Head::Refused(head, Reject::new(431, Reason::HeaderTooLarge)),
                        verdict => Head::Exceeded(verdict),
                    };
                }
                Ok(Some(MessagePiece::Unknown { .. })) => match app.ledger.charge(Charge::Unknown, now) {
                    Verdict::Fine => continue,
                    verdict => return Head::Exceeded(verdict),
                },
                Ok(Some(MessagePiece::Data { .. } | MessagePiece::Trailers(_))) => continue,
                Ok(None) => break,
                Err(error) => return Head::Broken(error),
            };
            let limits = RequestLimits {
                head: &settings.limits,
                list: usize::try_from(settings.h2.max_header_list_size).unwrap_or(usize::MAX),
                extended_connect: settings.h3_extended_connect,
            };
            let mut head = worker.take_head();
            let decoded = decode_request(
                &mut app.shared.qpack.borrow_mut(),
                section,
                fin && rest.is_empty(),
                &mut head,
                limits,
            );
            stream.early = rest.to_vec();
            return match decoded {
                Ok(content) => {
                    if head.upgrade.is_empty() {
                        stream.reader.expect_content(content);
                    } else {
                        stream.reader.expect_tunnel();
                    }
                    Head::Complete(head)
                }
                Err(RequestError::Broken(error)) => Head::Broken(error),
                Err(RequestError::Answer(reject)) => match reject.status {
                    431 => match app.ledger.charge(Charge::HeaderOverflow, now) {
                        Verdict::Fine => Head::Refused(head, reject),
                        verdict => Head::Exceeded(verdict),
                    },
                    _ => Head::Refused(head, reject),
                },
            };
        }
        if fin {
            let incomplete = H3Error::stream(H3Code::REQUEST_INCOMPLETE, "a stream without a request");
            return Head::Broken(stream.reader.finish().err().unwrap_or(incomplete));
        }
    }
}

/// Begins the exchanges of requests that have waited for the end of the handshake.
pub(super) fn release(
    shared: &Shared<Server>,
    connection: &mut Connection<Server>,
    settings: &Rc<Settings>,
    now: Instant,
) {
    for begun in std::mem::take(&mut connection.app.held) {
        begin(shared, connection, begun, settings, now);
    }
}

/// Whether a request that anybody may send again is none the worse for it (RFC 8470 §3).
fn may_be_early(head: &RequestHead) -> bool {
    let is_safe = matches!(head.method(), b"GET" | b"HEAD" | b"OPTIONS");
    is_safe && head.upgrade.is_empty() && matches!(head.body, BodyLength::None | BodyLength::Known(0))
}

/// Whether a response consists of messages that are of use by themselves: those share the connection with others, as quiche has it where nothing is
/// said, since the first of them may have no end.
fn has_messages(head: &RequestHead) -> bool {
    !head.upgrade.is_empty() || (head.body != BodyLength::None && lb_http::grpc::is_call(head))
}

/// Begins the exchange of a request, or refuses it.
fn begin(
    shared: &Shared<Server>,
    connection: &mut Connection<Server>,
    (id, mut head, reject): Begun,
    settings: &Rc<Settings>,
    now: Instant,
) {
    let Connection { app, quic, .. } = connection;
    let Some(client) = app.client.clone() else { return };
    if let Some(stream) = app.streams.get_mut(&id) {
        stream.has_begun = true;
        if !stream.is_ordered {
            // A frame says it later than the field, even where it comes first (RFC 9218 §7).
            let field = || head.fields.value_of(b"priority").map(ExtensiblePriority::parse);
            let said = app.priorities.take(id).or_else(field);
            if let Some(priority) = said {
                priority::apply(quic, id, priority);
            }
            stream.is_ordered = said.is_some() || has_messages(&head);
        }
    }
    if matches!(app.state, super::State::Handshake(_)) && reject.is_none() {
        // Until the handshake is over the client may be somebody who repeats what another one has sent (attack Q-11).
        if !may_be_early(&head) || quic.peer_cert().is_some() {
            app.metrics().early_requests.of(EarlyRequest::Held).inc();
            return app.held.push((id, head, reject));
        }
        app.metrics().early_requests.of(EarlyRequest::Forwarded).inc();
        head.fields.remove_named(b"early-data");
        head.fields.push(b"early-data", b"1");
    }
    app.active = app.active.saturating_add(1);
    app.requests = app.requests.saturating_add(1);
    let most = app.shared.max_requests.get();
    let is_enough = most != 0 && app.requests >= most;
    let front = H3Front::new(Rc::clone(shared), id, head.is_head());
    let request = Request {
        service: Rc::clone(&app.shared.service),
        settings: Rc::clone(settings),
        client,
        started: now.into(),
    };
    tokio::task::spawn_local(request.serve(head, front, reject));
    if is_enough {
        // Enough for one connection: the next requests are balanced anew.
        if app.requests == most {
            app.metrics().recycled.inc();
        }
        Server::notice(connection, now);
    }
}

/// A request that has come.
struct Request {
    service: Rc<lb_http::service::Service>,
    settings: Rc<Settings>,
    client: Rc<Client>,
    started: tokio::time::Instant,
}

impl Request {
    async fn serve(self, head: RequestHead, mut front: H3Front, reject: Option<Reject>) {
        let Self { service, settings, client, started } = self;
        let arrival = Arrival { service: &service, settings: &settings, client: &client, started };
        let Some(reject) = reject else {
            let running = arrival.begin(head, &front);
            if running.run(&mut front).await == End::Complete {
                front.complete();
            }
            return;
        };
        let cx = &mut Context::from_waker(Waker::noop());
        let flushed = arrival.refuse(cx, &head, &mut front, reject);
        service.worker.put_head(head);
        if flushed.is_pending() {
            let limit = settings.http.write_timeout;
            let told = tokio::time::timeout(limit, poll_fn(|cx| front.poll_flush(cx))).await;
            if !matches!(told, Ok(Ok(()))) {
                return;
            }
        }
        front.complete();
    }
}
