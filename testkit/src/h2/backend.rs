//! A scripted h2c backend (prior knowledge) that remembers what it received.
//!
//! Each request runs its script on a thread of its own, over a [`Call`]; [`H2Backend::raw`] hands the whole connection to the
//! script instead, for peers that break the protocol itself. What arrives is read strictly: a violation is remembered, and
//! `assert_clean` fails on it.

use super::call::Call;
use super::frame::{self, Frame, PREFACE, setting};
use super::reader::{Event, Reader, Role};
use super::window::Windows;
use crate::pattern::Verifier;
use crate::seconds;
use crate::wire::{Fault, Headers, Wire};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// How many requests are remembered in full; all are counted.
const REMEMBERED: usize = 8192;
/// How much of a body is remembered; all of it is compared with the pattern.
const BODY_KEPT: usize = 1024 * 1024;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct H2Request {
    /// Its head, with the pseudo fields.
    pub headers: Headers,
    /// The first MiB of its body.
    pub body: Vec<u8>,
    /// The whole body, compared with the pattern.
    pub pattern: Verifier,
    /// Its trailer section.
    pub trailers: Headers,
    /// Whether it came to its end.
    pub complete: bool,
    /// The code with which the peer reset it.
    pub reset: Option<u32>,
    /// Whether the connection ended under it.
    pub cut: bool,
    /// Which connection it came on, from 1.
    pub connection: usize,
    /// Its stream.
    pub stream: u32,
    /// In how many frames its head came.
    pub head_frames: usize,
}

impl H2Request {
    /// The method.
    pub fn method(&self) -> String {
        self.header(":method").unwrap_or_default()
    }

    /// The path.
    pub fn path(&self) -> String {
        self.header(":path").unwrap_or_default()
    }

    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name)
    }
}

/// What arrived on a connection besides requests.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// The SETTINGS, the last value of each.
    pub settings: BTreeMap<u16, u32>,
    /// How many of our SETTINGS were acknowledged.
    pub settings_acks: usize,
    /// How many PINGs came.
    pub pings: usize,
    /// How many answers to our PINGs came.
    pub pongs: usize,
    /// The GOAWAYs: last stream and code.
    pub goaways: Vec<(u32, u32)>,
    /// How many streams were open at once, at most, whenever one was opened after our SETTINGS were acknowledged.
    pub peak_streams: usize,
    /// Whether it has ended.
    pub ended: bool,
}

/// How a backend greets and treats its peers.
#[derive(Debug, Clone)]
pub struct Manners {
    /// Its SETTINGS.
    pub settings: Vec<(u16, u32)>,
    /// Whether it never gives credit back by itself.
    pub withholds: bool,
    /// Whether it answers PINGs.
    pub answers_pings: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Manners { settings: Vec::new(), withholds: false, answers_pings: true }
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) queue: VecDeque<(Vec<u8>, usize)>,
    pub(super) request: H2Request,
    pub(super) slot: Option<usize>,
    /// Whether the script has ended its own direction.
    pub(super) answered: bool,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) streams: HashMap<u32, Stream>,
    pub(super) send_windows: Windows,
    pub(super) receive_windows: Windows,
    pub(super) gone: bool,
    open: usize,
}

/// A connection, as its reader and the scripts of its requests share it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) shared: Mutex<Shared>,
    pub(super) changed: Condvar,
    pub(super) writer: Mutex<TcpStream>,
    pub(super) manners: Manners,
    pub(super) state: Arc<State>,
    pub(super) number: usize,
}

impl Link {
    pub(super) fn send(&self, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
        self.writer.lock().unwrap().write_all(bytes.as_ref()).map_err(Fault::from)
    }

    pub(super) fn remember(&self, stream: &Stream) {
        if let Some(slot) = stream.slot
            && let Some(place) = self.state.requests.lock().unwrap().get_mut(slot)
        {
            *place = stream.request.clone();
        }
    }

    /// One direction of a stream came to its end.
    pub(super) fn settle(&self, shared: &mut Shared, stream: u32) {
        let over = shared
            .streams
            .get(&stream)
            .is_some_and(|s| s.answered && s.request.complete || s.request.reset.is_some());
        if over {
            shared.open = shared.open.saturating_sub(1);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    requests: Mutex<Vec<H2Request>>,
    faults: Mutex<Vec<String>>,
    control: Mutex<Vec<Control>>,
    live: Mutex<HashMap<usize, TcpStream>>,
    connections: AtomicUsize,
    request_count: AtomicUsize,
    stopped: AtomicBool,
}

impl State {
    fn with_control(&self, number: usize, change: impl FnOnce(&mut Control)) {
        change(&mut self.control.lock().unwrap()[number - 1]);
    }
}

type Script = dyn Fn(&mut Call) -> Result<(), Fault> + Send + Sync;

/// A server, stopped when dropped.
pub struct H2Backend {
    /// Where it listens.
    pub address: SocketAddr,
    listener: Arc<TcpListener>,
    state: Arc<State>,
}

impl H2Backend {
    /// Runs `script` on every request, on a free port.
    pub fn start(script: impl Fn(&mut Call) -> Result<(), Fault> + Send + Sync + 'static) -> H2Backend {
        H2Backend::with(Manners::default(), script)
    }

    /// The same with other manners.
    pub fn with(
        manners: Manners,
        script: impl Fn(&mut Call) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> H2Backend {
        let script: Arc<Script> = Arc::new(script);
        H2Backend::listen(move |stream, number, state| {
            serve(stream, number, state, manners.clone(), &script);
        })
    }

    /// Hands every connection, after the client's preface, to `script` as it is.
    pub fn raw(
        script: impl Fn(&mut Reader, usize) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> H2Backend {
        H2Backend::listen(move |stream, number, state| {
            let mut reader = Reader::new(Wire::new(stream), Role::Server);
            let outcome = reader.wire.exactly(PREFACE.len()).and_then(|_| script(&mut reader, number));
            state.note(number, &outcome);
            if outcome.is_ok() {
                // Bytes that nobody read would turn the end into a reset.
                reader.wire.stream().shutdown(Shutdown::Write).ok();
                reader.wire.set_timeout(seconds(2));
                while reader.frame().is_ok() {}
            }
        })
    }

    fn listen(serve: impl Fn(TcpStream, usize, Arc<State>) + Send + Sync + 'static) -> H2Backend {
        let address = crate::ports::reserve();
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap_or_else(|e| panic!("backend at {address}: {e}"));
        socket.listen(4096).unwrap();
        let listener = Arc::new(TcpListener::from(socket));
        let state = Arc::new(State::default());
        let serve = Arc::new(serve);
        let (accepting, shared) = (Arc::clone(&listener), Arc::clone(&state));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                if shared.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                shared.control.lock().unwrap().push(Control::default());
                if let Ok(clone) = stream.try_clone() {
                    shared.live.lock().unwrap().insert(number, clone);
                }
                let (serve, state) = (Arc::clone(&serve), Arc::clone(&shared));
                let run = move || {
                    serve(stream, number, Arc::clone(&state));
                    state.with_control(number, |control| control.ended = true);
                    state.live.lock().unwrap().remove(&number);
                };
                std::thread::Builder::new().stack_size(256 * 1024).spawn(run).unwrap();
            }
        });
        H2Backend { address, listener, state }
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.state.live.lock().unwrap().len()
    }

    /// How many request heads arrived.
    pub fn request_count(&self) -> usize {
        self.state.request_count.load(Ordering::SeqCst)
    }

    /// The first requests.
    pub fn requests(&self) -> Vec<H2Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The last of the remembered requests.
    #[track_caller]
    pub fn last_request(&self) -> H2Request {
        self.state.requests.lock().unwrap().last().expect("no request arrived").clone()
    }

    /// What arrived on each connection besides requests.
    pub fn control(&self) -> Vec<Control> {
        self.state.control.lock().unwrap().clone()
    }

    /// What broke the protocol.
    pub fn faults(&self) -> Vec<String> {
        self.state.faults.lock().unwrap().clone()
    }

    /// Panics when anything arrived that breaks the protocol.
    #[track_caller]
    pub fn assert_clean(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "the backend received what breaks the protocol: {faults:#?}");
    }

    /// Waits until `count` request heads arrived.
    #[track_caller]
    pub fn wait_requests(&self, count: usize) {
        crate::eventually(&format!("{count} requests at the backend"), seconds(10), || {
            self.request_count() >= count
        });
    }

    /// Stops listening, so that connecting is refused; open connections stay.
    pub fn refuse(&self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then lets go of the socket.
        SockRef::from(&*self.listener).shutdown(Shutdown::Both).ok();
    }

    /// Ends every open connection.
    pub fn cut(&self) {
        for stream in self.state.live.lock().unwrap().values() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

impl Drop for H2Backend {
    fn drop(&mut self) {
        self.refuse();
        self.cut();
    }
}

impl State {
    fn note(&self, number: usize, outcome: &Result<(), Fault>) {
        if let Err(Fault::Malformed(why)) = outcome {
            self.faults.lock().unwrap().push(format!("connection {number}: {why}"));
        }
    }
}

fn serve(stream: TcpStream, number: usize, state: Arc<State>, manners: Manners, script: &Arc<Script>) {
    stream.set_nodelay(true).ok();
    let Ok(writer) = stream.try_clone() else { return };
    let mut shared = Shared::default();
    for &(id, value) in &manners.settings {
        if id == setting::INITIAL_WINDOW_SIZE {
            // A smaller window binds the peer only once it has acknowledged it; that is not told apart here.
            shared.receive_windows.set_initial(value.max(65_535));
        }
    }
    let link = Arc::new(Link {
        shared: Mutex::new(shared),
        changed: Condvar::new(),
        writer: Mutex::new(writer),
        manners,
        state: Arc::clone(&state),
        number,
    });
    let mut reader = Reader::new(Wire::new(stream), Role::Server);
    for &(id, value) in &link.manners.settings {
        if id == setting::HEADER_TABLE_SIZE {
            reader.decoder.allow(value as usize);
        }
    }
    // A pooled connection may lie idle for the length of a test.
    reader.wire.set_timeout(seconds(120));
    let outcome = converse(&mut reader, &link, script);
    state.note(number, &outcome);
    let mut shared = link.shared.lock().unwrap();
    shared.gone = true;
    for stream in shared.streams.values_mut() {
        if !stream.request.complete || !stream.answered {
            stream.request.cut = true;
            link.remember(stream);
        }
    }
    drop(shared);
    link.changed.notify_all();
    // A fault of the peer's ends the connection.
    reader.wire.stream().shutdown(Shutdown::Both).ok();
}

fn converse(reader: &mut Reader, link: &Arc<Link>, script: &Arc<Script>) -> Result<(), Fault> {
    let preface = reader.wire.exactly(PREFACE.len())?;
    if preface != PREFACE {
        return Err(Fault::Malformed(format!("preface {:?}", String::from_utf8_lossy(&preface))));
    }
    link.send(frame::settings(&link.manners.settings))?;
    let mut greeted = false;
    loop {
        let event = match reader.event() {
            Err(Fault::Closed) => return Ok(()),
            other => other?,
        };
        if !greeted && !matches!(event, Event::Settings(_)) {
            return Err(Fault::Malformed("the first frame is not SETTINGS".into()));
        }
        greeted = true;
        file(event, link, script)?;
        link.changed.notify_all();
    }
}

fn file(event: Event, link: &Arc<Link>, script: &Arc<Script>) -> Result<(), Fault> {
    let malformed = |why: String| Err(Fault::Malformed(why));
    let mut shared = link.shared.lock().unwrap();
    let shared = &mut *shared;
    match event {
        Event::Headers { stream, headers, end, frames } => {
            if let Some(known) = shared.streams.get_mut(&stream) {
                if !end || known.request.complete || headers.has(":path") {
                    return malformed(format!("stream {stream}: a second head {headers:?}"));
                }
                known.request.trailers = headers;
                known.request.complete = true;
                link.remember(known);
                link.settle(shared, stream);
                return Ok(());
            }
            let newer = shared.streams.keys().max().is_none_or(|last| stream > *last);
            if stream % 2 == 0 || !newer || !headers.has(":method") {
                return malformed(format!("stream {stream}: not a new request: {headers:?}"));
            }
            let request = H2Request {
                headers,
                body: Vec::new(),
                pattern: Verifier::default(),
                trailers: Headers::default(),
                complete: end,
                reset: None,
                cut: false,
                connection: link.number,
                stream,
                head_frames: frames,
            };
            link.state.request_count.fetch_add(1, Ordering::SeqCst);
            let mut requests = link.state.requests.lock().unwrap();
            let slot = (requests.len() < REMEMBERED).then_some(requests.len());
            if slot.is_some() {
                requests.push(request.clone());
            }
            drop(requests);
            shared.open += 1;
            let open = shared.open;
            link.state.with_control(link.number, |c| {
                // Before the peer has read our SETTINGS it cannot know of a limit.
                if c.settings_acks > 0 {
                    c.peak_streams = c.peak_streams.max(open);
                }
            });
            shared.streams.insert(stream, Stream { queue: VecDeque::new(), request, slot, answered: false });
            let mut call = Call::new(Arc::clone(link), stream);
            let script = Arc::clone(script);
            let run = move || {
                let outcome = script(&mut call);
                call.conclude(outcome);
            };
            std::thread::Builder::new().stack_size(256 * 1024).spawn(run).unwrap();
        }
        Event::Data { stream, bytes, flow, end } => {
            if let Err(why) = shared.receive_windows.take(stream, flow) {
                return malformed(why);
            }
            if flow > 0 && !link.manners.withholds {
                // The connection's window never makes one stream wait for another's script.
                shared.receive_windows.credit(0, flow as u32);
                link.send(frame::window_update(0, flow as u32)).ok();
            }
            let Some(known) = shared.streams.get_mut(&stream).filter(|s| !s.request.complete) else {
                return malformed(format!("DATA on stream {stream}, which is not open"));
            };
            let request = &mut known.request;
            let room = BODY_KEPT.saturating_sub(request.body.len()).min(bytes.len());
            request.body.extend_from_slice(&bytes[..room]);
            request.pattern.feed(&bytes);
            request.complete = end;
            known.queue.push_back((bytes, flow));
            if end {
                link.remember(known);
                link.settle(shared, stream);
            }
        }
        Event::Reset { stream, code } => {
            let Some(known) = shared.streams.get_mut(&stream) else {
                return malformed(format!("a reset of idle stream {stream}"));
            };
            if known.request.reset.is_none() && !(known.answered && known.request.complete) {
                known.request.reset = Some(code);
                link.remember(known);
                link.settle(shared, stream);
            }
        }
        Event::GoAway { last, code, .. } => {
            link.state.with_control(link.number, |c| c.goaways.push((last, code)));
        }
        Event::Settings(pairs) => {
            for (id, value) in pairs {
                if id == setting::INITIAL_WINDOW_SIZE {
                    shared.send_windows.set_initial(value);
                }
                link.state.with_control(link.number, |c| {
                    c.settings.insert(id, value);
                });
            }
            link.send(frame::settings_ack()).ok();
        }
        Event::SettingsAck => link.state.with_control(link.number, |c| c.settings_acks += 1),
        Event::Ping(data) => {
            link.state.with_control(link.number, |c| c.pings += 1);
            if link.manners.answers_pings {
                link.send(frame::pong(data)).ok();
            }
        }
        Event::Pong(_) => link.state.with_control(link.number, |c| c.pongs += 1),
        Event::Window { stream, increment } => shared.send_windows.credit(stream, increment),
        Event::Push { .. } => return malformed("a client that pushes".into()),
        Event::Other(Frame { .. }) => {}
    }
    Ok(())
}
