use proptest::prelude::*;

use super::super::write;
use super::*;
use crate::h2::frame::header::{ACK, PADDED, PRIORITY};
use crate::h2::frame::{DEFAULT_MAX_FRAME_SIZE, Scope, SettingId};

const LIMITS: BlockLimits = BlockLimits { bytes: 300, frames: 4 };

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { length: payload.len() as u32, kind: FrameType(kind), flags, stream };
    [&header.bytes()[..], payload].concat()
}

/// What was read from `wire` in parts of these lengths, with the parts of a DATA frame joined.
fn read(wire: &[u8], parts: &[usize]) -> Vec<String> {
    let mut reader = FrameReader::new(LIMITS);
    let (mut seen, mut data, mut flow) = (Vec::new(), Vec::new(), 0);
    let mut rest = wire;
    let mut lengths = parts.iter().copied().cycle();
    while !rest.is_empty() {
        let mut input = take(&mut rest, lengths.next().unwrap_or(usize::MAX));
        loop {
            match reader.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Piece::Data { stream, bytes, flow_len, frame_bytes, end_of_frame, end_stream })) => {
                    data.extend_from_slice(bytes);
                    flow += flow_len;
                    if end_of_frame {
                        assert_eq!(data.len(), frame_bytes as usize);
                        seen.push(format!("Data {stream} {data:?} {flow} {end_stream}"));
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
        assert!(input.is_empty());
        assert!(reader.held.len() <= DEFAULT_MAX_FRAME_SIZE as usize && reader.block.len() <= LIMITS.bytes);
    }
    seen
}

#[test]
fn malformed_frames_are_refused_with_the_right_scope_and_code() {
    use ErrorCode as E;
    let c = Scope::Connection;
    let cases: &[(&str, Vec<u8>, Scope, ErrorCode)] = &[
        ("DATA on 0", frame(0, 0, 0, b"x"), c, E::PROTOCOL_ERROR),
        ("DATA all padding and more", frame(0, PADDED, 1, &[1]), c, E::PROTOCOL_ERROR),
        ("DATA without Pad Length", frame(0, PADDED, 1, &[]), c, E::FRAME_SIZE_ERROR),
        ("HEADERS on 0", frame(1, END_HEADERS, 0, b"\x82"), c, E::PROTOCOL_ERROR),
        ("HEADERS padded too far", frame(1, END_HEADERS | PADDED, 1, &[2, 0x82]), c, E::PROTOCOL_ERROR),
        ("HEADERS without priority", frame(1, END_HEADERS | PRIORITY, 1, &[0; 4]), c, E::FRAME_SIZE_ERROR),
        ("PRIORITY on 0", frame(2, 0, 0, &[0; 5]), c, E::PROTOCOL_ERROR),
        ("h2_02 PRIORITY of 4", frame(2, 0, 3, &[0; 4]), Scope::Stream(3), E::FRAME_SIZE_ERROR),
        ("h2_02 PRIORITY on itself", frame(2, 0, 3, &[0, 0, 0, 3, 0]), Scope::Stream(3), E::PROTOCOL_ERROR),
        ("RST_STREAM on 0", frame(3, 0, 0, &[0; 4]), c, E::PROTOCOL_ERROR),
        ("RST_STREAM of 3", frame(3, 0, 1, &[0; 3]), c, E::FRAME_SIZE_ERROR),
        ("SETTINGS on 1", frame(4, 0, 1, &[]), c, E::PROTOCOL_ERROR),
        ("SETTINGS of 5", frame(4, 0, 0, &[0; 5]), c, E::FRAME_SIZE_ERROR),
        ("SETTINGS ACK with entries", frame(4, ACK, 0, &[0; 6]), c, E::FRAME_SIZE_ERROR),
        ("PUSH_PROMISE", frame(5, END_HEADERS, 1, &[0; 4]), c, E::PROTOCOL_ERROR),
        ("PING on 1", frame(6, 0, 1, &[0; 8]), c, E::PROTOCOL_ERROR),
        ("PING of 7", frame(6, 0, 0, &[0; 7]), c, E::FRAME_SIZE_ERROR),
        ("GOAWAY on 1", frame(7, 0, 1, &[0; 8]), c, E::PROTOCOL_ERROR),
        ("GOAWAY of 7", frame(7, 0, 0, &[0; 7]), c, E::FRAME_SIZE_ERROR),
        ("WINDOW_UPDATE of 5", frame(8, 0, 1, &[0; 5]), c, E::FRAME_SIZE_ERROR),
        ("WINDOW_UPDATE by 0", frame(8, 0, 0, &[0x80, 0, 0, 0]), c, E::PROTOCOL_ERROR),
        ("h2_02 WINDOW_UPDATE by 0", frame(8, 0, 5, &[0; 4]), Scope::Stream(5), E::PROTOCOL_ERROR),
        ("CONTINUATION alone", frame(9, END_HEADERS, 1, &[]), c, E::PROTOCOL_ERROR),
        ("PRIORITY_UPDATE on 1", frame(0x10, 0, 1, &[0, 0, 0, 1]), c, E::PROTOCOL_ERROR),
        ("PRIORITY_UPDATE of 3", frame(0x10, 0, 0, &[0; 3]), c, E::FRAME_SIZE_ERROR),
        ("PRIORITY_UPDATE for 0", frame(0x10, 0, 0, &[0; 4]), c, E::PROTOCOL_ERROR),
        ("too large", frame(0xaa, 0, 0, &[0; 16_385]), c, E::FRAME_SIZE_ERROR),
    ];
    for (name, wire, scope, code) in cases {
        let mut reader = FrameReader::new(LIMITS);
        let mut input = &wire[..];
        let error = reader.next(&mut input).unwrap_err();
        assert_eq!((error.scope, error.code), (*scope, *code), "{name}");
        if error.scope != Scope::Connection {
            // The stream's error is passed over.
            let more = [input, &frame(6, 0, 0, &[1; 8])].concat();
            assert_eq!(
                reader.next(&mut &more[..]),
                Ok(Some(Piece::Ping { ack: false, data: [1; 8] })),
                "{name}"
            );
        }
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    use ErrorCode as E;
    for (id, value, code) in [
        (SettingId::ENABLE_PUSH, 2, Some(E::PROTOCOL_ERROR)),
        (SettingId::ENABLE_CONNECT_PROTOCOL, 2, Some(E::PROTOCOL_ERROR)),
        (SettingId::INITIAL_WINDOW_SIZE, 1 << 31, Some(E::FLOW_CONTROL_ERROR)),
        (SettingId::MAX_FRAME_SIZE, 16_383, Some(E::PROTOCOL_ERROR)),
        (SettingId::MAX_FRAME_SIZE, 1 << 24, Some(E::PROTOCOL_ERROR)),
        (SettingId::MAX_FRAME_SIZE, 16_384, None),
        (SettingId::INITIAL_WINDOW_SIZE, (1 << 31) - 1, None),
        (SettingId(0xfafa), u32::MAX, None),
    ] {
        let mut wire = Vec::new();
        write::settings(&mut wire, &[(SettingId::HEADER_TABLE_SIZE, 7), (id, value)]);
        let mut reader = FrameReader::new(LIMITS);
        let Ok(Some(Piece::Settings(settings))) = reader.next(&mut &wire[..]) else { panic!("{id:?}") };
        let mut entries = settings.iter();
        assert_eq!(entries.next(), Some(Ok((SettingId::HEADER_TABLE_SIZE, 7))));
        let last = entries.next().unwrap();
        assert_eq!(last.map_err(|error| error.code), code.map_or(Ok((id, value)), Err));
    }
}

#[test]
fn nothing_comes_between_the_frames_of_a_block() {
    let start = frame(1, 0, 1, b"\x82");
    for other in [
        frame(0, 0, 1, b"x"),
        frame(1, END_HEADERS, 1, b""),
        frame(6, 0, 0, &[0; 8]),
        frame(9, END_HEADERS, 3, b""),
        frame(0xbb, 0, 1, b""),
    ] {
        let seen = read(&[&start[..], &other].concat(), &[]);
        assert!(seen.len() == 1 && seen[0].contains("PROTOCOL_ERROR"), "{seen:?}");
    }
}

#[test]
fn h2_03_a_block_is_cut_off_by_bytes_and_by_frames() {
    let many = [frame(1, 0, 1, b"\x82"), frame(9, 0, 1, b"").repeat(10)].concat();
    let large = [frame(1, 0, 1, &[0; 200]), frame(9, END_HEADERS, 1, &[0; 101])].concat();
    for wire in [many, large] {
        let seen = read(&wire, &[7]);
        assert!(seen.len() == 1 && seen[0].contains("ENHANCE_YOUR_CALM"), "{seen:?}");
    }
    // Refused by its header alone.
    let header = FrameHeader { length: 301, kind: FrameType::HEADERS, flags: 0, stream: 1 }.bytes();
    assert!(FrameReader::new(LIMITS).next(&mut &header[..]).is_err());
}

#[test]
fn padding_and_priority_are_taken_off_and_padding_is_paid_for() {
    let wire = [
        frame(1, END_HEADERS | PADDED | PRIORITY, 5, &[3, 0x80, 0, 0, 1, 9, 0x82, 0x84, 0, 0, 0]),
        frame(0, PADDED | END_STREAM, 5, &[2, b'h', b'i', 0, 0]),
        frame(0, PADDED, 5, &[0]),
        frame(0, 0, 5, &[]),
    ]
    .concat();
    let seen = read(&wire, &[]);
    assert!(seen[0].contains("block: [130, 132]") && seen[0].contains("fault: None"), "{seen:?}");
    assert_eq!(seen[1..], ["Data 5 [104, 105] 5 true", "Data 5 [] 1 false", "Data 5 [] 0 false"]);
    let itself = read(&frame(1, END_HEADERS | PRIORITY, 5, &[0, 0, 0, 5, 9, 0x82]), &[]);
    assert!(itself[0].contains("block: [130]") && itself[0].contains("Stream(5)"), "{itself:?}");
}

#[test]
fn whole_frames_are_not_copied_and_data_is_not_kept() {
    let wire = [frame(1, END_HEADERS, 1, &[0x82; 50]), frame(0, 0, 1, &[7; 1000])].concat();
    let mut reader = FrameReader::new(LIMITS);
    let mut input = &wire[..500];
    let Ok(Some(Piece::Headers { block, .. })) = reader.next(&mut input) else { panic!() };
    assert!(std::ptr::eq(block, &raw const wire[9..59]));
    let Ok(Some(Piece::Data { bytes, end_of_frame, .. })) = reader.next(&mut input) else { panic!() };
    assert!(bytes.len() == 432 && !end_of_frame);
    assert_eq!(reader.held.capacity() + reader.block.capacity(), 0);
}

#[test]
fn what_we_write_reads_back_with_long_blocks_split() {
    let mut wire = Vec::new();
    write::settings_ack(&mut wire);
    write::ping(&mut wire, [1; 8]);
    write::ping_ack(&mut wire, [2; 8]);
    write::goaway(&mut wire, 7, ErrorCode::NO_ERROR, b"bye");
    write::rst_stream(&mut wire, 3, ErrorCode::CANCEL);
    write::window_update(&mut wire, 0, 9);
    write::data_header(&mut wire, 3, 2, true);
    wire.extend_from_slice(b"ab");
    for (length, frames) in [(0usize, 1), (100, 1), (101, 2), (201, 3), (300, 3)] {
        let start = wire.len();
        let headers = write::headers(&mut wire);
        let block: Vec<u8> = (0..length).map(|n| n as u8).collect();
        wire.extend_from_slice(&block);
        headers.end(&mut wire, 3, true, 100);
        let seen = read(&wire[start..], &[]);
        let piece = Piece::Headers { stream: 3, end_stream: true, block: &block, frames, fault: None };
        assert_eq!(seen, [format!("{piece:?}")]);
    }
    let seen = read(&wire, &[]);
    let code = ErrorCode::NO_ERROR;
    let pieces = [
        Piece::SettingsAck,
        Piece::Ping { ack: false, data: [1; 8] },
        Piece::Ping { ack: true, data: [2; 8] },
        Piece::GoAway { last_stream: 7, code, debug: b"bye" },
        Piece::RstStream { stream: 3, code: ErrorCode::CANCEL },
        Piece::WindowUpdate { stream: 0, increment: 9 },
    ];
    assert_eq!(seen[..6], pieces.map(|piece| format!("{piece:?}")));
    assert_eq!(seen[6], "Data 3 [97, 98] 2 true");
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_frames(
        frames in prop::collection::vec((0u8..12, any::<u8>(), 0u32..4, prop::collection::vec(0u8..8, 0..40)), 0..12),
        parts in prop::collection::vec(1usize..30, 1..8),
    ) {
        let wire: Vec<u8> = frames.iter().flat_map(|(kind, flags, stream, payload)| {
            frame(*kind, *flags, *stream, payload)
        }).collect();
        prop_assert_eq!(read(&wire, &parts), read(&wire, &[]));
        prop_assert_eq!(read(&wire, &[1]), read(&wire, &[]));
    }

    #[test]
    fn random_bytes_never_panic(wire in prop::collection::vec(any::<u8>(), 0..600), parts in prop::collection::vec(1usize..100, 1..4)) {
        prop_assert_eq!(read(&wire, &parts), read(&wire, &[]));
    }
}
