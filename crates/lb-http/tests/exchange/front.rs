//! A client that sends what it is told to and remembers what it is sent.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lb_core::failure::{Reject, ResetReason};
use lb_core::head::{Fields, ResponseHead, TunnelBy};
use lb_http::message::{Front, FrontCapabilities, FrontError, Gone, Progress, Sink, Traffic};
use lb_io::Scratch;
use tokio::time::{Instant, Sleep, sleep};

/// What a client does next with its request.
#[derive(Clone, Debug)]
pub(crate) enum Send {
    Data(Vec<u8>),
    Trailer(&'static str, &'static str),
    After(Duration),
    Refuse(Reject),
    End,
}

/// What a client was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) interims: Vec<u16>,
    pub(crate) heads: Vec<u16>,
    /// Which of the requests that origins have seen the response belongs to.
    pub(crate) number: Option<usize>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) ends: u32,
    pub(crate) aborted: Option<ResetReason>,
    pub(crate) last_request: bool,
    /// Bytes of its body that were taken.
    pub(crate) uploaded: usize,
}

/// How a client takes a response, and how long it stays.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    /// Bytes that it takes before each pause.
    pub(crate) gulp: usize,
    pub(crate) pause: Duration,
    /// When it leaves, counted from its request, and how.
    pub(crate) leaves: Option<(Duration, Gone)>,
    pub(crate) can: FrontCapabilities,
}

impl Default for Habits {
    fn default() -> Self {
        let can = FrontCapabilities {
            interim: true,
            trailers: true,
            tunnel: TunnelBy::ExtendedConnect,
            streams: true,
        };
        Self { gulp: usize::MAX, pause: Duration::ZERO, leaves: None, can }
    }
}

/// The client's side of one exchange.
pub(crate) struct TestFront {
    pub(crate) told: Rc<RefCell<Told>>,
    sends: VecDeque<Send>,
    habits: Habits,
    /// Bytes that it takes before its next pause.
    allowed: usize,
    leaves_at: Option<Instant>,
    /// Wakes it when it leaves, when it sends on, and when it takes on.
    timers: [Pin<Box<Sleep>>; 3],
    waits: [bool; 3],
    /// Bytes that were pushed and not taken.
    pub(crate) unread: Rc<RefCell<Unread>>,
    done: bool,
    traffic: Traffic,
    ended: bool,
    reader: Option<Waker>,
}

/// What waits in the front for the client, and the most that ever did.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    pub(crate) bytes: VecDeque<u8>,
    pub(crate) most: usize,
}

const LEAVE: usize = 0;
const SEND: usize = 1;
const TAKE: usize = 2;

impl TestFront {
    pub(crate) fn new(sends: Vec<Send>, habits: Habits) -> Self {
        let leaves_at = habits.leaves.map(|(after, _)| Instant::now() + after);
        let timer = || Box::pin(sleep(Duration::ZERO));
        let mut timers = [timer(), timer(), timer()];
        if let Some(at) = leaves_at {
            timers[LEAVE].as_mut().reset(at);
        }
        Self {
            told: Rc::default(),
            sends: sends.into(),
            allowed: habits.gulp,
            habits,
            leaves_at,
            timers,
            waits: [leaves_at.is_some(), false, false],
            unread: Rc::default(),
            done: false,
            traffic: Traffic::default(),
            ended: false,
            reader: None,
        }
    }

    /// Whether the client is gone, and whether this timer has come.
    fn poll_timer(&mut self, cx: &mut Context<'_>, which: usize) -> bool {
        if self.waits[which] && self.timers[which].as_mut().poll(cx).is_ready() {
            self.waits[which] = false;
        }
        !self.waits[which]
    }

    fn gone(&mut self, cx: &mut Context<'_>) -> Option<Gone> {
        self.leaves_at?;
        if self.poll_timer(cx, LEAVE) { self.habits.leaves.map(|(_, gone)| gone) } else { None }
    }

    fn wait(&mut self, which: usize, time: Duration) {
        self.timers[which].as_mut().reset(Instant::now() + time);
        self.waits[which] = true;
    }
}

impl Sink for TestFront {
    fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
        let mut unread = self.unread.borrow_mut();
        assert!(!self.ended, "bytes after the end");
        unread.bytes.extend(bytes);
        unread.most = unread.most.max(unread.bytes.len());
    }

    fn trailers(&mut self, fields: &Fields) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = fields.iter().map(|field| (text(field.name), text(field.value)));
        self.told.borrow_mut().trailers.extend(fields);
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if let Some(gone) = self.gone(cx) {
            return Poll::Ready(Err(gone));
        }
        loop {
            let left = self.unread.borrow().bytes.len();
            if left == 0 {
                break;
            }
            if !self.poll_timer(cx, TAKE) {
                return Poll::Pending;
            }
            let n = left.min(self.allowed);
            let taken: Vec<u8> = self.unread.borrow_mut().bytes.drain(..n).collect();
            self.traffic.sent += taken.len() as u64;
            self.told.borrow_mut().body.extend(taken);
            self.allowed -= n;
            if self.allowed == 0 {
                self.allowed = self.habits.gulp;
                self.wait(TAKE, self.habits.pause);
            }
        }
        if self.ended && !self.done {
            self.done = true;
            self.told.borrow_mut().ends += 1;
        }
        Poll::Ready(Ok(()))
    }
}

impl Front for TestFront {
    fn capabilities(&self) -> FrontCapabilities {
        self.habits.can
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        _: &mut Scratch,
        to: &mut impl Sink,
    ) -> Poll<Result<Progress, FrontError>> {
        loop {
            if let Some(gone) = self.gone(cx) {
                return Poll::Ready(Err(FrontError::Gone(gone)));
            }
            if !self.poll_timer(cx, SEND) {
                return Poll::Pending;
            }
            match self.sends.pop_front() {
                None => {
                    // Nothing more is sent, and it does not end either.
                    self.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Some(Send::After(time)) => self.wait(SEND, time),
                Some(Send::Data(bytes)) => {
                    self.traffic.received += bytes.len() as u64;
                    self.told.borrow_mut().uploaded += bytes.len();
                    to.data(cx, &bytes);
                    return Poll::Ready(Ok(Progress::Moved));
                }
                Some(Send::Trailer(name, value)) => {
                    let mut fields = Fields::default();
                    fields.push(name.as_bytes(), value.as_bytes());
                    to.trailers(&fields);
                }
                Some(Send::Refuse(reject)) => return Poll::Ready(Err(FrontError::Reject(reject))),
                Some(Send::End) => {
                    to.end();
                    return Poll::Ready(Ok(Progress::End));
                }
            }
        }
    }

    fn interim(&mut self, head: &ResponseHead) {
        let mut told = self.told.borrow_mut();
        assert!(
            self.habits.can.interim && told.heads.is_empty(),
            "an interim response that may not stand here"
        );
        told.interims.push(head.status);
    }

    fn head(&mut self, head: &ResponseHead) {
        let mut told = self.told.borrow_mut();
        told.heads.push(head.status);
        let number =
            head.fields.value_of(b"x-number").map(|value| String::from_utf8_lossy(value).into_owned());
        told.number = number.map(|number| number.parse().unwrap());
    }

    fn switch(&mut self) {}

    fn poll_hangup(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        match self.gone(cx) {
            Some(gone) => Poll::Ready(gone),
            None => Poll::Pending,
        }
    }

    fn last_request(&mut self) {
        self.told.borrow_mut().last_request = true;
    }

    fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    fn abort(&mut self, why: ResetReason) {
        let mut told = self.told.borrow_mut();
        assert!(told.aborted.replace(why).is_none(), "aborted twice");
    }
}
