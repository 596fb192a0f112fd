//! Good peers that are fast: nothing that moves content, or gives up what it asked for, is taken for a flood, on either side.

use crate::rig::{BOTH, CELLS, Cell, config, listener};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::h2::{Event, code, frame, hpack};
use testkit::{Gateway, H2Backend, H2Client, Listener, Origin, Version, eventually, ms, pattern, seconds};

/// A backend for the paths of this module: `/messages/COUNT/SIZE` is a body of COUNT parts, each flushed; `/half` is a head and a first
/// part, and then nothing until it is given up; `/watch` is not even that.
fn origin(version: Version) -> (Origin, Arc<AtWork>) {
    let work = Arc::new(AtWork::default());
    let shared = Arc::clone(&work);
    let origin = Origin::start(version, move |exchange| {
        let path = exchange.path();
        let mut words = path.split('/').skip(1);
        let at_work = ["half", "watch"].map(|name| path.starts_with(&format!("/{name}")));
        if at_work.contains(&true) {
            if path.starts_with("/half") {
                exchange.start(200, &[])?;
                exchange.data(b"the first part")?;
            }
            shared.begun.fetch_add(1, Ordering::SeqCst);
            exchange.abandoned(seconds(60));
            shared.ended.fetch_add(1, Ordering::SeqCst);
            return Err(testkit::Fault::Closed);
        }
        if words.next() == Some("messages") {
            let mut number = || words.next().and_then(|word| word.parse::<usize>().ok()).unwrap();
            let (count, size) = (number(), number());
            exchange.start(200, &[])?;
            for part in pattern::bytes(count * size).chunks(size) {
                exchange.data(part)?;
            }
            return exchange.finish(&[]);
        }
        let seen = exchange.drain()?;
        exchange.respond(
            200,
            &[],
            format!("{} {}", seen.len(), if seen.wrong_at().is_none() { "right" } else { "wrong" })
                .as_bytes(),
        )
    });
    (origin, work)
}

#[derive(Default)]
struct AtWork {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

fn rig(back: Version) -> (Gateway, Origin, Arc<AtWork>) {
    rig_of(Cell { front: Version::H2, back })
}

fn rig_of(cell: Cell) -> (Gateway, Origin, Arc<AtWork>) {
    let (origin, work) = origin(cell.back);
    let gateway = Gateway::start(config().runtime("workers", 1).listener(cell.listener(&origin)));
    (gateway, origin, work)
}

/// gRPC measures the round trip by a PING after data. As many PINGs come as there are messages, and those for what was under way late.
pub(crate) fn a_ping_for_each_message_of_a_stream() {
    for back in BOTH {
        let (gateway, _origin, _) = rig(back);
        let mut client = H2Client::connect(gateway.front()).unwrap();
        let stream = client.open("GET", "/messages/9000/35", &[], true).unwrap();
        let mut pings = 0;
        while !client.streams[&stream].is_over() {
            client.step(seconds(10)).unwrap_or_else(|e| panic!("{back:?}, after {pings} pings: {e}"));
            // As many as there are messages, whatever the pace.
            let due = client.streams[&stream].data_frames - pings;
            client.send(frame::ping([1; 8]).repeat(due)).unwrap();
            pings += due;
        }
        client.streams[&stream].pattern.assert_complete(9_000 * 35);
        client.until("the answers", seconds(10), |c| c.pongs.len() == pings).unwrap();
        assert_eq!(client.goaways, [], "{back:?}: after {pings} pings");
    }
}

/// The same by a backend that is uploaded to, with two window updates for each message, as Go's servers do: the quiet call of another client
/// on the same connection goes on.
pub(crate) fn pings_of_a_backend_end_nobodys_call() {
    const STREAMS: usize = 50;
    const MESSAGES: usize = 200;
    let backend = H2Backend::raw(move |reader, _| {
        let (mut quiet, mut taken) = (None, BTreeMap::new());
        reader.wire.send(&frame::settings(&[]))?;
        reader.wire.set_timeout(seconds(60));
        let answer = |stream: u32, text: &[u8]| {
            let head = frame::headers(stream, hpack::block(&[(":status", "200")]), false);
            [head, frame::data(stream, text, true)].concat()
        };
        loop {
            match reader.event()? {
                Event::Settings(_) => reader.wire.send(&frame::settings_ack())?,
                Event::Headers { stream, headers, .. }
                    if headers.get(":path").as_deref() == Some("/quiet") =>
                {
                    quiet = Some(stream);
                }
                Event::Data { stream, bytes, end, .. } => {
                    let so_far = taken.entry(stream).or_insert(0);
                    *so_far += bytes.len();
                    let flow = u32::try_from(bytes.len()).unwrap();
                    let mut back = frame::ping([2; 8]);
                    if flow > 0 {
                        let updates = [frame::window_update(0, flow), frame::window_update(stream, flow)];
                        back.extend(updates.concat());
                    }
                    if end {
                        back.extend(answer(stream, so_far.to_string().as_bytes()));
                    }
                    if end && taken.len() == STREAMS {
                        back.extend(quiet.take().map(|quiet| answer(quiet, b"quiet")).unwrap_or_default());
                    }
                    reader.wire.send(&back)?;
                }
                _ => {}
            }
        }
    });
    let listener = Listener::h2c().h2_backend(backend.address);
    let gateway = Gateway::start(config().runtime("workers", 1).listener(listener));
    let mut other = H2Client::connect(gateway.front()).unwrap();
    let quiet = other.open("GET", "/quiet", &[], true).unwrap();
    eventually("the quiet call is there", seconds(5), || backend.connections() == 1);
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let uploads: Vec<u32> =
        (0..STREAMS).map(|_| client.open("POST", "/upload", &[], false).unwrap()).collect();
    for message in 1..=MESSAGES {
        // One frame for each stream, which nothing puts together.
        for upload in &uploads {
            client.data(*upload, &[7; 35], message == MESSAGES).unwrap();
        }
    }
    for upload in uploads {
        let answer = client.response(upload).unwrap_or_else(|e| panic!("{e}, {:?}", client.goaways));
        assert_eq!(answer.text(), (MESSAGES * 35).to_string());
    }
    assert_eq!(other.response(quiet).unwrap().text(), "quiet");
    assert_eq!((client.goaways.len(), other.goaways.len(), backend.connections()), (0, 0, 1));
}

/// Uploads of small messages: those of gRPC have five bytes at least.
pub(crate) fn an_upload_of_small_messages() {
    for back in BOTH {
        for (count, size) in [(15_000, 9), (60_000, 10), (60_000, 5)] {
            let (gateway, _origin, _) = rig(back);
            let mut client = H2Client::connect(gateway.front()).unwrap();
            let stream = client.open("POST", "/upload", &[], false).unwrap();
            for part in pattern::bytes(count * size).chunks(size * 500) {
                client
                    .until("room", seconds(10), |c| c.send_windows.room(stream) >= part.len())
                    .unwrap_or_else(|e| panic!("{back:?}, {count} of {size}: {e}, {:?}", client.goaways));
                client.send_windows.take(stream, part.len()).unwrap();
                let frames: Vec<u8> =
                    part.chunks(size).flat_map(|message| frame::data(stream, message, false)).collect();
                client.send(frames).unwrap_or_else(|e| panic!("{back:?}, {count} of {size}: {e}"));
            }
            client.send(frame::data(stream, b"", true)).unwrap();
            let answer = client.response(stream);
            let answer =
                answer.unwrap_or_else(|e| panic!("{back:?}, {count} of {size}: {e}, {:?}", client.goaways));
            assert_eq!(answer.text(), format!("{} right", count * size), "{back:?}");
        }
    }
}

/// Downloads of small messages, by a client that answers each frame with an update of both windows.
pub(crate) fn a_download_of_small_messages() {
    for cell in CELLS {
        for (count, size) in [(60_000, 10), (30_000, 1)] {
            let (gateway, _origin, _) = rig_of(cell);
            let mut front = testkit::Front::connect(cell.front, gateway.front()).unwrap();
            let answer = front.get(&format!("/messages/{count}/{size}"));
            let answer = answer.unwrap_or_else(|e| panic!("{cell:?}, {count} of {size}: {e}"));
            answer.pattern.assert_complete((count * size) as u64);
        }
    }
}

/// Who closes a body unread cancels its request after head and first DATA, again and again.
pub(crate) fn bodies_that_nobody_reads_to_the_end() {
    for back in BOTH {
        let (gateway, _origin, work) = rig(back);
        let mut client = H2Client::connect(gateway.front()).unwrap();
        let beside = client.open("GET", "/half", &[], true).unwrap();
        client.head(beside).unwrap();
        for round in 1..=600 {
            let stream = client.open("GET", "/half", &[], true).unwrap();
            client
                .until("a first part", seconds(10), |c| c.streams[&stream].data_frames > 0)
                .unwrap_or_else(|e| panic!("{back:?}, round {round}: {e}, {:?}", client.goaways));
            client.reset(stream, code::CANCEL).unwrap();
        }
        eventually("all is given up", seconds(10), || work.ended.load(Ordering::SeqCst) == 600);
        assert_eq!(client.goaways, [], "{back:?}");
        assert!(!client.streams[&beside].is_over());
    }
}

/// All that is open is given up at once, half answered or not answered at all, but for one.
pub(crate) fn everything_is_cancelled_at_once() {
    for back in BOTH {
        for path in ["/half", "/watch"] {
            let (gateway, _origin, work) = rig(back);
            let mut client = H2Client::connect(gateway.front()).unwrap();
            let download = client.open("GET", "/half", &[], true).unwrap();
            let streams: Vec<u32> = (0..250).map(|_| client.open("GET", path, &[], true).unwrap()).collect();
            eventually("all at work", seconds(30), || work.begun.load(Ordering::SeqCst) == 251);
            if path == "/half" {
                client
                    .until("first parts", seconds(30), |c| {
                        streams.iter().all(|stream| c.streams[stream].data_frames > 0)
                    })
                    .unwrap();
            }
            let resets: Vec<u8> = streams.iter().flat_map(|s| frame::rst_stream(*s, code::CANCEL)).collect();
            client.send(resets).unwrap();
            eventually("all is given up", seconds(30), || work.ended.load(Ordering::SeqCst) == 250);
            let next = client.request("POST", "/next", &[], b"").unwrap_or_else(|e| {
                panic!(
                    "{back:?}, {path}: the connection beside what was cancelled: {e}, {:?}",
                    client.goaways
                )
            });
            assert_eq!(next.text(), "0 right");
            assert_eq!(client.goaways, []);
            assert!(!client.streams[&download].is_over());
        }
    }
}

/// What one client asks for makes the backend break the protocol, stream by stream: the connection takes no more streams, and the call of
/// another client on it goes on.
pub(crate) fn faults_that_one_client_provokes_are_its_own() {
    let backend = H2Backend::start(|call| {
        if call.path() == "/quiet" {
            call.head(200, &[], false)?;
            call.data(b"one ", false)?;
            call.pause(ms(200));
            while call.connection() == 1 && !call.path().is_empty() && LIARS.load(Ordering::SeqCst) < 1500 {
                call.pause(ms(10));
            }
            return call.data(b"two", true);
        }
        LIARS.fetch_add(1, Ordering::SeqCst);
        // More than was promised.
        call.head(200, &[("content-length", "1")], false)?;
        call.raw(frame::data(call.stream, b"more than one", true))
    });
    static LIARS: AtomicUsize = AtomicUsize::new(0);
    LIARS.store(0, Ordering::SeqCst);
    let listener = Listener::h2c().h2_backend(backend.address);
    let gateway = Gateway::start(config().runtime("workers", 1).listener(listener));
    let mut other = H2Client::connect(gateway.front()).unwrap();
    let quiet = other.open("GET", "/quiet", &[], true).unwrap();
    other.head(quiet).unwrap();
    let mut client = H2Client::connect(gateway.front()).unwrap();
    for _ in 0..50 {
        let streams: Vec<u32> = (0..30).map(|_| client.open("GET", "/lie", &[], true).unwrap()).collect();
        for stream in streams {
            client.over(stream).unwrap();
        }
    }
    assert_eq!(other.response(quiet).unwrap().text(), "one two");
    assert!(backend.connections() <= 3, "{} connections", backend.connections());
}

/// The request of a connection that is ended for a flood was not given up by its client; and a line of the log says what was too much.
pub(crate) fn who_gave_up_is_told() {
    let (origin, work) = origin(Version::H1);
    let gateway = Gateway::start(
        config()
            .block("observability", "access_log", "stdout")
            .runtime("workers", 1)
            .listener(listener(&origin).h2("max_local_error_reset_streams", 5)),
    );
    let reasons = || -> Vec<String> {
        let lines = gateway.process.stdout.matching("\"target\":\"/half\"");
        lines
            .iter()
            .filter_map(|l| {
                serde_json::from_str::<serde_json::Value>(l).ok()?["reason"].as_str().map(str::to_owned)
            })
            .collect()
    };
    // A request without a method is a fault of its stream.
    fn malformed(client: &mut H2Client) -> Vec<u8> {
        frame::headers(client.next_stream(), hpack::block(&[("a", "b")]), true)
    }
    type Flood = fn(&mut H2Client) -> Vec<u8>;
    let floods: [(&str, Flood); 2] = [
        ("ping", |_| frame::ping([0; 8]).repeat(30_000)),
        ("local_reset", |client| (0..8).flat_map(|_| malformed(client)).collect()),
    ];
    for (at, (budget, flood)) in floods.into_iter().enumerate() {
        let mut client = H2Client::connect(gateway.front()).unwrap();
        client.open("GET", "/half", &[], true).unwrap();
        eventually("the request is there", seconds(5), || work.begun.load(Ordering::SeqCst) == 2 * at + 1);
        let flood = flood(&mut client);
        client.send_anyway(&flood);
        client.closed(seconds(5)).unwrap();
        assert_eq!(client.goaways.last().map(|g| g.code), Some(code::ENHANCE_YOUR_CALM), "{budget}");
        eventually("a line for it", seconds(5), || reasons().len() == 2 * at + 1);
        assert_eq!(reasons().last().unwrap(), budget);
        // Beside one that left by itself.
        let mut client = H2Client::connect(gateway.front()).unwrap();
        client.open("GET", "/half", &[], true).unwrap();
        eventually("the request is there", seconds(5), || work.begun.load(Ordering::SeqCst) == 2 * at + 2);
        drop(client);
        eventually("a line for it", seconds(5), || reasons().len() == 2 * at + 2);
        assert_eq!(reasons().last().unwrap(), "client_gone");
    }
    let line = gateway
        .process
        .stderr
        .wait("HTTP/2 connection of a client ended: a budget is used up", seconds(5))
        .unwrap();
    for part in ["\"client\"", "\"ping\"", "flood_budget_percent", "\"count\""] {
        assert!(line.contains(part), "{part}: {line}");
    }
}
