//! Both directions at once, ends that come early, and neighbours on one connection.

use crate::rig::{BOTH, CELLS, Cell, Rig};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::front::Upload;
use testkit::h2::{code, frame};
use testkit::{Exchange, Fault, Origin, Version, eventually, ms, pattern, seconds};

pub(crate) fn echo_flows_before_the_upload_ends() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        for upload in [Upload::Unsized, Upload::Sized(75)] {
            let mut front = rig.front();
            front.open("POST", "/stream-echo", &[], upload).unwrap();
            let head =
                front.head().unwrap_or_else(|e| panic!("{cell:?}: the head waits for the upload: {e}"));
            assert_eq!(head.status, 200, "{cell:?}");
            for round in 0..5 {
                let part = format!("round {round}, there");
                assert_eq!(part.len(), 14);
                front.send(format!("{part}\n").as_bytes()).unwrap();
                let mut came = Vec::new();
                while came.len() < 15 {
                    let piece = front.piece().unwrap_or_else(|e| panic!("{cell:?}, round {round}: {e}"));
                    came.extend(piece.expect("more"));
                }
                assert_eq!(came, format!("{part}\n").as_bytes(), "{cell:?}");
            }
            front.finish(&[]).unwrap();
            assert_eq!(front.piece().unwrap(), None, "{cell:?}");
            assert_eq!(front.get("/").unwrap().text(), "one", "{cell:?}: the connection goes on");
        }
        rig.origin.assert_clean();
    }
}

/// Eight mebibytes each way in one exchange.
pub(crate) fn a_flood_each_way() {
    const SIZE: usize = 8 << 20;
    for back in BOTH {
        let rig = Rig::standard(Cell { front: Version::H2, back });
        let usage = testkit::Usage::watch(&rig.gateway);
        let mut client = rig.h2();
        let stream = client.open("POST", "/stream-echo", &[], false).unwrap();
        client.data(stream, &pattern::bytes(SIZE), true).unwrap_or_else(|e| panic!("{back:?}: {e}"));
        client
            .response(stream)
            .unwrap_or_else(|e| panic!("{back:?}: {e}"))
            .pattern
            .assert_complete(SIZE as u64);
        usage.assert_grew_less_than(&rig.gateway, 8 << 20);
        rig.origin.assert_clean();
    }
}

/// Counts what is at work, and what was abandoned.
#[derive(Default)]
struct Tally {
    begun: AtomicUsize,
    abandoned: AtomicUsize,
}

fn waiting(
    tally: &Arc<Tally>,
    start: impl Fn(&mut dyn Exchange) -> Result<(), Fault> + Send + Sync + 'static,
) -> impl Fn(&mut dyn Exchange) -> Result<(), Fault> + Send + Sync + 'static {
    let tally = Arc::clone(tally);
    move |exchange| {
        if exchange.path() == "/next" {
            exchange.drain()?;
            return exchange.respond(200, &[], b"next");
        }
        tally.begun.fetch_add(1, Ordering::SeqCst);
        let outcome = start(exchange);
        let gone = match outcome {
            Ok(()) => exchange.abandoned(seconds(10)),
            Err(Fault::Reset | Fault::Closed | Fault::Truncated(_)) => true,
            Err(_) => false,
        };
        if gone {
            tally.abandoned.fetch_add(1, Ordering::SeqCst);
        }
        Err(Fault::Closed)
    }
}

fn abort_reaches_the_backend(
    case: &str,
    upload: Upload,
    awaits_head: bool,
    start: fn(&mut dyn Exchange) -> Result<(), Fault>,
) {
    for cell in CELLS {
        let tally = Arc::new(Tally::default());
        let rig = Rig::scripted(cell, waiting(&tally, start));
        let mut front = rig.front();
        front.open("POST", "/", &[], upload).unwrap();
        if upload != Upload::None {
            front.send(&pattern::bytes(1000)).unwrap();
        }
        if awaits_head {
            assert_eq!(front.head().unwrap().status, 200, "{case}, {cell:?}");
        }
        eventually("the request arrives", seconds(5), || tally.begun.load(Ordering::SeqCst) == 1);
        let connection = front.abort();
        eventually(&format!("{case}, {cell:?}: the backend hears of it"), seconds(8), || {
            tally.abandoned.load(Ordering::SeqCst) == 1
        });
        assert!(!rig.origin.requests()[0].complete || upload == Upload::None, "{case}, {cell:?}");
        if let Some(mut client) = connection {
            assert_eq!(client.get("/next").unwrap().text(), "next", "{case}, {cell:?}: the neighbours");
        }
        assert_eq!(rig.front().get("/next").unwrap().text(), "next", "{case}, {cell:?}: others");
        if let Origin::H2(backend) = &rig.origin {
            assert_eq!(backend.requests()[0].reset, Some(code::CANCEL), "{case}, {cell:?}");
            assert_eq!(
                backend.connections(),
                1,
                "{case}, {cell:?}: a cancelled stream has cost its connection"
            );
        }
        rig.origin.assert_clean();
    }
}

pub(crate) fn client_abort_before_the_answer() {
    abort_reaches_the_backend("waiting", Upload::None, false, |exchange| exchange.drain().map(drop));
}

pub(crate) fn client_abort_in_the_upload() {
    abort_reaches_the_backend("upload", Upload::Sized(1_000_000), false, |exchange| {
        exchange.drain().map(drop)
    });
    abort_reaches_the_backend("upload without length", Upload::Unsized, false, |exchange| {
        exchange.drain().map(drop)
    });
}

pub(crate) fn client_abort_in_the_response() {
    abort_reaches_the_backend("response", Upload::None, true, |exchange| {
        exchange.drain()?;
        exchange.start(200, &[])?;
        exchange.data(b"the beginning")
    });
}

pub(crate) fn backend_abort_in_the_response() {
    for cell in CELLS {
        for sized in [true, false] {
            let rig = Rig::scripted(cell, move |exchange| {
                exchange.drain()?;
                if exchange.path() == "/next" {
                    return exchange.respond(200, &[], b"next");
                }
                if sized {
                    exchange.start_sized(200, &[], 1000)?;
                } else {
                    exchange.start(200, &[])?;
                }
                exchange.data(b"the beginning")?;
                std::thread::sleep(ms(200));
                Err(exchange.abort())
            });
            let mut front = rig.front();
            front.open("GET", "/", &[], Upload::None).unwrap();
            assert_eq!(front.head().unwrap().status, 200, "{cell:?}");
            let outcome = front.answer();
            let fault = outcome.err().unwrap_or_else(|| panic!("{cell:?}, sized {sized}: taken for whole"));
            assert!(fault.is_gone(), "{cell:?}, sized {sized}: {fault}");
            if cell.has_streams() {
                assert!(front.is_broken_off(), "{cell:?}, sized {sized}");
                assert_eq!(front.get("/next").unwrap().text(), "next", "{cell:?}: the connection goes on");
            }
        }
    }
}

pub(crate) fn backend_abort_before_the_response() {
    for cell in CELLS {
        let rig = Rig::scripted(cell, |exchange| {
            exchange.drain()?;
            Err(exchange.abort())
        });
        let answer =
            rig.front().request("POST", "/", &[], b"body").unwrap_or_else(|e| panic!("{cell:?}: {e}"));
        assert_eq!(answer.status, 502, "{cell:?}");
        assert_eq!(rig.origin.request_count(), 1, "{cell:?}: a POST was sent again");
    }
}

/// The answers come in the order in which they are ready.
pub(crate) fn many_streams_on_one_connection() {
    for back in BOTH {
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let rig = Rig::scripted(Cell { front: Version::H2, back }, move |exchange| {
            match exchange.path().as_str() {
                "/slow" => {
                    wait.lock().unwrap().recv_timeout(seconds(50)).map_err(|_| Fault::TimedOut)?;
                    exchange.respond(200, &[], b"slow")
                }
                "/large" => exchange.respond(200, &[], &pattern::bytes(500_000)),
                _ => exchange.respond(200, &[], b"one"),
            }
        });
        let mut client = rig.h2();
        let slow = client.open("GET", "/slow", &[], true).unwrap();
        let large: Vec<u32> = (0..10).map(|_| client.open("GET", "/large", &[], true).unwrap()).collect();
        let small: Vec<u32> = (0..100).map(|_| client.open("GET", "/", &[], true).unwrap()).collect();
        for stream in small {
            assert_eq!(client.response(stream).unwrap().text(), "one", "{back:?}");
        }
        for stream in large {
            client.response(stream).unwrap().pattern.assert_complete(500_000);
        }
        go_on.send(()).unwrap();
        assert_eq!(client.response(slow).unwrap().text(), "slow", "{back:?}");
        assert_eq!(rig.origin.request_count(), 111);
        rig.origin.assert_clean();
    }
}

/// Uploads that take turns frame by frame stay apart.
pub(crate) fn interleaved_uploads() {
    for back in BOTH {
        let rig = Rig::standard(Cell { front: Version::H2, back });
        let mut client = rig.h2();
        let streams: Vec<u32> = (0..8).map(|_| client.open("POST", "/upload", &[], false).unwrap()).collect();
        let body = pattern::bytes(200_000);
        for piece in body.chunks(5000) {
            for stream in &streams {
                client.data(*stream, piece, false).unwrap_or_else(|e| panic!("{back:?}: {e}"));
            }
        }
        for stream in streams {
            client.send(frame::data(stream, [], true)).unwrap();
            assert_eq!(client.response(stream).unwrap().text(), "200000 right", "{back:?}");
        }
        rig.origin.assert_clean();
    }
}

/// Whatever becomes of one stream, the others on the same connection do not notice.
pub(crate) fn a_bad_stream_never_costs_its_neighbours() {
    for back in BOTH {
        let rig = Rig::scripted(Cell { front: Version::H2, back }, |exchange| {
            exchange.drain()?;
            match exchange.path().as_str() {
                "/abort" => Err(exchange.abort()),
                "/half" => {
                    exchange.start(200, &[])?;
                    exchange.data(b"half")?;
                    Err(exchange.abort())
                }
                "/bad-head" => exchange.respond(200, &[("x bad", "1")], b""),
                _ => {
                    std::thread::sleep(ms(300));
                    exchange.respond(200, &[], b"neighbour")
                }
            }
        });
        let mut client = rig.h2();
        let neighbours: Vec<u32> = (0..20).map(|_| client.open("GET", "/good", &[], true).unwrap()).collect();
        rig.origin.wait_requests(20);
        let bad: Vec<u32> = ["/abort", "/half", "/bad-head"]
            .iter()
            .flat_map(|path| [*path; 3])
            .map(|path| client.open("GET", path, &[], true).unwrap())
            .collect();
        client.send(frame::window_update(bad[0], 0x7fff_ffff)).unwrap();
        for stream in neighbours {
            let response =
                client.response(stream).unwrap_or_else(|e| panic!("{back:?}: {e}, {:?}", client.goaways));
            assert_eq!(response.text(), "neighbour", "{back:?}");
        }
        for stream in bad {
            let outcome = client.over(stream).unwrap();
            assert!(outcome.status() == 502 || outcome.reset.is_some(), "{back:?}: {}", outcome.status());
        }
        assert_eq!(client.goaways, [], "{back:?}");
    }
}
