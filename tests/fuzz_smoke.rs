//! The fuzz targets without a fuzzer: each runs over its seeds, and over many mutations of them that are the same in every run.
//!
//! The seeds stand in `fuzz/seeds/`; longer runs that are guided by coverage are described in CONTRIBUTING.md. A failure prints its
//! input and how to run that input alone. `FUZZ_SEED` chooses another series of mutations, `FUZZ_CASES` another number of them, and
//! `FUZZ_INPUT` names a file to run in their place.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Mutations that each target runs over.
const CASES: u64 = 100_000;

/// Those of a target that shakes hands.
const FEW_CASES: u64 = 20_000;

/// The series that an ordinary run takes.
const SEED: u64 = 0x5eed;

/// No mutation makes an input longer than this.
const LONGEST: usize = 16 * 1024;

/// A target that works longer is taken to hang.
const GUARD: Duration = Duration::from_secs(60);

type Target = fn(&[u8]);

#[test]
fn request_head() {
    fuzz("request_head", lb_http::fuzz::request_head);
}

#[test]
fn response_head() {
    fuzz("response_head", lb_http::fuzz::response_head);
}

#[test]
fn chunked_body() {
    fuzz("chunked_body", lb_http::fuzz::chunked_body);
}

#[test]
fn hpack() {
    fuzz("hpack", lb_http::fuzz::hpack);
}

#[test]
fn frames() {
    fuzz("frames", lb_http::fuzz::frames);
}

#[test]
fn h3_request_stream() {
    fuzz("h3_request_stream", lb_http::fuzz::h3_request_stream);
}

#[test]
fn h3_control_stream() {
    fuzz("h3_control_stream", lb_http::fuzz::h3_control_stream);
}

#[test]
fn qpack() {
    fuzz("qpack", lb_http::fuzz::qpack);
}

#[test]
fn ws_frame() {
    fuzz("ws_frame", lb_http::fuzz::ws_frame);
}

#[test]
fn quic_header() {
    fuzz("quic_header", lb_quic::fuzz::quic_header);
}

#[test]
fn quic_datagrams() {
    fuzz_some("quic_datagrams", lb_quic::fuzz::quic_datagrams, FEW_CASES);
}

#[test]
fn quic_hello() {
    fuzz("quic_hello", lb_quic::fuzz::quic_hello);
}

#[test]
fn xdp_packet() {
    fuzz("xdp_packet", lb_l4_xdp::fuzz::xdp_packet);
}

#[test]
fn proxy_protocol() {
    fuzz("proxy_protocol", lb_core::fuzz::proxy_protocol);
}

#[test]
fn forwarded() {
    fuzz("forwarded", lb_core::fuzz::forwarded);
}

#[test]
fn client_hello() {
    fuzz_some("client_hello", lb_security::fuzz::client_hello, FEW_CASES);
}

#[test]
fn path_readings() {
    fuzz("path_readings", lb_core::fuzz::path_readings);
}

#[test]
fn route_match() {
    fuzz("route_match", lb_core::fuzz::route_match);
}

#[test]
fn template() {
    fuzz("template", lb_core::fuzz::template);
}

#[test]
fn a_planted_fault_is_found_and_comes_back_when_replayed() {
    // Neither seed holds both, so that only a splice or a token brings them together.
    let planted: Target = |input| {
        let has = |needle: &[u8]| input.windows(needle.len()).any(|window| window == needle);
        assert!(!(has(b"Transfer-Encoding: chunked\r\n") && has(b"Content-Length: 0\r\n")), "planted");
    };
    let seeds = [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"Content-Length: 1\r\n\r\n"].map(<[u8]>::to_vec);
    let (case, input) = first_failure(planted, &seeds, SEED, CASES).expect("the planted fault is found");
    assert_eq!(mutation(&seeds, SEED, case), input);
    assert!(!holds(planted, &input));
    assert!(first_failure(|_| {}, &seeds, SEED, 1_000).is_none());
}

/// Runs a target over its seeds and the mutations of them.
#[track_caller]
fn fuzz(name: &'static str, target: Target) {
    fuzz_some(name, target, CASES);
}

/// As [`fuzz`], over so many mutations.
#[track_caller]
fn fuzz_some(name: &'static str, target: Target, usual: u64) {
    if let Ok(file) = std::env::var("FUZZ_INPUT") {
        target(&std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}")));
        return;
    }
    let seeds = seeds(name);
    for (path, input) in &seeds {
        assert!(holds(target, input), "{name} fails on its seed {}", path.display());
    }
    let seeds: Vec<Vec<u8>> = seeds.into_iter().map(|(_, input)| input).collect();
    let (seed, cases) = (number("FUZZ_SEED").unwrap_or(SEED), number("FUZZ_CASES").unwrap_or(usual));
    if let Some((case, input)) = within_time(name, target, seeds, seed, cases) {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}-{case}"));
        std::fs::write(&file, &input).unwrap();
        panic!(
            "{name} fails on case {case} of seed {seed}:\n  b\"{}\"\nAlone: FUZZ_INPUT={} cargo test -p lb --test fuzz_smoke {name}",
            input.escape_ascii(),
            file.display()
        );
    }
}

/// [`first_failure`], on a thread that is not waited for when it hangs.
#[track_caller]
fn within_time(
    name: &'static str,
    target: Target,
    seeds: Vec<Vec<u8>>,
    seed: u64,
    cases: u64,
) -> Option<(u64, Vec<u8>)> {
    let (done, outcome) = sync_channel(1);
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(move || done.send(first_failure(target, &seeds, seed, cases))).unwrap();
    let mut seen = 0;
    loop {
        match outcome.recv_timeout(GUARD) {
            Ok(failure) => return failure,
            Err(RecvTimeoutError::Disconnected) => panic!("{name}: the thread vanished"),
            // A longer series is no fault as long as it moves.
            Err(RecvTimeoutError::Timeout) => {
                let now = progress(name).load(Ordering::Relaxed);
                assert!(now > seen, "{name} hangs on case {now} of seed {seed}");
                seen = now;
            }
        }
    }
}

/// The first case that fails, with its input.
fn first_failure(target: Target, seeds: &[Vec<u8>], seed: u64, cases: u64) -> Option<(u64, Vec<u8>)> {
    let thread = std::thread::current();
    let progress = progress(thread.name().unwrap_or_default());
    (1..=cases).find_map(|case| {
        progress.store(case, Ordering::Relaxed);
        let input = mutation(seeds, seed, case);
        (!holds(target, &input)).then_some((case, input))
    })
}

/// How far the target of that name has come.
fn progress(name: &str) -> &'static AtomicU64 {
    const KNOWN: [&str; 18] = [
        "request_head",
        "response_head",
        "chunked_body",
        "hpack",
        "client_hello",
        "forwarded",
        "frames",
        "h3_request_stream",
        "h3_control_stream",
        "qpack",
        "quic_header",
        "quic_datagrams",
        "quic_hello",
        "ws_frame",
        "path_readings",
        "proxy_protocol",
        "route_match",
        "template",
    ];
    static CASES: [AtomicU64; KNOWN.len() + 1] = [const { AtomicU64::new(0) }; KNOWN.len() + 1];
    let at = KNOWN.iter().position(|known| *known == name);
    &CASES[at.unwrap_or(KNOWN.len())]
}

/// Whether a target takes an input without panicking.
fn holds(target: Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| target(input))).is_ok()
}

/// The seeds of a target, in the order of their names.
#[track_caller]
fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 5, "{} holds {} seeds", dir.display(), paths.len());
    let read = |path: PathBuf| std::fs::read(&path).map(|input| (path, input)).unwrap();
    paths.into_iter().map(read).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// The input of a case. It depends on nothing but the arguments.
fn mutation(seeds: &[Vec<u8>], seed: u64, case: u64) -> Vec<u8> {
    let mut rng = Xorshift::new(seed, case);
    let mut input = seeds[rng.below(seeds.len())].clone();
    for _ in 0..=rng.below(8) {
        mutate(&mut input, seeds, &mut rng);
    }
    input.truncate(LONGEST);
    input
}

/// What parsers look for, or trip over.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\r\n ",
    b"\0",
    b":",
    b" :",
    b",",
    b";",
    b"\t",
    b"\x7f",
    b"\xff",
    b"0\r\n\r\n",
    b"-1",
    b"0x10",
    b"+5",
    b"ffffffffffffffff",
    b"10000000000000000",
    b"9999999999999999999",
    b"GET ",
    b"HEAD ",
    b"CONNECT ",
    b"OPTIONS * ",
    b"http://a",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"HTTP/1.1 101 x\r\n",
    b"HTTP/1.1 204 \r\n",
    b"Host: a\r\n",
    b"Host: b@c\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: Host, close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"chunked",
    b"keep-alive",
    b"X_Y: z\r\n",
    b";ext=\"a;b\"",
    // Headers of HTTP/2 frames, and fields of its compression.
    b"\0\0\x05\0\x01\0\0\0\x01",
    b"\0\0\x02\0\x08\0\0\0\x01\x01",
    b"\0\0\x01\x01\0\0\0\0\x01\x82",
    b"\0\0\x01\x09\x04\0\0\0\x01\x84",
    b"\0\0\x04\x08\0\0\0\0\x01",
    b"\x20\x3f\xe1\x1f",
    b"\x40\x01a\x01b\xbe",
    b"\x7e\x83\xff\xff\xff",
    b"\x81\x85\x01\x02\x03\x04",
    b"\x82\x03abc",
    b"\x02\xfe\x00\x7e",
    b"\x00\x7e\x01\x00",
    // Frames of HTTP/3, and fields of its compression.
    b"\x01\x06\0\0\xd1\xd7\xc1\x50",
    b"\x00\x03abc",
    b"\x00\x40\x40",
    b"\x21\x00",
    b"\x04\x02\x08\x01",
    b"\x07\x01\x04",
    b"\x80\x0f\x07\x00\x04\x00u=1",
    b"\x04\x00\xd9\x54\x01",
    b"\xff\x24",
    b"\x2f\x01\x25\xa8",
    b"\x3f\xbd\x01",
    b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\x82\xff\x00\x00\x00\x00\x00\x00\x01\x00",
    b"\x89\x80\x00\x00\x00\x00",
    b"\x88\x02\x03\xe8",
    // Paths that are read in several ways, and templates.
    b"/../",
    b"%2e%2E/",
    b"..;/",
    b"%2F..%2f",
    b"%5c",
    b"%252e",
    b"%3f",
    b"//",
    b"%C0%AF",
    b"a.b\n",
    b"?a=b&",
    b"Cookie: a=b\n",
    b"${path}",
    b"${header.a}",
    b"${status",
];

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Xorshift) {
    let at = place(input, rng);
    match rng.below(10) {
        0 if at < input.len() => input[at] ^= 1 << rng.below(8),
        1 if at < input.len() => input[at] = rng.byte(),
        2 => {
            let byte = rng.byte();
            input.insert(at, byte);
        }
        3 => {
            let range = rng.range(input.len(), 32);
            input.drain(range);
        }
        4..=6 => {
            let token = TOKENS[rng.below(TOKENS.len())];
            input.splice(at..at, token.iter().copied());
        }
        7 => {
            // A piece of the input once more, or many times more.
            let piece = input[rng.range(input.len(), 64)].to_vec();
            let times = if rng.below(16) == 0 { 64 } else { 1 + rng.below(3) };
            input.splice(at..at, piece.repeat(times));
        }
        8 => {
            let other = &seeds[rng.below(seeds.len())];
            input.splice(at..at, other[rng.range(other.len(), other.len())].iter().copied());
        }
        _ => {
            // The end of another seed in place of the own one.
            let other = &seeds[rng.below(seeds.len())];
            input.truncate(at);
            input.extend_from_slice(&other[rng.below(other.len() + 1)..]);
        }
    }
    input.truncate(LONGEST);
}

/// Anywhere, or at the start of a line, where whole lines fit in.
fn place(input: &[u8], rng: &mut Xorshift) -> usize {
    let anywhere = rng.below(input.len() + 1);
    if rng.below(2) == 0 {
        return anywhere;
    }
    input[anywhere..].iter().position(|byte| *byte == b'\n').map_or(anywhere, |end| anywhere + end + 1)
}

/// Marsaglia's xorshift: all that is asked of it is to be the same everywhere.
struct Xorshift(u64);

impl Xorshift {
    fn new(seed: u64, case: u64) -> Self {
        let mut rng =
            Self((seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ case.wrapping_mul(0xd6e8_feb8_6659_fd93)) | 1);
        // Neighbouring cases differ in few bits; a few turns spread them.
        for _ in 0..8 {
            rng.next();
        }
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % bound
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    /// A range within `length` of at most `most`.
    fn range(&mut self, length: usize, most: usize) -> Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start).min(most) + 1)
    }
}
