//! A connection without a socket, at either end: any mix of useful traffic goes on at any speed, and any flood ends it.

use std::collections::VecDeque;

use lb_config::UnderscorePolicy;
use lb_core::head::{BodyLength, RequestHead, ResponseHead};
use lb_core::ledger::{Ledger, Limits as Budgets};
use proptest::prelude::*;

use super::*;
use crate::h1::request::HeadLimits;
use crate::h2::frame::{BlockLimits, FrameReader, Piece};
use crate::h2::request::RequestLimits;

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

/// A step of a client that is good, and of the exchanges behind its streams.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A request begins, with priorities.
    Request {
        body: bool,
        priorities: u8,
    },
    /// One is answered.
    Answer(usize),
    /// A message of a response; the client answers it with window updates and a PING.
    Down {
        of: usize,
        content: usize,
        updates: bool,
        ping: bool,
    },
    /// A message of an upload.
    Up {
        of: usize,
        content: usize,
        empty: bool,
    },
    /// A response ends, and its exchange with it.
    Finish(usize),
    /// The client gives a request up whose answer has begun.
    Cancel(usize),
    /// It gives up all that it has, answered or not.
    CancelAll,
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..STREAMS as usize;
    prop_oneof![
        4 => (any::<bool>(), 0u8..8).prop_map(|(body, priorities)| Step::Request { body, priorities }),
        3 => at().prop_map(Step::Answer),
        6 => (at(), prop_oneof![5usize..60, 5usize..9000], any::<bool>(), any::<bool>())
            .prop_map(|(of, content, updates, ping)| Step::Down { of, content, updates, ping }),
        6 => (at(), prop_oneof![5usize..60, 5usize..9000], any::<bool>())
            .prop_map(|(of, content, empty)| Step::Up { of, content, empty }),
        2 => at().prop_map(Step::Finish),
        2 => at().prop_map(Step::Cancel),
        1 => (0u64..20).prop_map(Step::Pause),
    ]
}

/// A stream, as its client knows it.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: u32,
    key: Key,
    uploads: bool,
    answered: bool,
}

fn take_step(rig: &mut Rig, open: &mut VecDeque<Open>, step: Step) -> Result<(), FrameError> {
    let at = |of: usize, open: &VecDeque<Open>| of.checked_rem(open.len());
    match step {
        Step::Request { body, priorities } => {
            if open.len() + 1 >= STREAMS as usize {
                return Ok(());
            }
            let (id, key) = rig.request(body)?;
            open.push_back(Open { id, key, uploads: body, answered: false });
            rig.feed(&frame(2, 0, id, &[0, 0, 0, 0, 1]).repeat(usize::from(priorities)))?;
        }
        Step::Answer(of) => {
            let Some(stream) = at(of, open).and_then(|at| open.get_mut(at)) else { return Ok(()) };
            stream.answered = true;
            rig.answer(stream.key);
        }
        Step::Down { of, content, updates, ping: asks } => {
            let Some(stream) = at(of, open).and_then(|at| open.get(at)).filter(|stream| stream.answered)
            else {
                return Ok(());
            };
            rig.mux.send_data(stream.key, &vec![1; content]);
            for (id, content) in rig.read() {
                if updates {
                    rig.feed(&[update(0, content), update(id, content)].concat())?;
                }
                if asks {
                    rig.feed(&ping())?;
                }
            }
        }
        Step::Up { of, content, empty } => {
            let Some(stream) = at(of, open).and_then(|at| open.get(at)).filter(|stream| stream.uploads)
            else {
                return Ok(());
            };
            let Open { id, key, .. } = *stream;
            rig.feed(&data(id, content, false))?;
            if empty {
                rig.feed(&data(id, 0, false))?;
            }
            rig.take(key);
        }
        Step::Finish(of) => {
            let Some(at) = at(of, open) else { return Ok(()) };
            let Some(stream) = open.remove(at) else { return Ok(()) };
            if !stream.answered {
                rig.answer(stream.key);
            }
            if stream.uploads {
                rig.feed(&data(stream.id, 0, true))?;
            }
            rig.mux.send_end(stream.key);
            rig.mux.leave(stream.key, ErrorCode::NO_ERROR);
        }
        Step::Cancel(of) => {
            let Some(at) = at(of, open).filter(|at| open.get(*at).is_some_and(|stream| stream.answered))
            else {
                return Ok(());
            };
            let Some(stream) = open.remove(at) else { return Ok(()) };
            rig.feed(&reset(stream.id))?;
            rig.mux.leave(stream.key, ErrorCode::CANCEL);
        }
        Step::CancelAll => {
            for stream in open.drain(..) {
                rig.feed(&reset(stream.id))?;
                rig.mux.leave(stream.key, ErrorCode::CANCEL);
            }
        }
        Step::Pause(ms) => rig.now += std::time::Duration::from_millis(ms),
    }
    rig.read();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a client does with what it asked for, and however fast: it is served.
    #[test]
    fn a_client_that_does_something_useful_is_never_ended(
        steps in prop::collection::vec(step(), 5..40),
        repeats in 1usize..60,
    ) {
        let mut rig = Rig::new(Role::Server);
        let mut open = VecDeque::new();
        for step in steps.iter().cycle().take(steps.len() * repeats) {
            let done = take_step(&mut rig, &mut open, *step);
            prop_assert!(done.is_ok(), "{:?}: {:?}", step, done);
        }
        let all = take_step(&mut rig, &mut open, Step::CancelAll);
        prop_assert!(all.is_ok(), "{:?}", all);
        prop_assert!(rig.mux.goaway_sent.is_none() && rig.mux.streams.is_empty());
    }
}

/// Repeats what `unit` makes of its number, half a microsecond apart; how often that was borne.
fn flood(
    rig: &mut Rig,
    mut unit: impl FnMut(&mut Rig, u32) -> Result<Vec<u8>, FrameError>,
) -> Result<u32, FrameError> {
    for n in 0..1_000_000 {
        rig.now += std::time::Duration::from_nanos(500);
        let bytes = unit(rig, n)?;
        rig.feed(&bytes)?;
        if rig.mux.output().len() > 100_000 {
            rig.read();
        }
    }
    Ok(1_000_000)
}

#[track_caller]
fn ends(case: &str, budget: &str, ended: Result<u32, FrameError>) {
    let error = ended.expect_err(case);
    assert_eq!((error.code, error.what), (ErrorCode::ENHANCE_YOUR_CALM, budget), "{case}");
}

#[test]
fn any_flood_of_a_client_ends() {
    type Unit = fn(u32) -> Vec<u8>;
    // On stream 1 an upload is under way, stream 3 has ended.
    let plain: [(&str, &str, Unit); 17] = [
        ("h2_02 window updates of zero", "local_reset", |_| update(1, 0)),
        ("h2_11 empty DATA after the end", "unwanted", |_| data(3, 0, false)),
        ("h2_11 bytes after the end", "tiny_data", |_| data(3, 1, false)),
        ("h2_05 empty DATA", "empty_data", |_| data(1, 0, false)),
        ("h2_05 nothing but padding", "empty_data", |_| frame(0, 8, 1, &[3, 0, 0, 0])),
        ("h2_05 bytes, one by one", "tiny_data", |_| data(1, 1, false)),
        ("h2_05 bytes, four by four", "tiny_data", |_| data(1, 4, false)),
        ("h2_06 SETTINGS", "settings", |_| frame(4, 0, 0, &[])),
        ("h2_06 answers to SETTINGS", "unwanted", |_| frame(4, 1, 0, &[])),
        ("h2_06 PING", "ping", |_| ping()),
        ("h2_06 answers to PING", "unwanted", |_| frame(6, 1, 0, b"whatever")),
        ("h2_06 PRIORITY", "priority", |_| frame(2, 0, 5, &[0, 0, 0, 0, 1])),
        ("h2_06 unknown frames", "unknown", |_| frame(0xbb, 0, 0, b"1")),
        ("h2_06 WINDOW_UPDATE", "window_update", |_| update(1, 1)),
        ("h2_06 GOAWAY", "unwanted", |_| frame(7, 0, 0, &[0; 8])),
        ("h2_11 resets of what has ended", "unwanted", |_| reset(3)),
        ("h2_11 PING, beside bytes", "tiny_data", |n| if n % 3 == 0 { ping() } else { data(1, 1, false) }),
    ];
    for (case, budget, unit) in plain {
        let mut rig = Rig::new(Role::Server);
        let (_, key) = rig.request(true).unwrap();
        let (_, done) = rig.request(false).unwrap();
        rig.answer(done);
        rig.mux.send_end(done);
        rig.mux.leave(done, ErrorCode::NO_ERROR);
        let ended = flood(&mut rig, |rig, n| {
            rig.take(key);
            Ok(unit(n))
        });
        ends(case, budget, ended);
    }

    let mut rig = Rig::new(Role::Server);
    let ended = flood(&mut rig, |rig, _| {
        let (id, key) = rig.request(false)?;
        rig.feed(&reset(id))?;
        rig.mux.leave(key, ErrorCode::CANCEL);
        Ok(Vec::new())
    });
    ends("h2_01 requests given up at once", "peer_reset", ended);

    type Frames = fn(u32) -> Vec<u8>;
    let provocations: [(&str, Frames); 4] = [
        ("h2_02 a window update of zero", |id| update(id, 0)),
        ("h2_02 a priority on itself", |id| frame(2, 0, id, &[&id.to_be_bytes()[..], &[1]].concat())),
        ("h2_02 DATA after the end", |id| data(id, 9, false)),
        ("h2_02 HEADERS after the end", |id| headers(id, OK, true)),
    ];
    for (case, provoke) in provocations {
        let mut rig = Rig::new(Role::Server);
        let ended = flood(&mut rig, |rig, _| {
            let id = rig.next;
            rig.next += 2;
            let known = rig.keys.len();
            rig.feed(&[headers(id, GET, true), provoke(id)].concat())?;
            if let Some((_, key)) = rig.keys.get(known) {
                rig.mux.leave(*key, ErrorCode::CANCEL);
            }
            Ok(Vec::new())
        });
        ends(case, "local_reset", ended);
    }

    // A window of a byte is opened again and again: what it lets pass does not pay for it.
    let mut rig = Rig::new(Role::Server);
    let shut = [&4u16.to_be_bytes()[..], &0u32.to_be_bytes()].concat();
    rig.feed(&frame(4, 0, 0, &shut)).unwrap();
    let (id, key) = rig.request(false).unwrap();
    rig.answer(key);
    rig.mux.eager = true;
    rig.mux.send_data(key, &[1; 600_000]);
    let ended = flood(&mut rig, |rig, _| {
        rig.read();
        Ok([update(id, 1), update(0, 1)].concat())
    });
    ends("h2_04 windows of a byte", "window_update", ended);
}

#[test]
fn h2_13_any_flood_of_a_backend_ends_and_content_is_none() {
    type Unit = fn(u32) -> Vec<u8>;
    // A response is under way on stream 1; stream 3 was given up.
    let begin = || {
        let mut rig = Rig::new(Role::Client);
        let key = rig.mux.open();
        let gone = rig.mux.open();
        rig.mux.send_request(key, &RequestHead::default(), b"http", true);
        rig.mux.send_request(gone, &RequestHead::default(), b"http", true);
        rig.feed(&headers(1, OK, false)).unwrap();
        rig.mux.leave(gone, ErrorCode::CANCEL);
        (rig, key)
    };
    let floods: [(&str, &str, Unit); 12] = [
        ("empty DATA", "unwanted", |_| data(1, 0, false)),
        ("SETTINGS", "settings", |_| frame(4, 0, 0, &[])),
        ("PING", "ping", |_| ping()),
        ("PRIORITY", "priority", |_| frame(2, 0, 1, &[0, 0, 0, 0, 3])),
        ("WINDOW_UPDATE", "window_update", |_| update(1, 1)),
        ("unknown frames", "unknown", |_| frame(0xbb, 0, 0, &[])),
        ("GOAWAY", "unwanted", |_| frame(7, 0, 0, &[0, 0, 0, 9, 0, 0, 0, 0])),
        ("heads for what was given up", "unwanted", |_| headers(3, OK, false)),
        ("resets of what was given up", "unwanted", |_| reset(3)),
        ("bytes for what was given up", "tiny_data", |_| data(3, 1, false)),
        ("interim heads", "unwanted", |_| headers(1, &[0x08, 3, b'1', b'0', b'3'], false)),
        ("errors", "local_reset", |_| update(3, 0)),
    ];
    for (case, budget, unit) in floods {
        let (mut rig, key) = begin();
        let ended = flood(&mut rig, |rig, n| {
            rig.take(key);
            Ok(unit(n))
        });
        ends(case, budget, ended);
    }
    for content in [1, 10] {
        let (mut rig, key) = begin();
        let borne = flood(&mut rig, |rig, _| {
            rig.take(key);
            rig.read();
            Ok(data(1, content, false))
        });
        assert_eq!(borne, Ok(1_000_000), "parts of {content} bytes");
    }
    // A backend that answers each part of an upload with a PING and two updates, or each byte of it with two.
    let mut rig = Rig::new(Role::Client);
    let key = rig.mux.open();
    rig.mux.send_request(key, &RequestHead::default(), b"http", false);
    let borne = flood(&mut rig, |rig, n| {
        rig.mux.send_data(key, &[1; 5]);
        rig.read();
        let updates = [update(0, 1), update(1, 1)].concat();
        Ok(if n % 2 == 0 { [ping(), updates].concat() } else { updates.repeat(5) })
    });
    assert_eq!(borne, Ok(1_000_000));
}

/// A backend whose answers are broken one after the other gets no more requests here, and the others on the connection are finished.
#[test]
fn h2_13_faults_that_clients_provoke_retire_a_connection_and_end_nobodys_call() {
    let mut rig = Rig::new(Role::Client);
    let quiet = rig.mux.open();
    rig.mux.send_request(quiet, &RequestHead::default(), b"http", true);
    let mut broken = 0;
    while rig.mux.takes_streams() {
        let key = rig.mux.open();
        let id = rig.mux.stream(key).unwrap().id;
        rig.feed(&headers(id, &[0x80 | 8, 0x0f, 0x0d, 1, b'x'], false)).unwrap();
        rig.mux.leave(key, ErrorCode::CANCEL);
        // Each request makes up for one fault: only what comes on top of it counts.
        rig.feed(&update(id, 0)).unwrap();
        broken += 1;
        assert!(broken < 5_000);
    }
    assert!(broken >= 900 && rig.mux.goaway_sent.is_some(), "{broken}");
    rig.feed(&[headers(1, OK, false), data(1, 9, true)].concat()).unwrap();
    let stream = rig.mux.stream(quiet).unwrap();
    assert!(stream.reset.is_none() && stream.received_end);
}
