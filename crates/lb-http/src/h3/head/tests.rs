use lb_config::UnderscorePolicy;
use proptest::prelude::*;

use super::*;
use crate::h1::request::HeadLimits;
use crate::h2::hpack;
use crate::h3::code::{H3Code, H3Scope};
use crate::h3::{MessagePiece, MessageReader};
use crate::section::encode::{FieldEncoder, Indexing};

const LIMITS: HeadLimits = HeadLimits {
    bytes: 65_536,
    fields: 24,
    target: 64,
    underscore: UnderscorePolicy::Reject,
    strict_te: false,
    websocket: true,
};

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn section(fields: Pairs<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    StaticEncoder.begin(&mut out);
    for (name, value) in fields {
        StaticEncoder.field(name.as_bytes(), value.as_bytes(), Indexing::No, &mut out);
    }
    out
}

fn limits() -> RequestLimits<'static> {
    RequestLimits { head: &LIMITS, list: 2048, extended_connect: true }
}

fn request(section: &[u8], end: bool) -> (RequestHead, Result<Option<u64>, RequestError>) {
    let mut head = RequestHead::default();
    let result = decode_request(&mut QpackDecoder::new(), section, end, &mut head, limits());
    (head, result)
}

fn response(section: &[u8], end: bool, to_head: bool) -> Result<(ResponseHead, Option<u64>), ResponseError> {
    let mut head = ResponseHead::default();
    decode_response(&mut QpackDecoder::new(), section, end, to_head, &mut head, 2048)
        .map(|content| (head, content))
}

/// The section in the only frame of `wire`.
fn unframed(wire: &[u8]) -> Vec<u8> {
    let (mut reader, mut rest) = (MessageReader::responses(u32::MAX), wire);
    let section = match reader.next(&mut rest) {
        Ok(Some(MessagePiece::Head(section))) => section.to_vec(),
        other => panic!("{other:?}"),
    };
    assert!(rest.is_empty());
    section
}

fn pairs(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|field| (text(field.name), text(field.value))).collect()
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":path", "/p?q"), (":authority", "a.example")];

#[test]
fn a_request_is_read_and_written() {
    let fields =
        [&GET[..], &[("cookie", "a=1"), ("te", "trailers"), ("x-a", "b"), ("cookie", "b=2")]].concat();
    let (head, content) = request(&section(&fields), true);
    assert_eq!((content, head.version, head.takes_trailers), (Ok(None), Version::H3, true));
    let mut head = head;
    head.fields.drop_hop_by_hop();
    let mut wire = Vec::new();
    encode_request(&head, b"https", &mut wire);
    let (again, content) = request(&unframed(&wire), true);
    assert_eq!((content, again.takes_trailers), (Ok(None), true));
    assert_eq!(
        (again.method(), again.target(), again.authority()),
        (&b"GET"[..], &b"/p?q"[..], &b"a.example"[..])
    );
    assert_eq!(again.fields.value_of(b"cookie"), Some(&b"a=1; b=2"[..]));
    assert_eq!(again.fields.value_of(b"x-a"), Some(&b"b"[..]));
}

#[test]
fn an_extended_connect_asks_for_an_upgrade_and_is_written_as_one() {
    let fields = [(":method", "CONNECT"), (":protocol", "websocket"), GET[1], GET[2], GET[3]];
    let (head, content) = request(&section(&fields), false);
    assert_eq!((content, head.method(), head.upgrade()), (Ok(None), &b"GET"[..], &b"websocket"[..]));
    let mut wire = Vec::new();
    encode_request(&head, b"https", &mut wire);
    let mut seen = Vec::new();
    let decoded = QpackDecoder::new().decode(&unframed(&wire), &mut |name, value, _| {
        seen.push((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()));
    });
    assert_eq!(decoded, Ok(()));
    let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    assert_eq!(seen, [(":method", "CONNECT"), GET[1], GET[2], GET[3], (":protocol", "websocket")].map(text));
    let mut wire = Vec::new();
    encode_response(&ResponseHead { status: 101, ..ResponseHead::default() }, &mut wire);
    assert_eq!(response(&unframed(&wire), false, false).unwrap().0.status, 200);
}

#[test]
fn q_10_malformed_requests_end_their_stream_and_broken_sections_the_connection() {
    for extra in [
        ("Upper", "x"),
        ("transfer-encoding", "chunked"),
        ("host", "other"),
        ("x", "a\nb"),
        (":status", "200"),
    ] {
        let (_, result) = request(&section(&[&GET[..], &[extra]].concat()), true);
        let Err(RequestError::Broken(error)) = result else { panic!("{extra:?}: {result:?}") };
        assert_eq!((error.code, error.scope), (H3Code::MESSAGE_ERROR, H3Scope::Stream), "{extra:?}");
    }
    let Err(RequestError::Broken(error)) = request(&[1, 0, 0x80], true).1 else { panic!() };
    assert_eq!((error.code, error.scope), (H3Code::QPACK_DECOMPRESSION_FAILED, H3Scope::Connection));
    let Err(ResponseError::Broken(error)) = response(&[], true, false) else { panic!() };
    assert_eq!(error.code, H3Code::QPACK_DECOMPRESSION_FAILED);
    assert!(matches!(
        response(&section(&[(":status", "101")]), false, false),
        Err(ResponseError::Malformed(_))
    ));
    let error = decode_trailers(&mut QpackDecoder::new(), &section(&[(":path", "/")])).unwrap_err();
    assert_eq!((error.code, error.scope), (H3Code::MESSAGE_ERROR, H3Scope::Stream));
}

#[test]
fn q_09_one_byte_that_stands_for_many_is_counted_as_many() {
    // Index 85, content-security-policy, of 75 bytes.
    let mut bomb = section(&GET);
    for _ in 0..20 {
        bomb.extend_from_slice(&[0xff, 85 - 63]);
    }
    let refused = RequestError::Answer(Reject::new(431, Reason::HeaderTooLarge));
    assert_eq!(request(&bomb, true).1, Err(refused));
    // The method is kept for the access log.
    assert_eq!(request(&bomb, true).0.method(), b"GET");
    let mut small = section(&GET);
    small.extend(std::iter::repeat_n(0xc0 | 2, 21));
    assert_eq!(request(&small, true).1, Err(refused));
}

#[test]
fn content_is_known_from_the_head() {
    let content = |fields: Pairs<'_>, end, to_head| response(&section(fields), end, to_head).unwrap().1;
    let ok = (":status", "200");
    assert_eq!(content(&[ok], false, false), None);
    assert_eq!(content(&[ok], true, false), Some(0));
    assert_eq!(content(&[ok, ("content-length", "7")], false, false), Some(7));
    for (status, to_head) in [("200", true), ("204", false), ("304", false)] {
        assert_eq!(
            content(&[(":status", status), ("content-length", "7")], false, to_head),
            Some(0),
            "{status}"
        );
    }
    let announced = [&GET[..], &[("content-length", "0")]].concat();
    assert_eq!(request(&section(&announced), false).1, Ok(Some(0)));
    assert_eq!(request(&section(&GET), false).1, Ok(None));
}

#[test]
fn responses_and_trailers_are_written() {
    let mut head = ResponseHead { status: 103, ..ResponseHead::default() };
    head.fields.push(b"Link", b"</a>; rel=preload");
    head.fields.push(b"X-Large", &[b'~'; 20_000]);
    let mut wire = Vec::new();
    encode_response(&head, &mut wire);
    let mut again = ResponseHead::default();
    decode_response(&mut QpackDecoder::new(), &unframed(&wire), false, false, &mut again, 65_536).unwrap();
    assert!(again.is_interim() && again.version == Version::H3);
    assert_eq!(pairs(&again.fields)[0], ("link".to_owned(), "</a>; rel=preload".to_owned()));
    assert_eq!(again.fields.value_of(b"x-large").map(<[u8]>::len), Some(20_000));

    let mut trailers = Fields::default();
    trailers.push(b"Grpc-Status", b"0");
    let mut wire = Vec::new();
    encode_trailers(&trailers, &mut wire);
    let read = decode_trailers(&mut QpackDecoder::new(), &unframed(&wire)).unwrap();
    assert_eq!(pairs(&read), [("grpc-status".to_owned(), "0".to_owned())]);
}

fn any_field() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        prop::sample::select(
            &[
                ":method",
                ":scheme",
                ":path",
                ":authority",
                ":protocol",
                ":status",
                "host",
                "te",
                "cookie",
                "content-length",
                "connection",
                "content-type",
                "x_y",
                "Upper",
                ""
            ][..]
        )
        .prop_map(str::to_owned),
        "[a-z-]{1,12}",
    ];
    let value = prop_oneof![
        prop::sample::select(
            &[
                "GET",
                "CONNECT",
                "https",
                "/",
                "a.example",
                "websocket",
                "200",
                "204",
                "trailers",
                "5",
                "0",
                "",
                " x",
                "a\nb"
            ][..]
        )
        .prop_map(str::to_owned),
        "[ -~]{0,20}",
    ];
    (name, value)
}

proptest! {
    /// HTTP/2 and HTTP/3 make the same of a list of fields, be it right or wrong.
    #[test]
    fn a_list_of_fields_means_what_it_means_in_http2(
        start in 0usize..=4,
        extra in prop::collection::vec(any_field(), 0..5),
        end in any::<bool>(),
        to_head in any::<bool>(),
    ) {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let fields: Vec<_> = GET[..start].iter().copied().map(own).chain(extra).collect();
        let (mut coded, mut block) = (Vec::new(), Vec::new());
        let (mut encoder, mut decoder) = (hpack::Encoder::new(), hpack::Decoder::new(4096));
        StaticEncoder.begin(&mut coded);
        for (name, value) in &fields {
            StaticEncoder.field(name.as_bytes(), value.as_bytes(), Indexing::Yes, &mut coded);
            encoder.field(name.as_bytes(), value.as_bytes(), Indexing::Yes, &mut block);
        }

        let (three, result) = request(&coded, end);
        let mut two = RequestHead::default();
        let mut reader = RequestReader::new(&mut two, limits(), Version::H2);
        decoder.decode(&block, &mut |name, value, _| reader.field(name, value)).unwrap();
        let expected = reader.finish(end).map_err(|refusal| match refusal {
            Refusal::Malformed(what) => RequestError::Broken(H3Error::message(what)),
            Refusal::Answer(reject) => RequestError::Answer(reject),
        });
        prop_assert_eq!(&result, &expected);
        prop_assert_eq!((three.method(), three.target(), three.authority(), three.upgrade(), three.body),
            (two.method(), two.target(), two.authority(), two.upgrade(), two.body));
        prop_assert_eq!(pairs(&three.fields), pairs(&two.fields));

        let three = response(&coded, end, to_head);
        let mut two = ResponseHead::default();
        let mut reader = ResponseReader::new(&mut two, 2048, Version::H2);
        hpack::Decoder::new(4096).decode(&block, &mut |name, value, _| reader.field(name, value)).unwrap();
        match (three, reader.finish(end, to_head)) {
            (Ok((three, _)), Ok(())) => {
                prop_assert_eq!((three.status, three.body), (two.status, two.body));
                prop_assert_eq!(pairs(&three.fields), pairs(&two.fields));
            }
            (Err(ResponseError::Malformed(three)), Err(two)) => prop_assert_eq!(three, two),
            (three, two) => prop_assert!(false, "{:?} {:?}", three, two),
        }
    }
}
