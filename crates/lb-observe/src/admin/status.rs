//! `GET /status` and `GET /status/events`: how everything stands, once or as long as somebody watches.
//!
//! The state is taken at most five times a second, and once a second while anybody watches: every viewer gets the text that was made once.
//! A viewer has no queue. It is given the newest state when its connection has taken the one before: what has changed since that, or all of it
//! if it has missed a state in between. One that takes nothing for [`PATIENCE`] is cut off, so that neither its memory nor that of the states
//! it holds outlives this (attack row D-01).

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::peer::Peer;

/// Viewers at a time. The rest of the connections are for probes and scrapes.
pub const MAX_VIEWERS: usize = 200;

/// How long a viewer may leave a state untaken.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// From one state to the next while somebody watches.
const CADENCE: Duration = Duration::from_secs(1);

/// No state is taken sooner after another.
const LEAST_DISTANCE: Duration = Duration::from_millis(200);

/// How long a state is given to those that ask once.
const FRESH: Duration = Duration::from_millis(900);

/// What knows how everything stands.
pub trait StatusSource: fmt::Debug {
    /// The state now. `None` while there is nothing to show yet.
    fn take(&self) -> Option<Rc<StatusState>>;
}

/// How everything stood at one moment. Both texts are made when they are first asked for, and once for all who are given them.
pub struct StatusState {
    number: u64,
    whole: OnceCell<Bytes>,
    change: OnceCell<Bytes>,
    write: Box<WritePart>,
}

/// Appends a part of a state as one line of JSON.
type WritePart = dyn Fn(StatusPart, &mut Vec<u8>);

/// What is written of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusPart {
    /// All of it.
    Whole,
    /// What differs from the state before it.
    Change,
}

impl fmt::Debug for StatusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusState").field("number", &self.number).finish_non_exhaustive()
    }
}

impl StatusState {
    /// The state with this number, which is one more than that of the state before it. `write` appends a part of it as one line of JSON.
    pub fn new(number: u64, write: impl Fn(StatusPart, &mut Vec<u8>) + 'static) -> Rc<Self> {
        Rc::new(Self { number, whole: OnceCell::new(), change: OnceCell::new(), write: Box::new(write) })
    }

    /// A part of it as an event of the stream (WHATWG HTML §9.2). JSON has no line feeds.
    fn event(&self, part: StatusPart) -> Bytes {
        let (cell, begin) = match part {
            StatusPart::Whole => (&self.whole, WHOLE_BEGINS),
            StatusPart::Change => (&self.change, CHANGE_BEGINS),
        };
        let make = || {
            let mut text = begin.as_bytes().to_vec();
            (self.write)(part, &mut text);
            text.extend_from_slice(EVENT_ENDS.as_bytes());
            text.into()
        };
        cell.get_or_init(make).clone()
    }

    /// All of it as JSON, with a line feed.
    fn json(&self) -> Bytes {
        let event = self.event(StatusPart::Whole);
        event.slice(WHOLE_BEGINS.len()..event.len().saturating_sub(1))
    }
}

const WHOLE_BEGINS: &str = "event: status\ndata: ";
const CHANGE_BEGINS: &str = "event: change\ndata: ";
const EVENT_ENDS: &str = "\n\n";

/// The newest state, and those who watch it.
#[derive(Debug)]
pub(super) struct StatusFeed {
    source: Rc<dyn StatusSource>,
    newest: RefCell<Option<(Instant, Rc<StatusState>)>>,
    published: watch::Sender<Option<Rc<StatusState>>>,
    viewers: Cell<usize>,
    /// Whether [`Self::keep_taking`] runs.
    is_taking: Cell<bool>,
    is_stale: watch::Sender<bool>,
}

impl StatusFeed {
    pub(super) fn new(source: Rc<dyn StatusSource>) -> Rc<Self> {
        Rc::new(Self {
            source,
            newest: RefCell::default(),
            published: watch::channel(None).0,
            viewers: Cell::new(0),
            is_taking: Cell::new(false),
            is_stale: watch::channel(false).0,
        })
    }

    /// The state for one who asks once.
    pub(super) fn once(&self) -> Option<Bytes> {
        let is_fresh = |at: Instant| !*self.is_stale.borrow() && at.elapsed() < FRESH;
        let newest = self.newest.borrow().clone().filter(|(at, _)| is_fresh(*at));
        match newest {
            Some((_, state)) => Some(state.json()),
            None => Some(self.take()?.json()),
        }
    }

    /// Something was done that viewers want to see at once.
    pub(super) fn is_outdated(&self) {
        self.is_stale.send_replace(true);
    }

    fn take(&self) -> Option<Rc<StatusState>> {
        let state = self.source.take()?;
        self.is_stale.send_replace(false);
        *self.newest.borrow_mut() = Some((Instant::now(), Rc::clone(&state)));
        self.published.send_replace(Some(Rc::clone(&state)));
        Some(state)
    }

    /// The events for one more viewer. `None` when there are as many as there may be.
    pub(super) fn watch(self: &Rc<Self>, peer: &Rc<Peer>) -> Option<mpsc::Receiver<Bytes>> {
        if self.viewers.get() >= MAX_VIEWERS {
            return None;
        }
        self.viewers.set(self.viewers.get().saturating_add(1));
        if !self.is_taking.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).keep_taking());
        }
        let (sender, parts) = mpsc::channel(1);
        let (feed, peer) = (Rc::clone(self), Rc::clone(peer));
        peer.begin_stream();
        tokio::task::spawn_local(async move {
            feed.show_to(&sender, &peer).await;
            feed.viewers.set(feed.viewers.get().saturating_sub(1));
        });
        Some(parts)
    }

    /// Takes states as long as somebody watches.
    async fn keep_taking(self: Rc<Self>) {
        let mut stale = self.is_stale.subscribe();
        while self.viewers.get() > 0 {
            let begun = Instant::now();
            self.take();
            let _ = timeout(CADENCE, stale.wait_for(|stale| *stale)).await;
            sleep(LEAST_DISTANCE.saturating_sub(begun.elapsed())).await;
        }
        self.is_taking.set(false);
        // Whoever watches next is not shown how things stood long ago.
        self.published.send_replace(None);
    }

    /// Gives one viewer the newest state whenever it has taken the one before.
    async fn show_to(&self, sender: &mpsc::Sender<Bytes>, peer: &Peer) {
        let mut published = self.published.subscribe();
        let mut known = None;
        loop {
            let Ok(room) = timeout(PATIENCE, sender.reserve()).await else {
                peer.cut();
                return;
            };
            let Ok(room) = room else { return };
            let state = tokio::select! {
                () = sender.closed() => return,
                state = published.wait_for(|state| {
                    state.as_ref().is_some_and(|state| Some(state.number) != known)
                }) => match state {
                    Ok(state) => state.clone(),
                    Err(_) => return,
                },
            };
            let Some(state) = state else { return };
            let follows = known.is_some_and(|known| state.number == known.wrapping_add(1));
            known = Some(state.number);
            room.send(state.event(if follows { StatusPart::Change } else { StatusPart::Whole }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::task::LocalSet;

    use super::*;

    /// Counts how often it is asked, and how often a text is made.
    #[derive(Debug, Default)]
    struct Counting {
        taken: Cell<u64>,
        written: Rc<Cell<u64>>,
    }

    impl StatusSource for Counting {
        fn take(&self) -> Option<Rc<StatusState>> {
            let number = self.taken.get() + 1;
            self.taken.set(number);
            let written = Rc::clone(&self.written);
            Some(StatusState::new(number, move |part, text| {
                written.set(written.get() + 1);
                write!(text, "{part:?} {number}").unwrap();
            }))
        }
    }

    fn run(test: impl AsyncFnOnce(Rc<StatusFeed>, Rc<Counting>, Rc<Peer>)) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let source = Rc::new(Counting::default());
        let feed = StatusFeed::new(Rc::clone(&source) as Rc<dyn StatusSource>);
        let peer = Rc::new(Peer::new("127.0.0.1:1".parse().unwrap()));
        LocalSet::new().block_on(&runtime, test(feed, source, peer));
    }

    async fn next(parts: &mut mpsc::Receiver<Bytes>) -> String {
        String::from_utf8(parts.recv().await.unwrap().to_vec()).unwrap()
    }

    #[test]
    fn d_01_whoever_is_slow_is_given_the_newest_or_nothing() {
        run(async |feed, _, peer| {
            let mut parts = feed.watch(&peer).unwrap();
            assert_eq!(next(&mut parts).await, "event: status\ndata: Whole 1\n\n");
            assert_eq!(next(&mut parts).await, "event: change\ndata: Change 2\n\n");
            // One waits in the channel; those after it are passed over.
            sleep(Duration::from_secs(5)).await;
            assert_eq!(next(&mut parts).await, "event: change\ndata: Change 3\n\n");
            let late = next(&mut parts).await;
            assert!(late.starts_with("event: status\ndata: Whole "), "{late}");
            assert!(late.contains('7') || late.contains('8'), "{late}");
            let begun = Instant::now();
            peer.is_cut().await;
            let waited = begun.elapsed();
            assert!(waited >= PATIENCE && waited <= PATIENCE + Duration::from_secs(2), "{waited:?}");
            sleep(Duration::from_secs(2)).await;
            assert_eq!((feed.viewers.get(), feed.is_taking.get()), (0, false), "nobody watches");
        });
    }

    #[test]
    fn d_01_a_state_is_taken_and_written_once_for_all() {
        run(async |feed, source, peer| {
            let mut viewers: Vec<_> = (0..MAX_VIEWERS).map(|_| feed.watch(&peer).unwrap()).collect();
            assert!(feed.watch(&peer).is_none());
            for _ in 0..5 {
                for viewer in &mut viewers {
                    next(viewer).await;
                }
            }
            assert!((5..=6).contains(&source.taken.get()), "{}", source.taken.get());
            assert!(source.written.get() <= 6, "{}", source.written.get());
            assert_eq!(feed.once().unwrap(), feed.once().unwrap(), "who asks once is given the same");
            drop(viewers);
            sleep(Duration::from_secs(3)).await;
            let taken = source.taken.get();
            sleep(Duration::from_secs(60)).await;
            assert_eq!(source.taken.get(), taken, "nothing is done while nobody looks");
            assert!(feed.once().unwrap().starts_with(b"Whole"));
            feed.is_outdated();
            let before = source.taken.get();
            feed.once();
            assert_eq!(source.taken.get(), before + 1, "something was done since");
        });
    }
}
