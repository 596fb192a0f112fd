//! A backend that follows a test's script, and remembers what it received.
//!
//! The script is a closure over a [`Conn`]: it reads heads and bodies, sends bytes, pauses, ends or resets the connection. What
//! arrives is always read strictly; a request that is not well-formed is remembered, and `assert_clean` fails on it.

use crate::pattern::Verifier;
use crate::wire::{Body, Fault, Headers, RequestHead, Wire};
use crate::{ms, seconds};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many requests are remembered in full; all are counted.
const REMEMBERED: usize = 4096;
/// How much of a body is remembered; all of it is compared with the pattern.
const BODY_KEPT: usize = 1024 * 1024;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its head.
    pub head: RequestHead,
    /// The first MiB of its body.
    pub body: Vec<u8>,
    /// The whole body, compared with the pattern.
    pub pattern: Verifier,
    /// Its trailer section.
    pub trailers: Headers,
    /// Whether a chunk carried an extension.
    pub extensions: bool,
    /// Whether the body came to its end.
    pub complete: bool,
    /// Which connection it came on, from 1.
    pub connection: usize,
}

impl Request {
    /// The method.
    pub fn method(&self) -> &str {
        &self.head.method
    }

    /// The target.
    pub fn target(&self) -> &str {
        &self.head.target
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.headers.get(name)
    }

    /// Length of the body.
    pub fn body_len(&self) -> u64 {
        self.pattern.len()
    }
}

#[derive(Debug, Default)]
struct State {
    requests: Mutex<Vec<Request>>,
    faults: Mutex<Vec<String>>,
    taps: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    live: Mutex<HashMap<usize, TcpStream>>,
    connections: AtomicUsize,
    request_count: AtomicUsize,
    stopped: AtomicBool,
}

type Script = dyn Fn(&mut Conn) -> Result<(), Fault> + Send + Sync;

/// A connection from the gateway, in the hands of a script.
pub struct Conn {
    /// The socket.
    pub wire: Wire,
    /// Which connection of this backend it is, from 1.
    pub number: usize,
    /// How many request heads came on it.
    pub served: usize,
    state: Arc<State>,
    current: Option<Current>,
    reset: bool,
}

struct Current {
    request: Request,
    body: Body,
    slot: Option<usize>,
}

impl Conn {
    /// Reads the next request head.
    pub fn head(&mut self) -> Result<RequestHead, Fault> {
        let head = self.wire.request_head()?;
        self.served += 1;
        self.state.request_count.fetch_add(1, Ordering::SeqCst);
        let body = Body::new(head.framing);
        let request = Request {
            head: head.clone(),
            body: Vec::new(),
            pattern: Verifier::default(),
            trailers: Headers::default(),
            extensions: false,
            complete: body.is_done(),
            connection: self.number,
        };
        let mut requests = self.state.requests.lock().unwrap();
        let slot = (requests.len() < REMEMBERED).then_some(requests.len());
        if slot.is_some() {
            requests.push(request.clone());
        }
        self.current = Some(Current { request, body, slot });
        Ok(head)
    }

    /// The current request, as far as it was read.
    #[track_caller]
    pub fn current(&self) -> &Request {
        &self.current.as_ref().expect("no head was read").request
    }

    /// Reads the next piece of the current request's body; `None` at its end.
    pub fn piece(&mut self) -> Result<Option<&[u8]>, Fault> {
        let len = self.advance()?;
        Ok(len.map(|len| self.wire.recent(len)))
    }

    /// Reads the next piece and returns its length.
    fn advance(&mut self) -> Result<Option<usize>, Fault> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let request = &mut current.request;
        if let Some(piece) = current.body.next(&mut self.wire)? {
            let room = BODY_KEPT.saturating_sub(request.body.len()).min(piece.len());
            request.body.extend_from_slice(&piece[..room]);
            request.pattern.feed(piece);
            return Ok(Some(piece.len()));
        }
        request.trailers = current.body.trailers.clone();
        request.extensions = current.body.extensions;
        request.complete = true;
        self.remember();
        Ok(None)
    }

    fn remember(&mut self) {
        if let Some(Current { request, slot: Some(slot), .. }) = &self.current {
            // A test may have had the requests forgotten meanwhile.
            let mut requests = self.state.requests.lock().unwrap();
            if let Some(kept) = requests.get_mut(*slot).filter(|kept| kept.connection == self.number) {
                *kept = request.clone();
            }
        }
    }

    /// Reads the rest of the current request's body.
    pub fn body(&mut self) -> Result<Request, Fault> {
        loop {
            match self.advance() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(self.current.as_ref().expect("no head was read").request.clone()),
                Err(e) => {
                    self.remember();
                    return Err(e);
                }
            }
        }
    }

    /// Reads the next request whole.
    pub fn request(&mut self) -> Result<Request, Fault> {
        self.head()?;
        self.body()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
        self.wire.send(bytes.as_ref())
    }

    /// Sends a response with a `Content-Length`.
    pub fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Result<(), Fault> {
        let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        self.send([head.as_bytes(), body].concat())
    }

    /// Waits.
    pub fn pause(&mut self, span: Duration) {
        std::thread::sleep(span);
    }

    /// Ends the sending direction.
    pub fn finish(&mut self) {
        self.wire.stream().shutdown(Shutdown::Write).ok();
    }

    /// Has the connection reset when the script returns.
    pub fn reset(&mut self) {
        self.reset = true;
    }

    /// Stays silent until the peer is gone, at most for `limit`. Returns what came meanwhile.
    pub fn hold(&mut self, limit: Duration) -> Vec<u8> {
        self.wire.set_timeout(limit);
        let mut came = Vec::new();
        while let Ok(1..) = self.wire.fill() {
            came.extend_from_slice(self.wire.pending());
            let count = self.wire.pending().len();
            self.wire.consume(count);
        }
        came
    }
}

/// A server on a thread per connection, stopped when dropped.
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    listener: Arc<TcpListener>,
    state: Arc<State>,
}

impl Backend {
    /// Runs `script` on every connection, on a free port.
    pub fn start(script: impl Fn(&mut Conn) -> Result<(), Fault> + Send + Sync + 'static) -> Backend {
        Backend::start_at(crate::ports::reserve(), script)
    }

    /// Runs `script` on every connection at `address`.
    pub fn start_at(
        address: SocketAddr,
        script: impl Fn(&mut Conn) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Backend {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap_or_else(|e| panic!("backend at {address}: {e}"));
        socket.listen(4096).unwrap();
        let listener = Arc::new(TcpListener::from(socket));
        let state = Arc::new(State::default());
        let script: Arc<Script> = Arc::new(script);
        let (accepting, shared) = (Arc::clone(&listener), Arc::clone(&state));
        let run = move || {
            while let Ok((stream, _)) = accepting.accept() {
                if shared.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (script, state) = (Arc::clone(&script), Arc::clone(&shared));
                let number = state.connections.fetch_add(1, Ordering::SeqCst) + 1;
                let serve = move || serve(stream, number, state, &*script);
                std::thread::Builder::new().stack_size(256 * 1024).spawn(serve).unwrap();
            }
        };
        std::thread::spawn(run);
        Backend { address, listener, state }
    }

    /// Reads each request whole, then runs `script` on it, for as long as the connection lives.
    pub fn each(
        script: impl Fn(&Request, &mut Conn) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Backend {
        Backend::start(move |conn| {
            loop {
                let request = conn.request()?;
                script(&request, conn)?;
            }
        })
    }

    /// Answers each request with the same bytes.
    pub fn reply(bytes: impl Into<Vec<u8>>) -> Backend {
        let bytes = bytes.into();
        Backend::each(move |_, conn| conn.send(&bytes))
    }

    /// Sends back whatever comes, without any protocol.
    pub fn tcp_echo() -> Backend {
        Backend::start(|conn| {
            loop {
                if conn.wire.fill()? == 0 {
                    return Ok(());
                }
                let bytes = conn.wire.pending().to_vec();
                conn.wire.consume(bytes.len());
                conn.send(bytes)?;
            }
        })
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
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The last of the remembered requests.
    #[track_caller]
    pub fn last_request(&self) -> Request {
        self.state.requests.lock().unwrap().last().expect("no request arrived").clone()
    }

    /// The bytes that arrived on each connection, up to half a MiB each.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.state.taps.lock().unwrap().iter().map(|tap| tap.lock().unwrap().clone()).collect()
    }

    /// Whether `bytes` arrived on any connection.
    pub fn saw(&self, bytes: &[u8]) -> bool {
        self.received().iter().any(|tap| tap.windows(bytes.len()).any(|w| w == bytes))
    }

    /// What was not well-formed.
    pub fn faults(&self) -> Vec<String> {
        self.state.faults.lock().unwrap().clone()
    }

    /// Panics when anything arrived that is not a well-formed request.
    #[track_caller]
    pub fn assert_clean(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "the backend received what is not well-formed: {faults:#?}");
    }

    /// Waits until `count` request heads arrived.
    #[track_caller]
    pub fn wait_requests(&self, count: usize) {
        crate::eventually(&format!("{count} requests at the backend"), seconds(10), || {
            self.request_count() >= count
        });
    }

    /// Forgets what arrived so far.
    pub fn forget(&self) {
        self.state.requests.lock().unwrap().clear();
        self.state.taps.lock().unwrap().retain(|tap| Arc::strong_count(tap) > 1);
        for tap in self.state.taps.lock().unwrap().iter() {
            tap.lock().unwrap().clear();
        }
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

    /// Stops listening and ends every open connection.
    pub fn stop(&self) {
        self.refuse();
        self.cut();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An address where connecting neither succeeds nor fails: the queue of a listener that never accepts is full.
pub struct BlackHole {
    /// The address.
    pub address: SocketAddr,
    _listener: Socket,
    _queued: Vec<Socket>,
}

impl BlackHole {
    /// Fills the queue of a fresh listener.
    pub fn start() -> BlackHole {
        let address = crate::ports::reserve();
        let tcp = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = tcp();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let queued = (0..4).map(|_| {
            let socket = tcp();
            socket.set_nonblocking(true).unwrap();
            socket.connect(&address.into()).ok();
            socket
        });
        BlackHole { address, _queued: queued.collect(), _listener: listener }
    }
}

fn serve(stream: TcpStream, number: usize, state: Arc<State>, script: &Script) {
    if let Ok(clone) = stream.try_clone() {
        state.live.lock().unwrap().insert(number, clone);
    }
    let mut wire = Wire::new(stream);
    // A pooled connection may lie idle for the length of a test.
    wire.set_timeout(seconds(120));
    let tap = Arc::new(Mutex::new(Vec::new()));
    state.taps.lock().unwrap().push(Arc::clone(&tap));
    wire.set_tap(tap);
    let shared = Arc::clone(&state);
    let mut conn = Conn { wire, number, served: 0, state, current: None, reset: false };
    let outcome = script(&mut conn);
    if let Err(Fault::Malformed(why)) = &outcome {
        shared.faults.lock().unwrap().push(format!("connection {number}: {why}"));
    }
    if conn.reset {
        SockRef::from(conn.wire.stream()).set_linger(Some(Duration::ZERO)).ok();
    } else if outcome.is_ok() {
        // Unread bytes would turn the end into a reset.
        conn.finish();
        conn.hold(ms(2000));
    }
    shared.live.lock().unwrap().remove(&number);
}
