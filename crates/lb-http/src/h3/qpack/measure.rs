//! What a dynamic table would save and cost: sections of heads by the static table alone, beside those of HPACK, whose table is that of a
//! connection which repeats itself. The bytes are held to the table of decision 0035; `QPACK_ROUNDS=100000 cargo test --release -p lb-http --lib what_a_dynamic_table
//! -- --nocapture` prints that table, with times.

use std::hint::black_box;
use std::time::Instant;

use lb_core::head::{Fields, RequestHead, ResponseHead, Span};

use super::{QpackDecoder, StaticEncoder};
use crate::h2::hpack::decoder::Decoder;
use crate::h2::hpack::encoder::Encoder;
use crate::section::encode::{self, FieldEncoder};

/// How often each head is encoded and decoded where nothing else is asked for: times are not looked at then.
const ROUNDS: u32 = 10;

/// A browser's request.
const BROWSER: &[(&str, &str)] = &[
    ("sec-ch-ua", "\"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\", \"Google Chrome\";v=\"140\""),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Linux\""),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("referer", "https://www.example.com/shop/articles"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("cookie", "session=4f1c0a7be28d4f0bb0d8cf5e0a1e6a31; theme=dark; consent=all"),
    ("priority", "u=0, i"),
];

/// What the gateway adds for a backend.
const FORWARDED: &[(&str, &str)] = &[
    ("x-forwarded-for", "203.0.113.77"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "www.example.com"),
    ("via", "3 gateway"),
    ("x-request-id", "01968c5e-6a3b-7bd2-9c3a-5f1e0b7a9d44"),
];

const TOOL: &[(&str, &str)] = &[("user-agent", "curl/8.14.1"), ("accept", "*/*")];

const GRPC: &[(&str, &str)] = &[
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.74.2"),
    ("grpc-timeout", "4999m"),
    ("authorization", "Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzZXJ2aWNlIn0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"),
];

const PAGE: &[(&str, &str)] = &[
    ("server", "nginx"),
    ("date", "Sun, 29 Nov 2026 21:00:00 GMT"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-length", "14873"),
    ("cache-control", "private, max-age=0, must-revalidate"),
    ("etag", "\"3a19-62b7c1d0f5c40\""),
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("content-security-policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
    ("vary", "accept-encoding"),
    ("alt-svc", "h3=\":443\"; ma=86400"),
];

const SMALL: &[(&str, &str)] = &[
    ("date", "Sun, 29 Nov 2026 21:00:00 GMT"),
    ("content-type", "application/json"),
    ("content-length", "27"),
];

fn request(path: &str, fields: &[&[(&str, &str)]]) -> RequestHead {
    let mut head = RequestHead::default();
    let mut span = |text: &str| {
        let start = head.fields.append_text(text.as_bytes());
        Span::new(start, start + text.len())
    };
    (head.method, head.target, head.authority) = (span("GET"), span(path), span("www.example.com"));
    push(&mut head.fields, fields);
    head
}

fn response(fields: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead { status: 200, ..ResponseHead::default() };
    push(&mut head.fields, &[fields]);
    head
}

fn push(to: &mut Fields, fields: &[&[(&str, &str)]]) {
    fields
        .iter()
        .flat_map(|some| some.iter())
        .for_each(|(name, value)| to.push(name.as_bytes(), value.as_bytes()));
}

enum Head {
    Request(Box<RequestHead>),
    Response(Box<ResponseHead>),
}

fn encode(head: &Head, encoder: &mut impl FieldEncoder, out: &mut Vec<u8>) {
    out.clear();
    match head {
        Head::Request(head) => encode::request(head, b"https", encoder, out),
        Head::Response(head) => encode::response(head, encoder, out),
    }
}

fn nanos(mut run: impl FnMut()) -> f64 {
    let rounds = std::env::var("QPACK_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let once = |run: &mut dyn FnMut()| {
        let begun = Instant::now();
        (0..rounds).for_each(|_| run());
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(rounds)
    };
    (0..5).map(|_| once(&mut run)).fold(f64::MAX, f64::min)
}

#[test]
#[allow(clippy::print_stdout, reason = "a table for people")]
fn what_a_dynamic_table_saves_and_costs() {
    let request = |path, fields: &[&[(&str, &str)]]| Head::Request(Box::new(request(path, fields)));
    let response = |fields| Head::Response(Box::new(response(fields)));
    let heads = [
        ("request of a tool", request("/api/items/4711", &[TOOL]), (43, 44, 18)),
        ("request of a browser", request("/shop/articles/4711?size=42", &[BROWSER]), (485, 482, 286)),
        (
            "the same to a backend",
            request("/shop/articles/4711?size=42", &[BROWSER, FORWARDED]),
            (594, 599, 350),
        ),
        ("gRPC request", request("/example.Inventory/Reserve", &[GRPC]), (149, 145, 109)),
        ("response of an API", response(SMALL), (32, 44, 32)),
        ("response with a page", response(PAGE), (190, 263, 59)),
    ];
    println!(
        "| Head | bytes, static | bytes, dynamic, first | bytes, dynamic, later | encode ns, static | dynamic | decode ns, static | dynamic |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, head, bytes) in &heads {
        let (mut plain, mut first, mut later) = (Vec::new(), Vec::new(), Vec::new());
        encode(head, &mut StaticEncoder, &mut plain);
        let (mut encoder, mut decoder, mut qpack) = (Encoder::new(), Decoder::new(4096), QpackDecoder::new());
        encode(head, &mut encoder, &mut first);
        let mut count = 0_usize;
        let mut each = |name: &[u8], value: &[u8], _: bool| count += name.len() + value.len();
        decoder.decode(&first, &mut each).unwrap();
        encode(head, &mut encoder, &mut later);
        decoder.decode(&later, &mut each).unwrap();
        let mut out = Vec::with_capacity(4096);
        let encode_static = nanos(|| encode(black_box(head), &mut StaticEncoder, &mut out));
        let encode_dynamic = nanos(|| encode(black_box(head), &mut encoder, &mut out));
        let decode_static = nanos(|| qpack.decode(black_box(&plain), &mut each).unwrap());
        let decode_dynamic = nanos(|| decoder.decode(black_box(&later), &mut each).unwrap());
        let (plain, first, later) = (plain.len(), first.len(), later.len());
        println!(
            "| {name} | {plain} | {first} | {later} | {encode_static:.0} | {encode_dynamic:.0} | {decode_static:.0} | {decode_dynamic:.0} |"
        );
        assert_eq!((plain, first, later), *bytes, "{name}");
        assert!(count > 0, "{name}");
    }
}
