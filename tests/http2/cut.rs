//! Responses that are not carried to their end: what cuts them, what must not, and who is told.

use crate::rig::{CELLS, Cell, Rig};
use std::time::Instant;
use testkit::{Fault, Front, Origin, Version, ms, request, seconds};

const LINE: &str = "response cut before its end";

/// An origin that answers with a tick each so many milliseconds, as the path says, ten times.
fn ticking(cell: Cell) -> Origin {
    Origin::start(cell.back, |exchange| {
        let path = exchange.path();
        let pause = path.trim_start_matches('/').parse().unwrap_or(0);
        exchange.drain()?;
        exchange.start(200, &[])?;
        for _ in 0..10 {
            exchange.data(b"tick")?;
            std::thread::sleep(ms(pause));
        }
        exchange.finish(&[])
    })
}

/// Whether the response ended before its end, visibly.
fn is_cut(front: &mut Front) -> bool {
    loop {
        match front.piece() {
            Ok(Some(_)) => {}
            Ok(None) => return front.is_broken_off(),
            Err(fault) => return fault.is_gone(),
        }
    }
}

pub(crate) fn silence_cuts_a_response_and_says_so() {
    for cell in CELLS {
        let rig = Rig::on(cell, ticking(cell), |listener| listener.http("response_idle_timeout_ms", 800));
        // Longer than the limit in all, never silent for as long.
        let mut front = rig.front();
        assert_eq!(front.get("/150").unwrap().text(), "tick".repeat(10), "{cell:?}");
        assert_eq!(rig.gateway.process.stderr.count(LINE), 0, "{cell:?}");
        let start = Instant::now();
        front.open("GET", "/3000", &[], testkit::front::Upload::None).unwrap();
        assert_eq!(front.head().unwrap().status, 200, "{cell:?}");
        assert!(is_cut(&mut front), "{cell:?}");
        assert!(start.elapsed() >= ms(750), "{cell:?}: after {:?}", start.elapsed());
        let line = rig.gateway.process.stderr.wait(LINE, seconds(5)).unwrap_or_else(|| panic!("{cell:?}"));
        assert!(line.contains("response_idle_timeout_ms") && line.contains("\"timeout\""), "{line}");
        assert!(line.contains("127.0.0.1"), "{line}");
    }
}

pub(crate) fn the_total_cuts_a_response_and_says_so() {
    for cell in CELLS {
        let rig = Rig::on(cell, ticking(cell), |listener| listener.http("total_timeout_ms", 700));
        let mut front = rig.front();
        for _ in 0..2 {
            front.open("GET", "/100", &[], testkit::front::Upload::None).unwrap();
            assert_eq!(front.head().unwrap().status, 200, "{cell:?}");
            assert!(is_cut(&mut front), "{cell:?}");
            front = rig.front();
        }
        let line = rig.gateway.process.stderr.wait(LINE, seconds(5)).unwrap_or_else(|| panic!("{cell:?}"));
        assert!(line.contains("total_timeout_ms"), "{line}");
    }
}

/// A client that does not read, and a backend that ends too early. The lines of many clients do not fill the disk.
pub(crate) fn other_ends_are_told_too_and_seldom() {
    let cell = Cell { front: Version::H1, back: Version::H1 };
    let rig = Rig::on(cell, Origin::standard(Version::H1, "one"), |l| l.http("write_timeout_ms", 400));
    let mut client = testkit::Client::connect_narrow(rig.gateway.front()).unwrap();
    client.send(request("GET", "/bytes/30000000", &[], b"")).unwrap();
    client.head("GET").unwrap();
    let line = rig.gateway.process.stderr.wait(LINE, seconds(10)).expect("a line");
    assert!(line.contains("write_timeout_ms"), "{line}");

    let rig = Rig::scripted(cell, |exchange| {
        exchange.start_sized(200, &[], 100)?;
        exchange.data(b"part")?;
        Err(Fault::Closed)
    });
    for _ in 0..60 {
        assert!(rig.gateway.client().get("/").is_err_and(|fault| fault.is_gone()));
    }
    let line = rig.gateway.process.stderr.wait(LINE, seconds(5)).expect("a line");
    assert!(line.contains("truncated") || line.contains("reset"), "{line}");
    let lines = rig.gateway.process.stderr.count(LINE);
    assert!((1..60).contains(&lines), "{lines} lines");
}

const CONNECTION: &str = "HTTP/2 connection of a client ended with responses under way";

/// What ends a whole connection says so once, with the number of the responses that it cuts; without any it is no news.
pub(crate) fn a_connection_that_ends_tells_of_its_responses() {
    let cell = Cell { front: Version::H2, back: Version::H1 };
    let pings = |listener: testkit::Listener| {
        listener.http("write_timeout_ms", 400).block("h2_security", "keep_alive_interval_ms", 300).block(
            "h2_security",
            "keep_alive_timeout_ms",
            300,
        )
    };
    let rig = Rig::on(cell, ticking(cell), pings);
    let line = |words: [&str; 2]| {
        let line = rig.gateway.process.stderr.wait(CONNECTION, seconds(10)).expect("a line");
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    };
    testkit::H2Client::connect(rig.gateway.front()).unwrap().ignore_pings().closed(seconds(10)).unwrap();
    assert_eq!(rig.gateway.process.stderr.count(CONNECTION), 0);
    let mut silent = testkit::H2Client::connect(rig.gateway.front()).unwrap().ignore_pings();
    let streams = [0, 1].map(|_| silent.open("GET", "/3000", &[], true).unwrap());
    for stream in streams {
        silent.head(stream).unwrap();
    }
    silent.closed(seconds(10)).unwrap();
    line(["h2_security.keep_alive_timeout_ms", "\"responses\":2"]);

    // A client that takes nothing is noticed by its response or by its connection, whichever comes first: one of them says so.
    let rig = Rig::on(cell, Origin::standard(Version::H1, "one"), |l| l.http("write_timeout_ms", 400));
    let mut client = testkit::H2Client::connect_narrow(rig.gateway.front(), &[(4, 1 << 30)]).unwrap();
    client.credit(0, 1 << 30).unwrap();
    let stream = client.open("GET", "/bytes/30000000", &[], true).unwrap();
    client.head(stream).unwrap();
    let stderr = &rig.gateway.process.stderr;
    let lines = || [stderr.matching(LINE), stderr.matching(CONNECTION)].concat();
    testkit::eventually("a line", seconds(10), || !lines().is_empty());
    assert!(lines()[0].contains("write_timeout_ms"), "{:?}", lines());
}
