//! A scripted h2c backend (prior knowledge) that remembers what it received.
//!
//! Each request runs its script on a thread of its own, over a [`Call`]; [`H2Backend::raw`] hands the whole connection to the
//! script instead, for peers that break the protocol itself. What arrives is read strictly: a violation is remembered, and
//! `assert_clean` fails on it.

use super::call::Call;
use super::frame::PREFACE;
use super::link::{Script, serve};
use super::reader::{Reader, Role};
use crate::pattern::Verifier;
use crate::seconds;
use crate::wire::{Fault, Headers, Wire};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::{BTreeMap, HashMap};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// How many requests are remembered in full; all are counted.
pub(super) const REMEMBERED: usize = 8192;
/// How much of a body is remembered; all of it is compared with the pattern.
pub(super) const BODY_KEPT: usize = 1024 * 1024;

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
    /// In how many DATA frames the body came.
    pub data_frames: usize,
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

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) requests: Mutex<Vec<H2Request>>,
    faults: Mutex<Vec<String>>,
    control: Mutex<Vec<Control>>,
    live: Mutex<HashMap<usize, TcpStream>>,
    connections: AtomicUsize,
    pub(super) request_count: AtomicUsize,
    stopped: AtomicBool,
}

impl State {
    pub(super) fn with_control(&self, number: usize, change: impl FnOnce(&mut Control)) {
        change(&mut self.control.lock().unwrap()[number - 1]);
    }
}

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

    /// A backend with other manners.
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
                // Unread bytes would turn the end into a reset.
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
    pub(super) fn note(&self, number: usize, outcome: &Result<(), Fault>) {
        if let Err(Fault::Malformed(why)) = outcome {
            self.faults.lock().unwrap().push(format!("connection {number}: {why}"));
        }
    }
}
