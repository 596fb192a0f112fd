use proptest::prelude::*;

use super::*;
use crate::h3::code::H3Scope;
use crate::h3::frame::write;

/// A frame of this type.
fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint::put(kind, &mut out);
    varint::put(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

/// What was read, with the parts of a DATA frame joined.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Head(Vec<u8>),
    Data(Vec<u8>, u32),
    Trailers(Vec<u8>),
    Oversized(bool),
    Unknown(u64),
}

fn read(mut reader: MessageReader, input: &[u8], step: usize) -> (Vec<Seen>, Result<(), H3Error>) {
    let (mut seen, mut data) = (Vec::new(), Vec::new());
    for mut piece in input.chunks(step) {
        loop {
            match reader.next(&mut piece) {
                Ok(None) => break,
                Err(error) => return (seen, Err(error)),
                Ok(Some(MessagePiece::Head(section))) => {
                    seen.push(Seen::Head(section.to_vec()));
                    match section {
                        [b'1', ..] => reader.expect_head(),
                        &[b'l', length] => reader.expect_content(Some(u64::from(length))),
                        [b't'] => reader.expect_tunnel(),
                        _ => {}
                    }
                }
                Ok(Some(MessagePiece::Data { bytes, frame })) => {
                    assert!(!bytes.is_empty() || frame == Some(0));
                    data.extend_from_slice(bytes);
                    if let Some(length) = frame {
                        seen.push(Seen::Data(std::mem::take(&mut data), length));
                    }
                }
                Ok(Some(MessagePiece::Trailers(section))) => seen.push(Seen::Trailers(section.to_vec())),
                Ok(Some(MessagePiece::Oversized { trailers })) => seen.push(Seen::Oversized(trailers)),
                Ok(Some(MessagePiece::Unknown { bytes })) => seen.push(Seen::Unknown(bytes)),
            }
        }
        assert!(piece.is_empty());
    }
    let end = reader.finish();
    assert!(end.is_err() || reader.section.capacity() == 0);
    (seen, end)
}

fn requests() -> MessageReader {
    MessageReader::requests(64)
}

#[track_caller]
fn refused(reader: MessageReader, frames: &[Vec<u8>], code: H3Code, scope: H3Scope) {
    let error = read(reader, &frames.concat(), usize::MAX).1.unwrap_err();
    assert_eq!((error.code, error.scope), (code, scope), "{}", error.what);
}

#[test]
fn an_idle_reader_is_small() {
    assert!(size_of::<MessageReader>() < 64, "{}", size_of::<MessageReader>());
}

#[test]
fn a_message_is_read_in_any_pieces() {
    let message = [
        frame(0x21, b"reserved"),
        frame(HEADERS, b"head"),
        frame(0x4242_4242, &[0; 3000]),
        frame(DATA, b""),
        frame(DATA, &[7; 300]),
        frame(0x21 + 0x1f * 5, b""),
        frame(HEADERS, b"trailers"),
        frame(0x21, b""),
    ]
    .concat();
    let expected = [
        Seen::Unknown(8),
        Seen::Head(b"head".to_vec()),
        Seen::Unknown(3000),
        Seen::Data(vec![], 0),
        Seen::Data(vec![7; 300], 300),
        Seen::Unknown(0),
        Seen::Trailers(b"trailers".to_vec()),
        Seen::Unknown(0),
    ];
    for step in [1, 2, 3, 5, 64, 1000, usize::MAX] {
        assert_eq!(read(requests(), &message, step), (expected.to_vec(), Ok(())), "{step}");
    }
}

#[test]
fn content_is_handed_out_where_it_stands() {
    let message = [frame(HEADERS, b"h"), frame(DATA, b"content")].concat();
    let mut reader = requests();
    let mut rest = &message[..];
    assert_eq!(reader.next(&mut rest), Ok(Some(MessagePiece::Head(&message[2..3]))));
    let Ok(Some(MessagePiece::Data { bytes, frame: Some(7) })) = reader.next(&mut rest) else { panic!() };
    assert_eq!(bytes.as_ptr(), message[5..].as_ptr());
    assert_eq!(reader.section.capacity(), 0);
}

#[test]
fn interim_heads_come_before_the_final_one() {
    let interim =
        [frame(HEADERS, b"100"), frame(HEADERS, b"103"), frame(HEADERS, b"200"), frame(HEADERS, b"t1")];
    let (seen, end) = read(MessageReader::responses(64), &interim.concat(), 1);
    assert_eq!(seen.last(), Some(&Seen::Trailers(b"t1".to_vec())));
    assert_eq!((seen.len(), end), (4, Ok(())));
    refused(MessageReader::responses(64), &interim[..2], H3Code::MESSAGE_ERROR, H3Scope::Stream);
    let data = [frame(HEADERS, b"100"), frame(DATA, b"x")];
    refused(MessageReader::responses(64), &data, H3Code::FRAME_UNEXPECTED, H3Scope::Connection);
}

#[test]
fn q_10_frames_out_of_order_end_the_connection() {
    let (head, data) = (frame(HEADERS, b"h"), frame(DATA, b"d"));
    for frames in [
        vec![data.clone()],
        vec![frame(0x21, b""), data.clone()],
        vec![head.clone(), data.clone(), head.clone(), data.clone()],
        vec![head.clone(), head.clone(), head.clone()],
        vec![frame(HEADERS, b"t"), data, head],
    ] {
        refused(requests(), &frames, H3Code::FRAME_UNEXPECTED, H3Scope::Connection);
    }
}

#[test]
fn q_10_frames_of_other_streams_and_of_http2_end_the_connection() {
    for kind in [0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xd, 0xf_0700, 0xf_0701] {
        let pushed = if kind == PUSH_PROMISE { H3Code::ID_ERROR } else { H3Code::FRAME_UNEXPECTED };
        for frames in [vec![frame(kind, b"\0")], vec![frame(HEADERS, b"h"), frame(kind, b"\0")]] {
            refused(requests(), &frames, H3Code::FRAME_UNEXPECTED, H3Scope::Connection);
            refused(MessageReader::responses(64), &frames, pushed, H3Scope::Connection);
        }
    }
}

#[test]
fn q_10_a_stream_that_ends_too_early() {
    refused(requests(), &[], H3Code::REQUEST_INCOMPLETE, H3Scope::Stream);
    refused(requests(), &[frame(0x21, b"")], H3Code::REQUEST_INCOMPLETE, H3Scope::Stream);
    refused(MessageReader::responses(64), &[], H3Code::MESSAGE_ERROR, H3Scope::Stream);
    let message = [frame(HEADERS, b"head"), frame(DATA, b"data"), frame(0x4021, b"xx")].concat();
    let whole = [6, 12, 19];
    assert_eq!(message.len(), 19);
    for end in 1..=message.len() {
        let result = read(requests(), &message[..end], usize::MAX).1;
        let expected = (!whole.contains(&end)).then_some(H3Code::FRAME_ERROR);
        assert_eq!(result.err().map(|error| error.code), expected, "{end}");
    }
}

#[test]
fn q_10_content_and_its_announced_length_differ() {
    let announced = frame(HEADERS, &[b'l', 5]);
    let message = |data: &[&[u8]]| {
        let frames = data.iter().map(|data| frame(DATA, data));
        std::iter::once(announced.clone()).chain(frames).collect::<Vec<_>>()
    };
    for right in [&[&b"12345"[..]][..], &[b"1", b"", b"2345", b""]] {
        assert_eq!(read(requests(), &message(right).concat(), 1).1, Ok(()));
    }
    for wrong in [&[&b"1234"[..]][..], &[b"123456"], &[b"123", b"456"], &[]] {
        refused(requests(), &message(wrong), H3Code::MESSAGE_ERROR, H3Scope::Stream);
    }
    let mut trailers = message(&[b"1234"]);
    trailers.push(frame(HEADERS, b"trailers"));
    refused(requests(), &trailers, H3Code::MESSAGE_ERROR, H3Scope::Stream);
    // What is announced beyond the length is refused before it arrives.
    let mut ahead = announced;
    write::data_header(6, &mut ahead);
    refused(requests(), &[ahead], H3Code::MESSAGE_ERROR, H3Scope::Stream);
}

#[test]
fn q_09_a_section_beyond_the_limit_is_skipped_and_takes_no_memory() {
    let long = [frame(HEADERS, &[1; 65]), frame(DATA, b"d"), frame(HEADERS, &[2; 70_000])].concat();
    for step in [1, 1000, usize::MAX] {
        let (seen, end) = read(requests(), &long, step);
        assert_eq!(seen, [Seen::Oversized(false), Seen::Data(b"d".to_vec(), 1), Seen::Oversized(true)]);
        assert_eq!(end, Ok(()));
    }
    // The length alone is enough.
    let mut reader = requests();
    let mut header = &[HEADERS as u8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3][..];
    assert_eq!(reader.next(&mut header), Ok(Some(MessagePiece::Oversized { trailers: false })));
    assert_eq!(reader.next(&mut header), Ok(None));
    assert_eq!((header.len(), reader.section.capacity()), (0, 0));
}

fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![4 => Just(DATA), 3 => Just(HEADERS), 2 => Just(0x21), 1 => 0u64..0x10, 1 => any::<u32>().prop_map(u64::from)];
    let payload = prop_oneof![3 => prop::collection::vec(any::<u8>(), 0..80), 1 => Just(vec![b'l', 3]), 1 => Just(vec![b'1'])];
    let frames = prop::collection::vec((kind, payload), 0..8);
    (frames, 0usize..4).prop_map(|(frames, cut)| {
        let mut bytes: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes
    })
}

proptest! {
    /// However the bytes are cut, the frames are read as they were.
    #[test]
    fn any_pieces_give_what_the_whole_gives(bytes in any_frames(), step in 1usize..40) {
        for new in [MessageReader::requests, MessageReader::responses] {
            prop_assert_eq!(read(new(64), &bytes, step), read(new(64), &bytes, usize::MAX));
        }
    }
}
