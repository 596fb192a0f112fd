//! A connection without a socket, at either end.

mod floods;
mod useful;

use lb_config::UnderscorePolicy;
use lb_core::head::{BodyLength, RequestHead, ResponseHead};
use lb_core::ledger::{Ledger, Limits as Budgets};

use super::*;
use crate::h1::request::HeadLimits;
use crate::h2::frame::{BlockLimits, FrameReader, Piece};
use crate::section::request::RequestLimits;

const STREAMS: u32 = 64;
const HEAD: HeadLimits = HeadLimits {
    bytes: 65_536,
    fields: 128,
    target: 8192,
    underscore: UnderscorePolicy::Reject,
    strict_te: false,
    websocket: true,
};
const BLOCK: BlockLimits = BlockLimits { bytes: 70_000, frames: 16 };

/// `:status: 200`, and a request for `/` of `a`, by the static table.
const OK: &[u8] = &[0x88];
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 0x01, b'a'];
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x01, 0x01, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field that is in no table.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

fn headers(stream: u32, block: &[u8], end: bool) -> Vec<u8> {
    frame(1, 4 | u8::from(end), stream, block)
}

fn data(stream: u32, content: usize, end: bool) -> Vec<u8> {
    frame(0, u8::from(end), stream, &vec![7; content])
}

fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &8u32.to_be_bytes())
}

fn update(stream: u32, increment: u32) -> Vec<u8> {
    frame(8, 0, stream, &increment.to_be_bytes())
}

fn ping() -> Vec<u8> {
    frame(6, 0, 0, b"whatever")
}

/// One end, and the peer's sight of it.
struct Rig {
    mux: Mux,
    reader: FrameReader,
    /// Reads what the mux writes.
    answers: FrameReader,
    preface: bool,
    now: Instant,
    /// Streams of requests that were taken, in order.
    keys: Vec<(u32, Key)>,
    next: u32,
}

impl Rig {
    fn new(role: Role) -> Self {
        let now = Instant::now();
        let limits = Limits {
            max_concurrent_streams: STREAMS,
            max_header_list_size: 65_536,
            initial_stream_window: 65_535,
            initial_connection_window: 1 << 20,
            max_send_buffer: 65_536,
            extended_connect: false,
        };
        let budgets = Budgets { streams: STREAMS, peer_resets: 100, local_resets: 100, percent: 100 };
        let ledger = match role {
            Role::Server => Ledger::of_client(budgets, now.into_std()),
            Role::Client => Ledger::of_backend(100, now.into_std()),
        };
        let mux = Mux::new(role, limits, ledger, Rc::new(WorkerIo::new(0, 1)));
        let mut rig = Self {
            mux,
            reader: FrameReader::new(BLOCK),
            answers: FrameReader::new(BLOCK),
            preface: role == Role::Client,
            now,
            keys: Vec::new(),
            next: 1,
        };
        // Windows that are never in the way: a peer that holds back what it may send is no matter of budgets.
        let wide = [&4u16.to_be_bytes()[..], &0x3fff_ffffu32.to_be_bytes()].concat();
        rig.feed(&[frame(4, 0, 0, &wide), frame(4, 1, 0, &[]), update(0, 0x3fff_ffff)].concat()).unwrap();
        rig.read();
        rig
    }

    /// The mux receives bytes.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        let mut input = bytes;
        loop {
            let mut head = RequestHead::default();
            let piece = match self.reader.next(&mut input) {
                Ok(None) => return Ok(()),
                Ok(Some(piece)) => Ok(piece),
                Err(error) => Err(error),
            };
            let limits = RequestLimits { head: &HEAD, list: 65_536, extended_connect: false };
            let received = Received { limits, head: &mut head };
            let id = match &piece {
                Ok(Piece::Headers { stream, .. }) => *stream,
                _ => 0,
            };
            match self.mux.receive(piece, Some(received), self.now)? {
                Happening::Request(key) | Happening::Refused(key, _) => self.keys.push((id, key)),
                Happening::Nothing => {}
            }
        }
    }

    /// The peer reads all that was written: the content of each DATA frame, with its stream.
    fn read(&mut self) -> Vec<(u32, u32)> {
        self.mux.send_queued();
        let output = self.mux.output().to_vec();
        self.mux.wrote(output.len());
        let mut input = &output[..];
        if std::mem::take(&mut self.preface) {
            input = &input[24..];
        }
        let mut contents = Vec::new();
        while let Some(piece) = self.answers.next(&mut input).unwrap() {
            if let Piece::Data { stream, frame_bytes, end_of_frame: true, .. } = piece {
                contents.push((stream, frame_bytes));
            }
        }
        contents
    }

    /// A request of the peer's, of which a body may follow.
    fn request(&mut self, body: bool) -> Result<(u32, Key), FrameError> {
        let id = self.next;
        self.next += 2;
        self.feed(&headers(id, if body { POST } else { GET }, !body))?;
        Ok(*self.keys.last().unwrap())
    }

    fn answer(&mut self, key: Key) {
        let head = ResponseHead { status: 200, body: BodyLength::Unknown, ..ResponseHead::default() };
        self.mux.send_response(key, &head, false);
    }

    /// The exchange behind a stream takes what has come for it.
    fn take(&mut self, key: Key) {
        let Some(stream) = self.mux.stream(key) else { return };
        let taken = u32::try_from(std::mem::take(&mut stream.inbox).len()).unwrap();
        self.mux.release(key, taken);
    }
}
