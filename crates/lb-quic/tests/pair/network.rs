//! A network in memory that treats datagrams as the worst of networks may.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lb_io::socket::{Arrived, DatagramSocket};
use lb_io::udp::UdpSocket;
use tokio::time::{Instant, Sleep, sleep};

use crate::chance::Dice;

/// What becomes of datagrams.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// So many of a hundred datagrams are lost.
    pub(crate) lost: usize,
    /// So many of a hundred arrive twice.
    pub(crate) repeated: usize,
    /// So many of a hundred are late, by up to `late_by`: others overtake them.
    pub(crate) late: usize,
    pub(crate) late_by: Duration,
    pub(crate) latency: Duration,
    /// Longer datagrams do not arrive.
    pub(crate) largest: usize,
    /// Nothing arrives from the first of these times for so long, counted from the beginning.
    pub(crate) outage: Option<(Duration, Duration)>,
    /// When the gateway that connects comes to be at another port for the others, counted from the beginning, as behind a NAT that forgets.
    pub(crate) moves: Vec<Duration>,
}

impl Default for Weather {
    fn default() -> Self {
        let latency = Duration::from_millis(1);
        let (late_by, outage, moves) = (Duration::ZERO, None, Vec::new());
        Self { lost: 0, repeated: 0, late: 0, late_by, latency, largest: 1500, outage, moves }
    }
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fates {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) overtaken: u64,
    pub(crate) moved: u64,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    dice: Dice,
    begun: Instant,
    inboxes: RefCell<HashMap<SocketAddr, Rc<Inbox>>>,
    pub(crate) fates: Cell<Fates>,
}

/// What is under way to one socket.
#[derive(Debug, Default)]
struct Inbox {
    /// By the time of arrival, and in the order of sending.
    waiting: RefCell<BTreeMap<(Instant, u64), Letter>>,
    reader: RefCell<Option<Waker>>,
}

#[derive(Clone, Debug)]
struct Letter {
    from: SocketAddr,
    to: IpAddr,
    bytes: Vec<u8>,
}

/// The port of the gateway that connects, and where it seems to be after so many moves.
const NEAR: u16 = 40_000;

impl Network {
    pub(crate) fn new(weather: Weather, dice: &Dice) -> Rc<Self> {
        let (inboxes, fates) = (RefCell::default(), Cell::default());
        Rc::new(Self { weather, dice: dice.clone(), begun: Instant::now(), inboxes, fates })
    }

    /// A socket for the gateway that connects.
    pub(crate) fn near(self: &Rc<Self>) -> UdpSocket {
        self.bind(([198, 51, 100, 1], NEAR).into())
    }

    /// A socket at this address.
    pub(crate) fn bind(self: &Rc<Self>, local: SocketAddr) -> UdpSocket {
        let inbox = Rc::<Inbox>::default();
        let earlier = self.inboxes.borrow_mut().insert(local, Rc::clone(&inbox));
        assert!(earlier.is_none(), "{local} is taken");
        let timer = RefCell::new(Box::pin(sleep(Duration::ZERO)));
        UdpSocket::plugged(Port { network: Rc::clone(self), local, inbox, timer })
    }

    fn count(&self, change: impl FnOnce(&mut Fates)) {
        let mut fates = self.fates.get();
        change(&mut fates);
        self.fates.set(fates);
    }

    /// The port at which the gateway that connects seems to be.
    fn port(&self) -> u16 {
        let passed = self.begun.elapsed();
        NEAR + self.weather.moves.iter().filter(|at| **at <= passed).count() as u16
    }

    fn carry(&self, mut from: SocketAddr, mut to: SocketAddr, bytes: &[u8]) {
        let Weather { lost, repeated, late, late_by, latency, largest, outage, .. } = self.weather;
        self.count(|fates| fates.sent += 1);
        let port = self.port();
        if from.port() == NEAR {
            from.set_port(port);
        } else if to.port() == port {
            to.set_port(NEAR);
        } else if to.port() >= NEAR {
            // The NAT knows nothing of that port any more.
            return self.count(|fates| fates.moved += 1);
        }
        let passed = self.begun.elapsed();
        let is_out = outage.is_some_and(|(at, lasts)| (at..at + lasts).contains(&passed));
        if is_out || bytes.len() > largest || self.dice.percent(lost) {
            return self.count(|fates| fates.lost += 1);
        }
        let Some(inbox) = self.inboxes.borrow().get(&to).cloned() else { return };
        let times = if self.dice.percent(repeated) { 2 } else { 1 };
        self.count(|fates| fates.repeated += times - 1);
        for _ in 0..times {
            let is_late = self.dice.percent(late);
            let delay = if is_late { self.dice.ms(late_by.as_millis() as usize) } else { Duration::ZERO };
            let at = Instant::now() + latency + delay;
            let mut waiting = inbox.waiting.borrow_mut();
            let last = waiting.last_key_value().map(|((at, _), _)| *at);
            self.count(|fates| fates.overtaken += u64::from(last.is_some_and(|last| last > at)));
            let number = self.fates.get().sent * 2 + waiting.len() as u64 % 2;
            waiting.insert((at, number), Letter { from, to: to.ip(), bytes: bytes.to_vec() });
            drop(waiting);
            if let Some(reader) = inbox.reader.borrow_mut().take() {
                reader.wake();
            }
        }
    }
}

/// A socket.
#[derive(Debug)]
struct Port {
    network: Rc<Network>,
    local: SocketAddr,
    inbox: Rc<Inbox>,
    timer: RefCell<Pin<Box<Sleep>>>,
}

impl DatagramSocket for Port {
    fn local(&self) -> SocketAddr {
        self.local
    }

    fn poll_receive(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Arrived> {
        let mut waiting = self.inbox.waiting.borrow_mut();
        let first = waiting.first_key_value().map(|((at, _), _)| *at);
        if first.is_some_and(|at| at <= Instant::now()) {
            let (_, Letter { from, to, bytes }) = waiting.pop_first().unwrap();
            buffer[..bytes.len()].copy_from_slice(&bytes);
            return Poll::Ready(Arrived { from, to, length: bytes.len() });
        }
        *self.inbox.reader.borrow_mut() = Some(cx.waker().clone());
        if let Some(at) = first {
            let mut timer = self.timer.borrow_mut();
            timer.as_mut().reset(at);
            if timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn send(&self, to: SocketAddr, _: Option<IpAddr>, bytes: &[u8]) {
        self.network.carry(self.local, to, bytes);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.network.inboxes.borrow_mut().remove(&self.local);
    }
}
