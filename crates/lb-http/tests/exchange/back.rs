//! Backends of a protocol of their own: connections that several requests share, made, refused and lost as a script says.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_core::failure::{Failure, Kind, Reach};
use lb_core::head::{BodyLength, Fields, RequestHead, ResponseHead, TunnelBy};
use lb_core::reason::Reason;
use lb_http::message::{Back, BackCapabilities, Gone, Next, Progress, ResponseSink, Sink, Traffic};
use lb_http::upstream::{Ask, Caller, Dialled, Dialling, Dials, EndpointKey, Link, Upstream, Way};
use lb_io::Scratch;
use lb_pool::Connection;
use tokio::time::{Instant, Sleep, sleep};

/// What a backend does next with a request.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    After(Duration),
    /// Until the whole request has come.
    Request,
    Interim(u16),
    Head(u16, BodyLength),
    Data(Vec<u8>),
    Trailer(&'static str, &'static str),
    End,
    Fail(Kind),
    /// Says that the connection ends: requests that come later find another one.
    GoAway,
    Never,
}

/// What becomes of a connect.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Connect {
    Done(Duration),
    Refused(Duration),
    Hangs,
}

/// What a backend has seen of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) port: u16,
    pub(crate) method: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) ended: bool,
    /// It was told nothing more: the exchange has let go of it.
    pub(crate) over: bool,
    /// Its place among all requests, from 1.
    pub(crate) number: usize,
    /// Bytes of the response that it has given.
    pub(crate) given: usize,
    /// How long its response was announced to be.
    pub(crate) announced: Option<usize>,
    /// It was brought to its end by the script.
    pub(crate) answered: bool,
    /// It said itself that it has not processed the request.
    pub(crate) refused: bool,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut named = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.as_str())
    }
}

type Answers = dyn Fn(&Seen, usize) -> Vec<Step>;
type Connects = dyn Fn(u16) -> Connect;

/// All backends of a test.
pub(crate) struct World {
    /// What a backend does with a request; the number counts the requests that the backends have seen.
    pub(crate) answers: Box<Answers>,
    pub(crate) connects: Box<Connects>,
    /// Whether a backend takes nothing more of a request.
    pub(crate) full: Box<dyn Fn(&Seen) -> bool>,
    /// Requests that a connection carries at once.
    pub(crate) streams: usize,
    pub(crate) seen: RefCell<Vec<Rc<RefCell<Seen>>>>,
    pub(crate) open: Cell<usize>,
}

impl World {
    pub(crate) fn new(answers: impl Fn(&Seen, usize) -> Vec<Step> + 'static) -> Self {
        Self {
            answers: Box::new(answers),
            connects: Box::new(|_| Connect::Done(Duration::from_millis(1))),
            full: Box::new(|_| false),
            streams: 2,
            seen: RefCell::default(),
            open: Cell::new(0),
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().iter().map(|seen| seen.borrow().clone()).collect()
    }
}

/// The connections to one backend.
pub(crate) struct TestUpstream {
    world: Rc<World>,
    port: u16,
    connections: RefCell<Vec<Rc<TestConnection>>>,
    dials: Rc<Dials>,
}

impl std::fmt::Debug for TestUpstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TestUpstream({})", self.port)
    }
}

struct TestConnection {
    world: Rc<World>,
    streams: Cell<usize>,
    going: Cell<bool>,
    _count: Option<Connection>,
}

impl Drop for TestConnection {
    fn drop(&mut self) {
        self.world.open.set(self.world.open.get() - 1);
    }
}

impl TestUpstream {
    pub(crate) fn of(world: &Rc<World>, key: &EndpointKey) -> Rc<dyn Upstream> {
        Rc::new(Self {
            world: Rc::clone(world),
            port: key.address.socket_addr().unwrap().port(),
            connections: RefCell::default(),
            dials: Rc::default(),
        })
    }

    fn ready(&self) -> Option<Rc<TestConnection>> {
        self.connections.borrow_mut().retain(|one| !one.going.get());
        let connections = self.connections.borrow();
        connections.iter().find(|one| one.streams.get() < self.world.streams).map(Rc::clone)
    }

    fn waits(&self) -> bool {
        self.dials.waiting() < self.dials.under_way() * (self.world.streams - 1)
    }

    fn stream(&self, connection: Rc<TestConnection>, reused: bool, now: Instant) -> Link {
        connection.streams.set(connection.streams.get() + 1);
        let back = TestBack {
            world: Rc::clone(&self.world),
            connection,
            seen: Rc::new(RefCell::new(Seen { port: self.port, ..Seen::default() })),
            steps: VecDeque::new(),
            timer: None,
            has_head: false,
            traffic: Traffic::default(),
        };
        Link::new(back, reused, now)
    }
}

impl Upstream for TestUpstream {
    fn has_way(&self, _: &Caller<'_>, _: Ask) -> bool {
        self.ready().is_some() || self.waits()
    }

    fn way(&self, caller: &Caller<'_>, _: Ask) -> Way {
        match self.ready() {
            Some(connection) => Way::Open(self.stream(connection, true, caller.now)),
            None if self.waits() => Way::Wait(self.dials.wait()),
            None => Way::Dial(Some(self.dials.dial())),
        }
    }

    fn dial(&self, caller: &Caller<'_>) -> Dialling {
        assert_eq!(caller.member.endpoint.key.address.socket_addr().unwrap().port(), self.port);
        let (connect, limit) = ((self.world.connects)(self.port), caller.settings.connect_timeout);
        Box::pin(async move {
            match connect {
                Connect::Done(time) => {
                    sleep(time).await;
                    Ok(Dialled::Own(Box::new("a connection")))
                }
                Connect::Refused(time) => {
                    sleep(time).await;
                    Err(std::io::ErrorKind::ConnectionRefused.into())
                }
                Connect::Hangs => {
                    sleep(limit).await;
                    Err(std::io::ErrorKind::TimedOut.into())
                }
            }
        })
    }

    fn adopt(&self, caller: &Caller<'_>, made: Dialled, count: Option<Connection>) -> Option<Link> {
        let Dialled::Own(made) = made else { return None };
        assert!(made.downcast::<&str>().is_ok());
        self.world.open.set(self.world.open.get() + 1);
        let connection = Rc::new(TestConnection {
            world: Rc::clone(&self.world),
            streams: Cell::new(0),
            going: Cell::new(false),
            _count: count,
        });
        self.connections.borrow_mut().push(Rc::clone(&connection));
        Some(self.stream(connection, false, caller.now))
    }

    fn retire(&self) {
        self.connections.borrow_mut().clear();
    }
}

/// One request on a connection.
struct TestBack {
    world: Rc<World>,
    connection: Rc<TestConnection>,
    seen: Rc<RefCell<Seen>>,
    steps: VecDeque<Step>,
    timer: Option<Pin<Box<Sleep>>>,
    has_head: bool,
    traffic: Traffic,
}

impl std::fmt::Debug for TestBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestBack")
    }
}

impl Drop for TestBack {
    fn drop(&mut self) {
        self.seen.borrow_mut().over = true;
        self.connection.streams.set(self.connection.streams.get() - 1);
    }
}

impl TestBack {
    fn set(&self, head: &mut ResponseHead, status: u16, body: BodyLength) {
        head.clear();
        head.status = status;
        head.body = body;
        head.fields.push(b"x-number", self.seen.borrow().number.to_string().as_bytes());
        if let BodyLength::Known(length) = body {
            self.seen.borrow_mut().announced = usize::try_from(length).ok();
            head.fields.push(b"content-length", length.to_string().as_bytes());
        }
    }
}

impl Sink for TestBack {
    fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
        let mut seen = self.seen.borrow_mut();
        assert!(!seen.ended, "bytes after the end");
        self.traffic.sent += bytes.len() as u64;
        seen.body.extend_from_slice(bytes);
    }

    fn trailers(&mut self, fields: &Fields) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = fields.iter().map(|field| (text(field.name), text(field.value)));
        self.seen.borrow_mut().trailers.extend(fields);
    }

    fn end(&mut self) {
        self.seen.borrow_mut().ended = true;
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if (self.world.full)(&self.seen.borrow()) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl Back for TestBack {
    fn capabilities(&self) -> BackCapabilities {
        BackCapabilities { tunnel: TunnelBy::ExtendedConnect, shared: true, refuses: true }
    }

    fn request(&mut self, head: &RequestHead) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let number = {
            let mut all = self.world.seen.borrow_mut();
            all.push(Rc::clone(&self.seen));
            all.len()
        };
        let mut seen = self.seen.borrow_mut();
        seen.number = number;
        seen.method = text(head.method());
        seen.fields = head.fields.iter().map(|field| (text(field.name), text(field.value))).collect();
        seen.ended = matches!(head.body, BodyLength::None | BodyLength::Known(0));
        self.steps = (self.world.answers)(&seen, number).into();
    }

    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        _: &mut Scratch,
        room: usize,
        head: &mut ResponseHead,
        to: &mut impl ResponseSink,
    ) -> Poll<Result<Progress, Failure>> {
        loop {
            if let Some(timer) = &mut self.timer {
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.timer = None;
            }
            match self.steps.pop_front() {
                None | Some(Step::Never) => {
                    self.steps.push_front(Step::Never);
                    return Poll::Pending;
                }
                Some(Step::After(time)) => self.timer = Some(Box::pin(sleep(time))),
                Some(Step::Request) => {
                    if !self.seen.borrow().ended {
                        // The exchange asks again when it has pushed more of the request.
                        self.steps.push_front(Step::Request);
                        return Poll::Pending;
                    }
                }
                Some(Step::Interim(status)) => {
                    self.set(head, status, BodyLength::None);
                    if to.head(cx, head).map_err(Failure::malformed)? != Next::Head {
                        return Poll::Ready(Err(Failure::malformed(Reason::Framing)));
                    }
                    return Poll::Ready(Ok(Progress::Moved));
                }
                Some(Step::Head(status, body)) => {
                    self.set(head, status, body);
                    to.head(cx, head).map_err(Failure::malformed)?;
                    self.has_head = true;
                    return Poll::Ready(Ok(Progress::Moved));
                }
                Some(Step::Data(mut bytes)) => {
                    if bytes.len() > room {
                        let rest = bytes.split_off(room);
                        self.steps.push_front(Step::Data(rest));
                    }
                    self.traffic.received += bytes.len() as u64;
                    self.seen.borrow_mut().given += bytes.len();
                    to.data(cx, &bytes);
                    return Poll::Ready(Ok(Progress::Moved));
                }
                Some(Step::Trailer(name, value)) => {
                    let mut fields = Fields::default();
                    fields.push(name.as_bytes(), value.as_bytes());
                    to.trailers(&fields);
                }
                Some(Step::End) => {
                    self.seen.borrow_mut().answered = true;
                    to.end();
                    return Poll::Ready(Ok(Progress::End));
                }
                Some(Step::GoAway) => self.connection.going.set(true),
                Some(Step::Fail(kind)) => {
                    if matches!(kind, Kind::Refused | Kind::GoneAway) {
                        self.seen.borrow_mut().refused = true;
                    }
                    if matches!(kind, Kind::GoneAway | Kind::Closed | Kind::ConnectionReset) {
                        self.connection.going.set(true);
                    }
                    return Poll::Ready(Err(kind.at(Reach::Sent)));
                }
            }
        }
    }

    fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }
}
