use proptest::prelude::*;

use super::*;
use crate::h3::code::H3Scope;
use crate::h3::frame::write;
use crate::h3::priority::ExtensiblePriority;
use crate::h3::settings::H3Settings;
use crate::h3::tests::hex;

fn read(side: fn() -> PeerStreams, bytes: &[u8], step: usize) -> (Vec<ControlEvent>, Option<H3Error>) {
    let (mut peer, mut stream, mut seen) = (side(), UniStream::new(), Vec::new());
    for mut piece in bytes.chunks(step) {
        loop {
            match peer.receive(&mut stream, &mut piece) {
                Ok(None) => break,
                Ok(Some(event)) => seen.push(event),
                Err(error) => {
                    assert_eq!(error.scope, H3Scope::Connection);
                    return (seen, Some(error));
                }
            }
        }
        assert!(piece.is_empty());
    }
    (seen, None)
}

/// The control stream with empty SETTINGS, and then these frames.
fn control(frames: &str) -> Vec<u8> {
    [hex("00 0400"), hex(frames)].concat()
}

#[track_caller]
fn refused(side: fn() -> PeerStreams, bytes: &[u8], code: H3Code) {
    let error = read(side, bytes, usize::MAX).1;
    assert_eq!(error.map(|error| error.code), Some(code), "{bytes:x?}");
}

#[test]
fn a_control_stream_is_read_in_any_pieces() {
    let settings = H3Settings {
        max_field_section_size: Some(65_536),
        enable_connect_protocol: true,
        ..H3Settings::default()
    };
    let mut bytes = Vec::new();
    write::control_stream(&settings, &mut bytes);
    write::grease(7, &mut bytes);
    // MAX_PUSH_ID 5; PRIORITY_UPDATE of stream 8: "u=0, i"; an unknown frame of three bytes; GOAWAY 0.
    bytes.extend(hex("0d0105 800f0700 07 08 753d302c2069 40430361626307 01 00"));
    let expected = [
        ControlEvent::Settings(settings),
        ControlEvent::Unknown { bytes: 0 },
        ControlEvent::MaxPushId(5),
        ControlEvent::PriorityUpdate {
            stream: 8,
            priority: ExtensiblePriority { urgency: 0, incremental: true },
        },
        ControlEvent::Unknown { bytes: 3 },
        ControlEvent::GoAway(0),
    ];
    for step in [1, 2, 3, 7, usize::MAX] {
        assert_eq!(read(PeerStreams::server, &bytes, step), (expected.to_vec(), None), "{step}");
    }
}

#[test]
fn q_10_control_frames_that_break_a_rule() {
    let (server, client) =
        (PeerStreams::server as fn() -> PeerStreams, PeerStreams::client as fn() -> PeerStreams);
    for first in ["00 2100", "00 070100", "00 0000", "00 0d0100"] {
        refused(server, &hex(first), H3Code::MISSING_SETTINGS);
    }
    for side in [server, client] {
        for unexpected in ["0400", "0000", "0100", "0500", "0200", "0600", "0800", "0900"] {
            refused(side, &control(unexpected), H3Code::FRAME_UNEXPECTED);
        }
        // A push that there is not; identifiers that move the wrong way.
        refused(side, &control("030100"), H3Code::ID_ERROR);
        refused(side, &control("070104 070108"), H3Code::ID_ERROR);
        for length in ["0700", "07020000", "070140", "0300"] {
            refused(side, &control(length), H3Code::FRAME_ERROR);
        }
        refused(side, &control("07 4401"), H3Code::EXCESSIVE_LOAD);
        // An unknown frame may have any length.
        let endless = read(side, &control("4045 ffffffffffffffff 00 0400"), 1);
        assert_eq!(
            endless,
            (
                vec![
                    ControlEvent::Settings(H3Settings::default()),
                    ControlEvent::Unknown { bytes: (1 << 62) - 1 }
                ],
                None
            )
        );
    }
    refused(server, &control("0d0105 0d0104"), H3Code::ID_ERROR);
    refused(server, &control("800f0701 02 0075"), H3Code::ID_ERROR);
    refused(server, &control("800f0700 01 02"), H3Code::ID_ERROR);
    refused(server, &control("800f0700 00"), H3Code::FRAME_ERROR);
    for of_clients in ["0d0100", "800f0700 0100", "800f0701 0100"] {
        refused(client, &control(of_clients), H3Code::FRAME_UNEXPECTED);
    }
    refused(client, &control("070101"), H3Code::ID_ERROR);
    assert_eq!(read(server, &control("070101"), 1).0.last(), Some(&ControlEvent::GoAway(1)));
}

#[test]
fn q_10_each_critical_stream_is_there_once_and_to_the_end() {
    for kind in [CONTROL, QPACK_ENCODER, QPACK_DECODER] {
        let (mut peer, mut first, mut second) = (PeerStreams::server(), UniStream::new(), UniStream::new());
        let bytes = [kind as u8];
        assert_eq!(peer.receive(&mut first, &mut &bytes[..]), Ok(None));
        assert_eq!(peer.finish(&first).unwrap_err().code, H3Code::CLOSED_CRITICAL_STREAM);
        // Also where the first one has ended (attack Q-08).
        let error = peer.receive(&mut second, &mut &bytes[..]).unwrap_err();
        assert_eq!(error.code, H3Code::STREAM_CREATION_ERROR);
    }
    refused(PeerStreams::server, &[1], H3Code::STREAM_CREATION_ERROR);
    refused(PeerStreams::client, &[1, 0], H3Code::ID_ERROR);
}

#[test]
fn streams_of_unknown_types_are_discarded() {
    let mut peer = PeerStreams::client();
    let mut stream = UniStream::new();
    assert_eq!(peer.finish(&stream), Ok(()));
    for mut byte in hex("4040 00 01 02 ff").chunks(1) {
        assert_eq!(peer.receive(&mut stream, &mut byte), Ok(None));
        assert!(byte.is_empty());
    }
    assert!(stream.is_discarded());
    assert_eq!(peer.finish(&stream), Ok(()));
}

proptest! {
    #[test]
    fn any_pieces_give_what_the_whole_gives(
        frames in prop::collection::vec((prop_oneof![0u64..0x10, Just(0xf_0700), any::<u16>().prop_map(u64::from)],
            prop::collection::vec(0u8..0x50, 0..6)), 0..6),
        step in 1usize..9,
    ) {
        let mut bytes = hex("00 0400");
        for (kind, payload) in frames {
            varint::put(kind, &mut bytes);
            varint::put(payload.len() as u64, &mut bytes);
            bytes.extend_from_slice(&payload);
        }
        for side in [PeerStreams::server, PeerStreams::client] {
            prop_assert_eq!(read(side, &bytes, step), read(side, &bytes, usize::MAX));
        }
    }
}
