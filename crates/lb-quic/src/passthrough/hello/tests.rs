use proptest::prelude::*;

use super::*;

/// A ClientHello with these extensions before and behind the server name.
pub(crate) fn hello(name: Option<&str>, before: usize, behind: usize) -> Vec<u8> {
    let sized = |size: usize, bytes: &[u8]| {
        let length = bytes.len().to_be_bytes();
        [&length[length.len() - size..], bytes].concat()
    };
    let extension = |kind: u16, data: &[u8]| [&kind.to_be_bytes()[..], &sized(2, data)].concat();
    let mut extensions = extension(51, &vec![7; before]);
    if let Some(name) = name {
        let entry = [&[0][..], &sized(2, name.as_bytes())].concat();
        extensions.extend(extension(0, &sized(2, &entry)));
    }
    extensions.extend(extension(21, &vec![0; behind]));
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend(sized(1, &[]));
    body.extend(sized(2, &[0x13, 0x01]));
    body.extend(sized(1, &[0]));
    body.extend(sized(2, &extensions));
    [&[1][..], &sized(3, &body)].concat()
}

fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let number = |number: usize| (0x8000_0000 | u32::try_from(number).unwrap()).to_be_bytes();
    [&[CRYPTO][..], &number(offset), &number(data.len()), data].concat()
}

fn read(pieces: &[Vec<u8>]) -> ServerName {
    let mut reader = HelloReader::default();
    for piece in pieces {
        reader.take(piece).unwrap();
    }
    reader.server_name()
}

fn named(name: &str) -> ServerName {
    ServerName::Named(name.to_owned())
}

#[test]
fn the_name_is_found_in_lower_case_or_known_to_be_absent() {
    assert_eq!(read(&[crypto(0, &hello(Some("WWW.Example."), 0, 0))]), named("www.example"));
    assert_eq!(read(&[crypto(0, &hello(None, 5, 5))]), ServerName::Unnamed);
    assert_eq!(read(&[]), ServerName::Incomplete);
    assert_eq!(read(&[crypto(0, b"\x02\0\0\0 a ServerHello")]), ServerName::Unnamed);
    assert_eq!(read(&[crypto(0, &hello(Some("b\u{fc}cher"), 0, 0))]), ServerName::Unnamed);
}

#[test]
fn a_hello_of_two_datagrams_is_found_in_any_order_and_as_soon_as_the_name_is_there() {
    let whole = hello(Some("pq.example"), 1400, 300);
    let (first, second) = whole.split_at(1000);
    assert_eq!(read(&[crypto(0, first)]), ServerName::Incomplete);
    assert_eq!(read(&[crypto(1000, second), crypto(0, first)]), named("pq.example"));
    let early = hello(Some("early.example"), 10, 3000);
    assert_eq!(read(&[crypto(0, &early[..200])]), named("early.example"));
}

#[test]
fn frames_beside_the_pieces_are_passed_over_and_others_are_refused() {
    let whole = hello(Some("a.example"), 0, 0);
    let ack = [ACK, 5, 0, 1, 2, 0, 1];
    let ecn = [ACK_ECN, 5, 0, 0, 2, 1, 1, 1];
    let frames = [&[PING, PADDING, PADDING][..], &ack, &ecn, &crypto(0, &whole), &[PADDING; 50]].concat();
    assert_eq!(read(&[frames]), named("a.example"));
    for bad in [&[0x08u8, 0][..], &[CRYPTO], &[CRYPTO, 0, 5, 1], &[ACK, 0, 0, 0x3f, 0, 1]] {
        assert_eq!(HelloReader::default().take(bad), Err(MalformedHello), "{bad:?}");
    }
}

#[test]
fn memory_is_bounded_whatever_arrives() {
    let mut reader = HelloReader::default();
    assert_eq!(reader.take(&crypto(MAX_HELLO, b"x")), Err(MalformedHello));
    assert_eq!(reader.take(&crypto(MAX_HELLO - 1, b"x")), Ok(()));
    let mut reader = HelloReader::default();
    let taken = (0..1000).take_while(|at| reader.take(&crypto(2 + at * 2, b"x")).is_ok()).count();
    assert_eq!(taken, MAX_PIECES);
}

#[test]
fn a_second_copy_of_a_byte_changes_nothing() {
    let whole = hello(Some("first.example"), 0, 0);
    let other = hello(Some("other.example"), 0, 0);
    let half = whole.len() - 10;
    let pieces = [crypto(0, &whole[..half]), crypto(0, &other)];
    let ServerName::Named(name) = read(&pieces) else { panic!() };
    assert!(name.starts_with("first"), "{name}");
}

proptest! {
    #[test]
    fn pieces_that_overlap_in_any_order_make_one_hello(
        before in 0usize..600, behind in 0usize..600, seed: u64,
        cuts in prop::collection::vec((0.0f64..1.0, 0.0f64..1.0), 0..20),
    ) {
        let whole = hello(Some("pieces.example"), before, behind);
        let place = |part: f64| (part * whole.len() as f64) as usize;
        let mut pieces: Vec<(usize, usize)> =
            cuts.iter().map(|(a, b)| (place(a.min(*b)), place(a.max(*b)))).collect();
        pieces.extend((0..whole.len()).step_by(97).map(|at| (at, (at + 97).min(whole.len()))));
        let mut rng = lb_core::rng::SplitMix64::new(seed);
        for at in (1..pieces.len()).rev() {
            pieces.swap(at, rng.below(at as u64 + 1) as usize);
        }
        let frames: Vec<_> = pieces.iter().map(|(from, to)| crypto(*from, &whole[*from..*to])).collect();
        prop_assert_eq!(read(&frames), named("pieces.example"));
    }

    #[test]
    fn no_frames_do_harm(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..10)) {
        let mut reader = HelloReader::default();
        for frames in &frames {
            let _ = reader.take(frames);
            let _ = reader.server_name();
        }
        prop_assert!(reader.bytes.len() <= MAX_HELLO);
    }
}
