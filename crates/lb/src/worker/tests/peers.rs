//! Clients that judge every byte of an answer, and a backend that judges every byte of a request. Each request has bytes of its own, so
//! that those of another are wrong.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use testkit::client::{Client, chunk, request};
use testkit::wire::{Body, Fault, Framing, Wire};

use super::PATIENCE;

const SMALL: usize = 300;
const LARGE: usize = 100 << 10;

/// Bytes that the kernel takes in for the backend before it reads, and bytes of a segment. The gateway's output waits with so little.
const ROOM: usize = 4096;
const SEGMENT: u32 = 536;

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// With a body of 100 KiB.
    pub(super) uploads: bool,
    /// Answered with a body of 100 KiB.
    pub(super) is_large: bool,
    /// That body comes in chunks, and the request's with a length; or the other way round.
    pub(super) is_chunked: bool,
    /// The backend closes its connection after its answer.
    pub(super) closes: bool,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Whole,
    Refused(u16),
    Cut,
}

/// The `len` bytes of a request's body, or of its answer.
fn content(id: u64, is_answer: bool, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    testkit::pattern::fill(id * 7919 + if is_answer { 500_000 } else { 0 }, &mut bytes);
    bytes
}

/// Asks for everything in turn, on one connection for as long as that lives.
pub(super) fn play(gateway: SocketAddr, conversation: &[Wanted]) -> Vec<Outcome> {
    let mut connected = None;
    let mut exchange = |wanted: &Wanted| {
        let mut client = connected.take().unwrap_or_else(|| {
            let client = Client::connect_narrow(gateway).unwrap();
            client.set_timeout(PATIENCE);
            client
        });
        let (outcome, goes_on) = ask(&mut client, *wanted);
        connected = goes_on.then_some(client);
        outcome
    };
    conversation.iter().map(&mut exchange).collect()
}

/// One request; and whether the connection is good for another.
fn ask(client: &mut Client, wanted: Wanted) -> (Outcome, bool) {
    static ID: AtomicU64 = AtomicU64::new(0);
    let id = ID.fetch_add(1, Ordering::Relaxed);
    let Wanted { uploads, is_large, is_chunked, closes } = wanted;
    let target = format!("/{id}/{is_large}/{is_chunked}/{closes}");
    let (method, body) = if uploads { ("POST", content(id, false, LARGE)) } else { ("GET", Vec::new()) };
    let bytes = if uploads && !is_chunked {
        let chunks: Vec<u8> = body.chunks(10_000).flat_map(chunk).chain(chunk(b"")).collect();
        [request(method, &target, &[("Transfer-Encoding", "chunked")], b""), chunks].concat()
    } else {
        request(method, &target, &[], &body)
    };
    // An answer may come before all of it has gone.
    let sent = client.send(bytes);
    let expected = content(id, true, if is_large { LARGE } else { SMALL });
    match answer(client, method, &expected) {
        Ok((200, closes)) => (Outcome::Whole, sent.is_ok() && !closes),
        Ok((status, closes)) => (Outcome::Refused(status), sent.is_ok() && !closes),
        Err(fault) if fault.is_gone() => (Outcome::Cut, false),
        Err(fault) => panic!("request {target}: {fault}"),
    }
}

/// Reads one answer; its status, and whether the connection ends after it.
fn answer(client: &mut Client, method: &str, expected: &[u8]) -> Result<(u16, bool), Fault> {
    let (_, head) = client.head(method)?;
    assert!(head.framing != Framing::Close, "whether all of this has come nobody can tell: {head:?}");
    assert!(matches!(head.status, 200 | 502..=504), "{head:?}");
    let (mut body, mut seen) = (Body::new(head.framing), 0);
    while let Some(piece) = body.next(&mut client.wire)? {
        if head.status == 200 {
            assert!(expected.get(seen..seen + piece.len()) == Some(piece), "wrong bytes after {seen}");
        }
        seen += piece.len();
    }
    assert!(head.status != 200 || seen == expected.len(), "{seen} bytes as if they were all: {head:?}");
    Ok((head.status, head.headers.lists("connection", "close")))
}

/// A backend, with a thread for each connection.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    complaints: Mutex<Vec<String>>,
    uploads: Mutex<HashSet<u64>>,
}

impl Backend {
    pub(super) fn start() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(ROOM).unwrap();
        socket.set_tcp_mss(SEGMENT).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(64).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let accepting = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.is_over.load(Ordering::SeqCst) {
                    break;
                }
                let (stream, shared) = (stream.unwrap(), Arc::clone(&accepting));
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// Panics if anything has come that no client has sent.
    #[track_caller]
    pub(super) fn assert_content(&self) {
        let complaints = self.shared.complaints.lock().unwrap();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let mut wire = Wire::new(stream);
        wire.set_timeout(PATIENCE);
        let fault = loop {
            match self.exchange(&mut wire) {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => break fault,
            }
        };
        if !fault.is_gone() {
            self.complain(fault.to_string());
        }
    }

    fn complain(&self, what: String) {
        self.complaints.lock().unwrap().push(what);
    }

    /// Serves one request; whether another may follow.
    fn exchange(&self, wire: &mut Wire) -> Result<bool, Fault> {
        let head = wire.request_head()?;
        let parts: Vec<&str> = head.target.split('/').skip(1).collect();
        let [id, is_large, is_chunked, closes] = parts[..] else {
            return Err(Fault::Malformed(head.target));
        };
        let id = id.parse().map_err(|_| Fault::Malformed(head.target.clone()))?;
        let (is_large, is_chunked, closes) = (is_large == "true", is_chunked == "true", closes == "true");
        let uploads = head.method == "POST";
        if uploads {
            // What has reached a backend may have been done there.
            if !self.uploads.lock().unwrap().insert(id) {
                self.complain(format!("request {id} has come twice"));
            }
            // Until the gateway has more than the kernel takes.
            std::thread::sleep(Duration::from_millis(1));
        }
        let expected = content(id, false, if uploads { LARGE } else { 0 });
        let (mut body, mut seen) = (Body::new(head.framing), 0);
        while let Some(piece) = body.next(wire)? {
            if expected.get(seen..seen + piece.len()) != Some(piece) {
                self.complain(format!("wrong bytes of request {id} after {seen}"));
            }
            seen += piece.len();
        }
        if seen != expected.len() {
            self.complain(format!("{seen} bytes of request {id} as if they were all"));
        }
        let bytes = content(id, true, if is_large { LARGE } else { SMALL });
        let connection = if closes { "close" } else { "keep-alive" };
        let framing = match is_chunked {
            true => "Transfer-Encoding: chunked".to_owned(),
            false => format!("Content-Length: {}", bytes.len()),
        };
        let head = format!("HTTP/1.1 200 OK\r\nConnection: {connection}\r\n{framing}\r\n\r\n");
        wire.send(head.as_bytes())?;
        if is_chunked {
            let chunks: Vec<u8> = bytes.chunks(10_000).flat_map(chunk).chain(chunk(b"")).collect();
            wire.send(&chunks)?;
        } else {
            wire.send(&bytes)?;
        }
        Ok(!closes)
    }
}
