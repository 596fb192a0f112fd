//! The matrix of versions as one table: what each cell of it does.

use crate::rig::{CELLS, CELLS_TO_H3, Cell, Rig};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::front::Upload;
use testkit::{Exchange, Fault, Front, Version, eventually, ms, pattern, seconds, tunnel};

const MIB: usize = 1 << 20;

/// One row: its name, whether it can be in a cell at all, and what is done there.
type Row = (&'static str, fn(Cell) -> bool, fn(&Bench));

/// A gateway in a cell, before an origin that plays every part.
struct Bench {
    rig: Rig,
    cell: Cell,
    abandoned: Arc<AtomicUsize>,
}

fn everywhere(_: Cell) -> bool {
    true
}

/// gRPC needs HTTP/2 or HTTP/3 on both sides.
fn grpc(cell: Cell) -> bool {
    cell.front != Version::H1 && cell.back != Version::H1
}

const ROWS: &[Row] = &[
    ("GET", everywhere, get),
    ("1 MiB down", everywhere, down),
    ("1 MiB up", everywhere, up),
    ("streaming both ways", everywhere, streaming),
    ("trailers", everywhere, trailers),
    ("1xx", everywhere, interim),
    ("HEAD", everywhere, head),
    ("reset by the client", everywhere, reset_by_client),
    ("reset by the backend", everywhere, reset_by_backend),
    ("slow reader", everywhere, slow_reader),
    ("404", everywhere, missing),
    ("large headers", everywhere, large_headers),
    ("WebSocket", everywhere, websocket),
    ("gRPC unary", grpc, |bench| calls(bench, 1, 1)),
    ("gRPC client stream", grpc, |bench| calls(bench, 5, 1)),
    ("gRPC server stream", grpc, |bench| calls(bench, 1, 5)),
    ("gRPC both streams", grpc, |bench| calls(bench, 5, 5)),
];

/// A message of gRPC: not compressed, with its length.
fn message(text: &str) -> Vec<u8> {
    [&[0][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

/// The messages at the start of `bytes`, which are taken away.
fn messages(bytes: &mut Vec<u8>) -> Vec<String> {
    let mut found = Vec::new();
    while bytes.len() >= 5 {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        if bytes.len() < 5 + length {
            break;
        }
        found.push(String::from_utf8(bytes[5..5 + length].to_vec()).unwrap());
        bytes.drain(..5 + length);
    }
    found
}

/// Answers a call: each message of a call of both streams at once, others at its end, as often as the path says.
fn serve_call(exchange: &mut dyn Exchange) -> Result<(), Fault> {
    let path = exchange.path();
    let mut numbers = path.rsplit('/').map(|number| number.parse::<usize>().unwrap());
    let (answers, questions) = (numbers.next().unwrap(), numbers.next().unwrap());
    let interleaved = answers > 1 && questions > 1;
    exchange.start(200, &[("content-type", "application/grpc")])?;
    let (mut bytes, mut seen) = (Vec::new(), Vec::new());
    while let Some(piece) = exchange.piece()? {
        bytes.extend(piece);
        for text in messages(&mut bytes) {
            if interleaved {
                exchange.data(&message(&format!("to {text}")))?;
            }
            seen.push(text);
        }
    }
    for number in 0..if interleaved { 0 } else { answers } {
        exchange.data(&message(&format!("{number} to {}", seen.join(" "))))?;
    }
    exchange.finish(&[("grpc-status", "0"), ("grpc-message", "fine")])
}

impl Bench {
    fn new(cell: Cell) -> Bench {
        let abandoned = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&abandoned);
        let script = move |exchange: &mut dyn Exchange| {
            let path = exchange.path();
            if path.starts_with("/call/") {
                return serve_call(exchange);
            }
            if path == "/echo" {
                exchange.start(200, &[])?;
                while let Some(piece) = exchange.piece()? {
                    exchange.data(&piece)?;
                }
                return exchange.finish(&[]);
            }
            let seen = exchange.drain()?;
            match path.as_str() {
                "/down" => exchange.respond(200, &[], &pattern::bytes(MIB)),
                "/up" => {
                    seen.assert_complete(MIB as u64);
                    exchange.respond(200, &[], b"whole")
                }
                "/trailers" => {
                    exchange.start(200, &[("trailer", "x-after")])?;
                    exchange.data(b"data")?;
                    exchange.finish(&[("x-after", "1")])
                }
                "/hints" => {
                    exchange.interim(103, &[("link", "</a.css>; rel=preload")])?;
                    exchange.respond(200, &[], b"page")
                }
                "/missing" => exchange.respond(404, &[], b"missing"),
                "/large" => {
                    let large = "r".repeat(8000);
                    exchange.respond(200, &[("x-a", large.as_str()), ("x-b", &large), ("x-c", &large)], b"")
                }
                "/wait" => {
                    if exchange.abandoned(seconds(20)) {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(Fault::Closed)
                }
                "/break" => {
                    exchange.start_sized(200, &[], 1000)?;
                    exchange.data(b"the beginning")?;
                    std::thread::sleep(ms(100));
                    Err(exchange.abort())
                }
                _ if exchange.method() == "HEAD" => exchange.bare(200, &[("content-length", "1234")]),
                _ => exchange.respond(200, &[("x-name", "value")], b"one"),
            }
        };
        Bench { rig: Rig::scripted(cell, script), cell, abandoned }
    }

    fn front(&self) -> Front {
        self.rig.front()
    }
}

fn get(bench: &Bench) {
    let answer = bench.front().get("/").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "one"));
    assert_eq!(answer.headers.get("x-name").as_deref(), Some("value"));
}

fn down(bench: &Bench) {
    bench.front().get("/down").unwrap().pattern.assert_complete(MIB as u64);
}

fn up(bench: &Bench) {
    let mut front = bench.front();
    for upload in [Upload::Sized(MIB as u64), Upload::Unsized] {
        front.open("POST", "/up", &[], upload).unwrap();
        front.send(&pattern::bytes(MIB)).unwrap();
        front.finish(&[]).unwrap();
        assert_eq!(front.answer().unwrap().text(), "whole");
    }
}

/// Each part comes back before the next one leaves.
fn streaming(bench: &Bench) {
    let mut front = bench.front();
    front.open("POST", "/echo", &[], Upload::Unsized).unwrap();
    assert_eq!(front.head().unwrap().status, 200);
    for part in ["first", "other", "third"] {
        front.send(part.as_bytes()).unwrap();
        let mut came = Vec::new();
        while came.len() < part.len() {
            came.extend(front.piece().unwrap().expect("more"));
        }
        assert_eq!(came, part.as_bytes());
    }
    front.finish(&[]).unwrap();
    assert_eq!(front.piece().unwrap(), None);
}

fn trailers(bench: &Bench) {
    let mut front = bench.front();
    front.open("POST", "/trailers", &[("te", "trailers"), ("trailer", "x-sum")], Upload::Unsized).unwrap();
    front.send(b"wiki").unwrap();
    front.finish(&[("x-sum", "1")]).unwrap();
    let answer = front.answer().unwrap();
    assert_eq!((answer.text().as_str(), answer.trailers.get("x-after").as_deref()), ("data", Some("1")));
    assert_eq!(bench.rig.origin.last_request().trailers.get("x-sum").as_deref(), Some("1"));
}

fn interim(bench: &Bench) {
    let mut front = bench.front();
    front.open("GET", "/hints", &[], Upload::None).unwrap();
    let hints = front.interims(1).unwrap();
    assert_eq!(hints[0].0, 103);
    assert_eq!(hints[0].1.get("link").as_deref(), Some("</a.css>; rel=preload"));
    assert_eq!(front.answer().unwrap().text(), "page");
}

fn head(bench: &Bench) {
    let mut front = bench.front();
    let answer = front.request("HEAD", "/", &[], b"").unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.headers.get("content-length").as_deref(), Some("1234"));
    assert_eq!(front.get("/").unwrap().text(), "one");
}

fn reset_by_client(bench: &Bench) {
    let before = bench.rig.origin.request_count();
    let mut front = bench.front();
    front.open("GET", "/wait", &[], Upload::None).unwrap();
    bench.rig.origin.wait_requests(before + 1);
    let left = front.abort();
    eventually("the backend hears of it", seconds(8), || bench.abandoned.load(Ordering::SeqCst) == 1);
    if let Some(mut left) = left {
        assert_eq!(left.get("/").unwrap().text(), "one", "the connection goes on");
    }
}

fn reset_by_backend(bench: &Bench) {
    let mut front = bench.front();
    front.open("GET", "/break", &[], Upload::None).unwrap();
    assert_eq!(front.head().unwrap().status, 200);
    let fault = front.answer().expect_err("taken for whole");
    assert!(fault.is_gone(), "{fault}");
    if bench.cell.has_streams() {
        assert!(front.is_broken_off());
        assert_eq!(front.get("/").unwrap().text(), "one", "the connection goes on");
    }
}

/// A client that rests in the middle of its answer gets it whole, and keeps nobody else waiting.
fn slow_reader(bench: &Bench) {
    let mut front = bench.front();
    front.open("GET", "/down", &[], Upload::None).unwrap();
    front.head().unwrap();
    for _ in 0..5 {
        std::thread::sleep(ms(50));
        assert_eq!(bench.front().get("/").unwrap().text(), "one");
    }
    front.answer().unwrap().pattern.assert_complete(MIB as u64);
}

fn missing(bench: &Bench) {
    let answer = bench.front().get("/missing").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (404, "missing"));
}

fn large_headers(bench: &Bench) {
    let large = "q".repeat(8000);
    let fields = [("x-a", large.as_str()), ("x-b", &large), ("x-c", &large)];
    let answer = bench.front().request("GET", "/large", &fields, b"").unwrap();
    for name in ["x-a", "x-b", "x-c"] {
        assert_eq!(answer.headers.get(name), Some("r".repeat(8000)));
        assert_eq!(bench.rig.origin.last_request().headers.get(name).as_ref(), Some(&large));
    }
}

fn websocket(bench: &Bench) {
    let Cell { front, back } = bench.cell;
    let origin = tunnel::echo();
    let (gateway, _inner) = tunnel::gateways(tunnel::listener(front), back, &origin);
    tunnel::exchange(front, gateway.front(), &format!("{:?}", bench.cell));
}

fn calls(bench: &Bench, questions: usize, answers: usize) {
    let mut front = bench.front();
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    front.open("POST", &format!("/call/{questions}/{answers}"), &fields, Upload::Unsized).unwrap();
    let (mut bytes, mut seen) = (Vec::new(), Vec::new());
    for number in 0..questions {
        front.send(&message(&number.to_string())).unwrap();
        if questions > 1 && answers > 1 {
            // The answer comes before the next question is asked.
            while seen.len() <= number {
                bytes.extend(front.piece().unwrap().expect("an answer"));
                seen.extend(messages(&mut bytes));
            }
        }
    }
    front.finish(&[]).unwrap();
    let answer = front.answer().unwrap();
    assert_eq!(answer.headers.get("content-type").as_deref(), Some("application/grpc"));
    let all = messages(&mut answer.body.clone());
    assert_eq!(all.len(), answers, "{all:?}");
    assert!(seen.is_empty() || seen == all, "{seen:?} {all:?}");
    assert_eq!(answer.trailers.get("grpc-status").as_deref(), Some("0"));
    assert_eq!(answer.trailers.get("grpc-message").as_deref(), Some("fine"));
}

/// All nine, clients of one version together.
fn cells() -> impl Iterator<Item = Cell> {
    let versions = [Version::H1, Version::H2, Version::H3];
    versions
        .into_iter()
        .flat_map(|front| CELLS.into_iter().chain(CELLS_TO_H3).filter(move |cell| cell.front == front))
}

/// The table as Markdown.
fn table(results: &[Vec<&str>]) -> String {
    let name = |cell: &Cell| format!("{:?} → {:?}", cell.front, cell.back);
    let mut lines = vec![
        format!("| | {} |", cells().map(|cell| name(&cell)).collect::<Vec<_>>().join(" | ")),
        format!("|---|{}", "---|".repeat(cells().count())),
    ];
    lines.extend(
        ROWS.iter().zip(results).map(|(row, results)| format!("| {} | {} |", row.0, results.join(" | "))),
    );
    lines.join("\n")
}

pub(crate) fn every_version_to_every_version() {
    let mut results = vec![Vec::new(); ROWS.len()];
    let mut failures = Vec::new();
    for cell in cells() {
        let bench = Bench::new(cell);
        for ((name, is_possible, run), results) in ROWS.iter().zip(&mut results) {
            results.push(match is_possible(cell) {
                false => "–",
                true if catch_unwind(AssertUnwindSafe(|| run(&bench))).is_ok() => "yes",
                true => {
                    failures.push(format!("{name}, {cell:?}"));
                    "**no**"
                }
            });
        }
        bench.rig.origin.assert_clean();
    }
    let table = table(&results);
    eprintln!("{table}");
    assert!(failures.is_empty(), "{failures:#?}");
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&table), "README.md has another table");
}
