//! Entry points for fuzzing: one per parser, each taking arbitrary bytes and checking what must always hold.

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use lb_config::UnderscorePolicy;
use lb_core::head::{BodyLength, Fields, RequestHead, ResponseHead};

use crate::h1::body::BodyReader;
use crate::h1::request::{self, HeadLimits};
use crate::h1::response;
use crate::h2::frame::{BlockLimits, FrameReader, Piece, Scope};
use crate::h2::hpack::{Decoder, Encoder, Indexing};
use crate::h3::qpack::StaticEncoder;
use crate::h3::{
    self, H3Error, H3Scope, MessagePiece, MessageReader, PeerStreams, QpackDecoder, RequestError,
    RequestLimits, UniStream,
};
use crate::message::{Gone, Sink};
use crate::section::encode::FieldEncoder;
use crate::websocket::{self, Inspector, Role};

/// Limits that let small inputs reach every branch.
const LIMITS: HeadLimits = HeadLimits {
    bytes: 4096,
    fields: 32,
    target: 1024,
    underscore: UnderscorePolicy::Allow,
    strict_te: false,
    websocket: true,
};

/// A request head: parsing never panics, a head that is accepted encodes to a head that is accepted again and means the same.
pub fn request_head(input: &[u8]) {
    let mut head = RequestHead::default();
    let Ok(Some(parsed)) = request::parse(input, &LIMITS, &mut head) else { return };
    assert!(parsed.consumed <= input.len());
    // Asked of the bytes, not of the parser: what counts is what another parser would see.
    assert!(every_lf_follows_cr(input.get(..parsed.consumed).unwrap_or(input)));
    let mut wire = Vec::new();
    head.fields.drop_hop_by_hop();
    crate::h1::encode_request(&head, &mut wire);
    assert!(every_lf_follows_cr(&wire));
    if head.authority().is_empty() {
        return;
    }
    let mut again = RequestHead::default();
    let generous = HeadLimits { bytes: 8192, fields: 64, ..LIMITS };
    // An absolute target without a Host field is the one head that needs a field added before it is forwarded.
    if head.fields.value_of(b"host").is_some() {
        let reparsed = request::parse(&wire, &generous, &mut again);
        assert!(matches!(reparsed, Ok(Some(_))), "{reparsed:?}: {:?}", String::from_utf8_lossy(&wire));
        // Some methods without content are sent on with a length of 0 (RFC 9110 section 8.6), which means the same.
        let length = |body| if body == BodyLength::None { BodyLength::Known(0) } else { body };
        assert_eq!(
            (head.method(), head.target(), head.authority(), length(head.body)),
            (again.method(), again.target(), again.authority(), length(again.body))
        );
    }
}

fn every_lf_follows_cr(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(at, byte)| {
        *byte != b'\n' || at.checked_sub(1).and_then(|before| bytes.get(before)) == Some(&b'\r')
    })
}

/// A response head: parsing never panics.
pub fn response_head(input: &[u8]) {
    for (to_head, upgrading) in [(false, false), (true, false), (false, true)] {
        let mut head = ResponseHead::default();
        if let Ok(Some(parsed)) = response::parse(input, LIMITS.bytes, to_head, upgrading, &mut head) {
            assert!(parsed.consumed <= input.len() && (100..=599).contains(&head.status));
        }
    }
}

/// A chunked body: the result does not depend on how the input is cut, and no byte appears that was not sent.
pub fn chunked_body(input: &[u8]) {
    let whole = decode(input, usize::MAX);
    for step in [1, 3, 7] {
        assert_eq!(whole, decode(input, step));
    }
}

/// Blocks of fields, each behind a byte that says how long it is: decoding never panics, hands out no more fields than the block has
/// bytes, and what it hands out comes back the same when it is encoded and decoded again.
pub fn hpack(input: &[u8]) {
    // What the table holds at most; a literal has eight bytes for each five of its block at most, which is no more here.
    const LONGEST: usize = 4096;
    let (mut decoder, mut encoder, mut again) = (Decoder::new(4096), Encoder::new(), Decoder::new(4096));
    let mut rest = input;
    while let Some((length, behind)) = rest.split_first() {
        let (block, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let mut fields = Vec::new();
        let result = decoder.decode(block, &mut |name, value, never| {
            fields.push((name.to_vec(), value.to_vec(), never));
        });
        assert!(fields.len() <= block.len());
        assert!(fields.iter().all(|(name, value, _)| name.len() <= LONGEST && value.len() <= LONGEST));
        let mut wire = Vec::new();
        encoder.set_max_table_size(u32::from(*length) * 32);
        encoder.begin(&mut wire);
        for (name, value, never) in &fields {
            encoder.field(name, value, if *never { Indexing::Never } else { Indexing::Yes }, &mut wire);
        }
        let mut back = Vec::new();
        let decoded = again.decode(&wire, &mut |name, value, never| {
            back.push((name.to_vec(), value.to_vec(), never));
        });
        assert_eq!((decoded, back), (Ok(()), fields));
        if result.is_err() {
            return;
        }
    }
}

/// Frames: reading never panics, keeps no more than a frame, and does not depend on how the input is cut.
pub fn frames(input: &[u8]) {
    let whole = read_frames(input, usize::MAX);
    for step in [1, 3, 7] {
        assert_eq!(whole, read_frames(input, step));
    }
}

/// What was read, with the parts of a DATA frame joined.
fn read_frames(input: &[u8], step: usize) -> Vec<String> {
    let mut reader = FrameReader::new(BlockLimits { bytes: 2048, frames: 4 });
    let (mut seen, mut data, mut flow) = (Vec::new(), Vec::new(), 0u32);
    for mut part in input.chunks(step.clamp(1, input.len().max(1))) {
        loop {
            match reader.next(&mut part) {
                Ok(None) => break,
                Ok(Some(Piece::Data { stream, bytes, flow_len, frame_bytes, end_of_frame, end_stream })) => {
                    data.extend_from_slice(bytes);
                    flow = flow.saturating_add(flow_len);
                    if end_of_frame {
                        assert_eq!(u32::try_from(data.len()), Ok(frame_bytes));
                        seen.push(format!("{stream} {data:?} {flow} {end_stream}"));
                        data.clear();
                        flow = 0;
                    }
                }
                Ok(Some(piece)) => seen.push(format!("{piece:?}")),
                Err(error) => {
                    seen.push(format!("{error:?}"));
                    if error.scope == Scope::Connection {
                        return seen;
                    }
                }
            }
        }
        assert!(part.is_empty());
    }
    seen
}

/// The frames of a request stream, with the heads and trailers in them: reading never panics, does not depend on how the input is cut, and
/// a request that is accepted comes back when it is encoded and decoded again. The first byte chooses the side that reads.
pub fn h3_request_stream(input: &[u8]) {
    let Some((side, input)) = input.split_first() else { return };
    let whole = read_messages(*side, input, usize::MAX);
    for step in [1, 3, 7] {
        assert_eq!(whole, read_messages(*side, input, step));
    }
}

/// What was read, with the parts of a DATA frame joined.
fn read_messages(side: u8, input: &[u8], step: usize) -> Vec<String> {
    const MOST: u32 = 2048;
    let of_client = side & 1 == 0;
    let mut reader = if of_client { MessageReader::requests(MOST) } else { MessageReader::responses(MOST) };
    let mut qpack = QpackDecoder::new();
    let (mut seen, mut data) = (Vec::new(), Vec::new());
    for mut part in input.chunks(step.clamp(1, input.len().max(1))) {
        loop {
            let piece = match reader.next(&mut part) {
                Ok(None) => break,
                Ok(Some(piece)) => piece,
                Err(error) => {
                    seen.push(format!("{error:?}"));
                    return seen;
                }
            };
            match piece {
                MessagePiece::Data { bytes, frame } => {
                    data.extend_from_slice(bytes);
                    if let Some(length) = frame {
                        assert_eq!(u32::try_from(data.len()), Ok(length));
                        seen.push(format!("{data:?}"));
                        data.clear();
                    }
                }
                MessagePiece::Head(section) if of_client => {
                    assert!(section.len() <= MOST as usize);
                    let (head, content) = read_request(&mut qpack, section);
                    seen.push(format!("{:?} {content:?}", head.fields));
                    reader.expect_content(content.unwrap_or_default());
                    if !head.upgrade().is_empty() {
                        reader.expect_tunnel();
                    }
                }
                MessagePiece::Head(section) => {
                    let mut head = ResponseHead::default();
                    let content = h3::decode_response(&mut qpack, section, false, false, &mut head, 4096);
                    seen.push(format!("{head:?} {content:?}"));
                    if head.is_interim() {
                        reader.expect_head();
                    } else {
                        reader.expect_content(content.unwrap_or_default());
                    }
                }
                MessagePiece::Trailers(section) => {
                    seen.push(format!("{:?}", h3::decode_trailers(&mut qpack, section)));
                }
                other => seen.push(format!("{other:?}")),
            }
        }
        assert!(part.is_empty());
    }
    seen.push(format!("{:?}", reader.finish()));
    seen
}

fn read_request(
    qpack: &mut QpackDecoder,
    section: &[u8],
) -> (RequestHead, Result<Option<u64>, RequestError>) {
    let limits = RequestLimits { head: &LIMITS, list: 4096, extended_connect: true };
    let mut head = RequestHead::default();
    let content = h3::decode_request(qpack, section, false, &mut head, limits);
    if content.is_ok() {
        let mut wire = Vec::new();
        h3::encode_request(&head, b"https", &mut wire);
        let (mut reader, mut rest) = (MessageReader::requests(u32::MAX), wire.as_slice());
        let mut again = RequestHead::default();
        // The field that says that trailers are taken may be one more, as may its bytes be.
        let head_limits = HeadLimits { fields: LIMITS.fields.saturating_add(1), ..LIMITS };
        let limits = RequestLimits { head: &head_limits, list: 8192, extended_connect: true };
        head.fields.drop_hop_by_hop();
        let piece = reader.next(&mut rest);
        assert!(matches!(piece, Ok(Some(MessagePiece::Head(_)))), "{piece:?}");
        if let Ok(Some(MessagePiece::Head(section))) = piece {
            assert_eq!(h3::decode_request(qpack, section, false, &mut again, limits), content);
        }
        assert_eq!(
            (head.method(), head.target(), head.authority(), head.upgrade(), head.body),
            (again.method(), again.target(), again.authority(), again.upgrade(), again.body)
        );
    }
    (head, content)
}

/// The unidirectional streams of a peer, each behind a byte that says how long its piece is and one that says which stream it is of: reading
/// never panics, and does not depend on how the input is cut. The first byte chooses the side that reads.
pub fn h3_control_stream(input: &[u8]) {
    let Some((side, input)) = input.split_first() else { return };
    let whole = read_streams(*side, input, usize::MAX);
    for step in [1, 3, 7] {
        assert_eq!(whole, read_streams(*side, input, step));
    }
}

fn read_streams(side: u8, input: &[u8], step: usize) -> Vec<String> {
    let mut peer = if side & 1 == 0 { PeerStreams::server() } else { PeerStreams::client() };
    let mut streams: [UniStream; 4] = std::array::from_fn(|_| UniStream::new());
    let (mut seen, mut rest) = (Vec::new(), input);
    while let [length, which, behind @ ..] = rest {
        let (piece, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let Some(stream) = streams.get_mut(usize::from(*which & 3)) else { return seen };
        for mut part in piece.chunks(step.clamp(1, piece.len().max(1))) {
            loop {
                match peer.receive(stream, &mut part) {
                    Ok(None) => break,
                    Ok(Some(event)) => seen.push(format!("{event:?}")),
                    Err(error) => {
                        assert_eq!(error.scope, H3Scope::Connection);
                        seen.push(format!("{error:?}"));
                        return seen;
                    }
                }
            }
            assert!(part.is_empty());
        }
        if *which & 0x80 != 0 {
            seen.push(format!("{:?}", peer.finish(stream)));
        }
    }
    seen
}

/// Field sections, each behind a byte that says how long it is: decoding never panics, hands out no more fields than the section has bytes,
/// and what it hands out comes back the same when it is encoded and decoded again.
pub fn qpack(input: &[u8]) {
    let mut decoder = QpackDecoder::new();
    let mut rest = input;
    while let Some((length, behind)) = rest.split_first() {
        let (section, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let mut fields = Vec::new();
        let result = decoder.decode(section, &mut |name, value, never| {
            fields.push((name.to_vec(), value.to_vec(), never));
        });
        assert!(fields.len() <= section.len());
        if let Err(error) = result {
            assert_eq!(H3Error::from(error).scope, H3Scope::Connection);
        }
        let mut wire = Vec::new();
        StaticEncoder.begin(&mut wire);
        for (name, value, never) in &fields {
            StaticEncoder.field(name, value, if *never { Indexing::Never } else { Indexing::Yes }, &mut wire);
        }
        let mut back = Vec::new();
        let decoded = decoder.decode(&wire, &mut |name, value, never| {
            back.push((name.to_vec(), value.to_vec(), never));
        });
        assert_eq!((decoded, back), (Ok(()), fields));
    }
}

/// Body, bytes used, and whether it ended; `None` when refused.
fn decode(input: &[u8], step: usize) -> Option<(Vec<u8>, usize, bool)> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut reader = BodyReader::chunked();
    let mut collected = Collected::default();
    let mut used = 0usize;
    for part in input.chunks(step.clamp(1, input.len().max(1))) {
        let n = reader.read(&mut cx, part, &mut collected).ok()?;
        used = used.saturating_add(n);
        if reader.is_done() {
            break;
        }
    }
    assert!(collected.0.len() <= input.len());
    Some((collected.0, used, reader.is_done()))
}

#[derive(Default)]
struct Collected(Vec<u8>);

impl Sink for Collected {
    fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn trailers(&mut self, _: &Fields) {}
    fn end(&mut self) {}
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }
}

/// Limits that let small inputs reach every branch.
const FRAME_LIMITS: websocket::MessageLimits = websocket::MessageLimits {
    max_message_size_bytes: 512,
    ping_rate_limit_per_window: 4,
    ping_rate_limit_window: Duration::from_secs(10),
    read_frame_timeout: Duration::from_secs(30),
};

/// Frames of a WebSocket, from either side: the verdict does not depend on how the input is cut, and what may be passed on before a
/// close frame ends where a frame ends.
pub fn ws_frame(input: &[u8]) {
    let now = Instant::now();
    let verdict = |seen: &Result<Inspector, (websocket::Violation, usize)>| match seen {
        Ok(inspector) => Ok(inspector.clone()),
        Err((violation, _)) => Err((violation.kind, violation.position)),
    };
    for role in [Role::FromClient, Role::FromServer] {
        let whole = inspect(role, input, usize::MAX, now);
        for step in [1, 3, 7] {
            assert_eq!(verdict(&whole), verdict(&inspect(role, input, step, now)));
        }
        if let Err((violation, before)) = whole
            && violation.may_close
        {
            let end = before.saturating_add(violation.passable);
            let passed = inspect(role, input.get(..end).unwrap_or(input), 5, now);
            assert!(passed.is_ok_and(|inspector| inspector.may_close()));
        }
    }
}

/// What becomes of an inspector, or its verdict and how many bytes came before those that it was given last.
fn inspect(
    role: Role,
    input: &[u8],
    step: usize,
    now: Instant,
) -> Result<Inspector, (websocket::Violation, usize)> {
    let mut inspector = Inspector::new(role, FRAME_LIMITS);
    let mut before = 0usize;
    for part in input.chunks(step.clamp(1, input.len().max(1))) {
        inspector.inspect(part, now).map_err(|violation| {
            assert!(violation.passable <= part.len());
            (violation, before)
        })?;
        assert_eq!(inspector.deadline().is_none(), inspector.at_boundary());
        before = before.saturating_add(part.len());
    }
    Ok(inspector)
}
