//! How connections begin and end: caps, drain, keep-alive.

use crate::rig::{BOTH, Cell, Rig, config, listener, with_origin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::h2::backend::Manners;
use testkit::h2::{Event, code, frame, hpack, setting};
use testkit::process::SIGTERM;
use testkit::{
    Fault, Front, Gateway, H2Backend, H2Client, Listener, Origin, Version, eventually, ms, seconds,
};

pub(crate) fn drain_lets_running_streams_finish() {
    for back in BOTH {
        let origin = Origin::standard(back, "one");
        let config = config().runtime("drain_timeout_ms", 8000).listener(listener(&origin));
        let mut gateway = Gateway::start(config);
        let mut client = H2Client::connect(gateway.front()).unwrap();
        client.get("/").unwrap();
        let mut idle = H2Client::connect(gateway.front()).unwrap();
        let slow: Vec<u32> = (0..5).map(|_| client.open("GET", "/slow/1500", &[], true).unwrap()).collect();
        let upload = client.open("POST", "/upload", &[], false).unwrap();
        client.data(upload, &testkit::pattern::bytes(1000), false).unwrap();
        origin.wait_requests(7);
        gateway.process.signal(SIGTERM);
        client
            .until("GOAWAY", seconds(5), |c| !c.goaways.is_empty())
            .unwrap_or_else(|e| panic!("{back:?}: {e}"));
        // The upload goes on, and ends.
        let rest = testkit::pattern::bytes(3000);
        client.data(upload, &rest[1000..], true).unwrap();
        assert_eq!(client.response(upload).unwrap().text(), "3000 right", "{back:?}");
        for stream in slow {
            assert_eq!(client.response(stream).unwrap().text(), "one", "{back:?}");
        }
        client.closed(seconds(5)).unwrap_or_else(|e| panic!("{back:?}: {e}"));
        assert!(client.goaways.iter().all(|g| g.code == code::NO_ERROR), "{back:?}: {:?}", client.goaways);
        assert_eq!(client.goaways.last().map(|g| g.last), Some(upload), "{back:?}: the last stream");
        idle.closed(seconds(5)).unwrap();
        assert_eq!(
            idle.goaways.last().map(|g| (g.last, g.code)),
            Some((0, code::NO_ERROR)),
            "{back:?}: an idle one"
        );
        assert_eq!(gateway.process.wait_exit(seconds(8)), Some(0), "{back:?}");
        origin.assert_clean();
    }
}

/// A stream above the last one of GOAWAY was not processed: the client may send it elsewhere.
pub(crate) fn streams_after_goaway_are_not_processed() {
    let origin = Origin::standard(Version::H1, "one");
    let config = config().runtime("drain_timeout_ms", 8000).listener(listener(&origin));
    let mut gateway = Gateway::start(config);
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let slow = client.open("GET", "/slow/2000", &[], true).unwrap();
    origin.wait_requests(1);
    gateway.process.signal(SIGTERM);
    // The first GOAWAY may announce the end with a last stream of 2^31-1; what counts is the second.
    client.until("GOAWAY", seconds(5), |c| c.goaways.iter().any(|g| g.last < 1000)).unwrap();
    client.open("GET", "/late", &[], true).unwrap();
    assert_eq!(client.response(slow).unwrap().text(), "one");
    client.closed(seconds(5)).unwrap();
    assert!(origin.requests().iter().all(|r| r.path != "/late"), "processed after the GOAWAY that denies it");
    assert_eq!(gateway.process.wait_exit(seconds(8)), Some(0));
}

pub(crate) fn drain_has_an_end() {
    let origin = Origin::standard(Version::H1, "one");
    let mut gateway = Gateway::start(config().runtime("drain_timeout_ms", 700).listener(listener(&origin)));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let slow = client.open("GET", "/slow/20000", &[], true).unwrap();
    origin.wait_requests(1);
    gateway.process.signal(SIGTERM);
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(3), "the deadline was missed");
    client.pump(seconds(1));
    assert!(client.gone.is_some() && !client.streams[&slow].ended);
}

/// Before its first byte it is not known what a client speaks; a drain does not wait for that byte for as long as is allowed otherwise.
pub(crate) fn drain_ends_connections_that_have_said_nothing() {
    let origin = Origin::standard(Version::H1, "one");
    let listener = listener(&origin).http("header_timeout_ms", 60_000);
    let mut gateway = Gateway::start(config().runtime("drain_timeout_ms", 50_000).listener(listener));
    let mut silent = gateway.client();
    // Known to have been accepted: it came before one that was served.
    assert_eq!(gateway.get("/").status, 200);
    std::thread::sleep(ms(1200));
    let mut late = gateway.client();
    gateway.process.signal(SIGTERM);
    silent.closed(seconds(5)).unwrap();
    late.closed(seconds(5)).unwrap();
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
}

/// A backend's connections are let go as well, with GOAWAY or at least with their end.
pub(crate) fn drain_lets_backends_go() {
    let backend = H2Backend::start(|call| call.respond(200, &[], b"one"));
    let mut gateway = Gateway::start(config().listener(Listener::h2c().h2_backend(backend.address)));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.stop(seconds(10)), 0);
    eventually("the backend's connection ends", seconds(5), || backend.open_connections() == 0);
    backend.assert_clean();
}

pub(crate) fn max_requests_per_h2_connection_ends_it() {
    for back in BOTH {
        let origin = Origin::standard(back, "one");
        let gateway =
            Gateway::start(config().runtime("max_requests_per_h2_connection", 5).listener(listener(&origin)));
        let mut client = H2Client::connect(gateway.front()).unwrap();
        let mut last = 0;
        for number in 1..=5 {
            last = client.open("GET", "/", &[], true).unwrap();
            assert_eq!(client.response(last).unwrap().text(), "one", "{back:?}, request {number}");
        }
        client.closed(seconds(5)).unwrap_or_else(|e| panic!("{back:?}: {e}"));
        assert_eq!(client.goaways.last().map(|g| (g.last, g.code)), Some((last, code::NO_ERROR)), "{back:?}");
        // With streams in parallel: those beyond the cap are refused or not processed, never lost in silence.
        let mut client = H2Client::connect(gateway.front()).unwrap();
        let streams: Vec<u32> = (0..12).map(|_| client.open("GET", "/", &[], true).unwrap()).collect();
        client.closed(seconds(5)).unwrap_or_else(|e| panic!("{back:?}: {e}"));
        let promised = client.goaways.last().map_or(0, |g| g.last);
        for stream in streams {
            let state = &client.streams[&stream];
            let unprocessed = stream > promised || state.reset == Some(code::REFUSED_STREAM);
            assert!(state.ended || unprocessed, "{back:?}: stream {stream}, GOAWAY says {promised}");
        }
        assert!(client.streams.values().filter(|s| s.ended).count() >= 5, "{back:?}");
    }
    // 0 is no cap.
    let origin = Origin::standard(Version::H1, "one");
    let gateway = Gateway::start(config().listener(listener(&origin)));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    (0..250).for_each(|_| assert_eq!(client.get("/").unwrap().status(), 200));
    assert_eq!(client.goaways, []);
}

pub(crate) fn keep_alive_pings_find_dead_clients() {
    let origin = Origin::standard(Version::H1, "one");
    let keys = listener(&origin).h2("keep_alive_interval_ms", 300).h2("keep_alive_timeout_ms", 500);
    let gateway = Gateway::start(config().listener(keys));
    // Whoever answers stays.
    let mut alive = H2Client::connect(gateway.front()).unwrap();
    let mut dead = H2Client::connect(gateway.front()).unwrap().ignore_pings();
    let waiting = dead.open("GET", "/slow/8000", &[], true).unwrap();
    let mine = alive.open("GET", "/slow/2500", &[], true).unwrap();
    assert_eq!(alive.response(mine).unwrap().text(), "one");
    assert!(alive.pings >= 3, "{} PINGs in 2.5 s", alive.pings);
    dead.closed(seconds(5)).expect("the end of a connection that does not answer PING");
    assert!(dead.pings >= 1 && !dead.streams[&waiting].ended);
    // 0 is off.
    let off = listener(&origin).h2("keep_alive_interval_ms", 0);
    let gateway = Gateway::start(config().listener(off));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let stream = client.open("GET", "/slow/1000", &[], true).unwrap();
    client.response(stream).unwrap();
    assert_eq!(client.pings, 0);
}

pub(crate) fn keep_alive_pings_find_dead_backends() {
    let manners = Manners { answers_pings: false, ..Manners::default() };
    let silent = H2Backend::with(manners, |call| {
        call.abandoned(seconds(20));
        Ok(())
    });
    let keys = Listener::h2c().h2("keep_alive_interval_ms", 300).h2("keep_alive_timeout_ms", 500);
    let gateway = Gateway::start(config().listener(keys.h2_backend(silent.address)));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let answer = client.get("/").unwrap();
    assert!([502, 504].contains(&answer.status()), "{}", answer.status());
    assert!(silent.control()[0].pings >= 1);
    eventually("the dead connection is dropped", seconds(5), || silent.control()[0].ended);
    // A backend that answers keeps its connection through a long silence.
    let patient = H2Backend::start(|call| {
        call.pause(ms(2500));
        call.respond(200, &[], b"at last")
    });
    let keys = Listener::h2c().h2("keep_alive_interval_ms", 300).h2("keep_alive_timeout_ms", 500);
    let gateway = Gateway::start(config().listener(keys.h2_backend(patient.address)));
    assert_eq!(gateway.get("/").text(), "at last");
    assert!(patient.control()[0].pings >= 2, "{} PINGs", patient.control()[0].pings);
}

/// Answers each request with a fixed body after a silence, and bears with as many PINGs as servers of gRPC do by default: three that come
/// within five minutes of the one before, or while no stream is open, are too many.
fn easily_annoyed(silence: Duration, pings: &Arc<AtomicUsize>) -> H2Backend {
    let pings = Arc::clone(pings);
    H2Backend::raw(move |reader, _| {
        reader.wire.send(&frame::settings(&[]))?;
        reader.wire.set_timeout(ms(20));
        // No test lasts five minutes: each PING but the first comes too early.
        let (mut strikes, mut forgiven) = (0, true);
        let mut open = None;
        loop {
            match reader.event() {
                Ok(Event::Settings(_)) => reader.wire.send(&frame::settings_ack())?,
                Ok(Event::Headers { stream, .. }) => open = Some((stream, Instant::now() + silence)),
                Ok(Event::Ping(data)) => {
                    pings.fetch_add(1, Ordering::SeqCst);
                    strikes = if std::mem::take(&mut forgiven) { 0 } else { strikes + 1 };
                    if strikes > 2 {
                        return reader.wire.send(&frame::goaway(1, code::ENHANCE_YOUR_CALM));
                    }
                    reader.wire.send(&frame::pong(data))?;
                }
                Ok(_) | Err(Fault::TimedOut) => {}
                Err(other) => return Err(other),
            }
            if let Some((stream, _)) = open.take_if(|(_, due)| *due <= Instant::now()) {
                let head = frame::headers(stream, hpack::block(&[(":status", "200")]), false);
                reader.wire.send(&[head, frame::data(stream, b"calm", true)].concat())?;
                forgiven = true;
            }
        }
    })
}

/// Keep-alive does not annoy servers that count PINGs, neither while nothing runs nor while an answer takes its time.
pub(crate) fn keep_alive_pings_are_few_enough_for_grpc() {
    let pings = Arc::default();
    let backend = easily_annoyed(ms(1200), &pings);
    let keys = Listener::h2c().h2("keep_alive_interval_ms", 100).h2("keep_alive_timeout_ms", 5000);
    let config = config().runtime("workers", 1).listener(keys.h2_backend(backend.address));
    let gateway = Gateway::start(config);
    let mut client = H2Client::connect(gateway.front()).unwrap();
    for round in 1..=3 {
        let answer = client.get("/").unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "calm"), "round {round}");
        // After a silence the backend is asked at once whether it still is there.
        assert_eq!(pings.load(Ordering::SeqCst), 2 * round, "round {round}");
        client.read_for(ms(800));
        assert_eq!(pings.load(Ordering::SeqCst), 2 * round, "round {round}: while nothing runs");
    }
    assert_eq!(backend.connections(), 1);
}

/// A client that keeps many requests under way, and turns to a new connection when it is told to, loses none.
pub(crate) fn the_cap_on_requests_loses_none() {
    const CAP: usize = 20;
    for back in BOTH {
        let origin = Origin::standard(back, "one");
        let config = config().runtime("max_requests_per_h2_connection", CAP).listener(listener(&origin));
        let gateway = Gateway::start(config);
        let (mut done, mut connections) = (0, 0);
        while done < 15 * CAP {
            let mut client = H2Client::connect(gateway.front()).unwrap();
            connections += 1;
            let mut streams = Vec::new();
            while client.goaways.is_empty() {
                // All of them are sent before an answer, or a GOAWAY, is read.
                let batch = (0..8).map(|_| client.open("GET", "/slow/5", &[], true).unwrap());
                streams.extend(batch.collect::<Vec<_>>());
                client
                    .until("an answer", seconds(5), |c| c.streams[&streams[streams.len() - 8]].ended)
                    .unwrap();
            }
            for stream in &streams {
                let answer = client.response(*stream);
                assert_eq!(answer.unwrap_or_else(|e| panic!("{back:?}: {e}")).text(), "one", "{back:?}");
            }
            client.closed(seconds(5)).unwrap_or_else(|e| panic!("{back:?}: {e}"));
            let goaways: Vec<_> = client.goaways.iter().map(|goaway| (goaway.last, goaway.code)).collect();
            let last = streams[streams.len() - 1];
            assert_eq!(goaways, [(0x7fff_ffff, code::NO_ERROR), (last, code::NO_ERROR)], "{back:?}");
            assert!((CAP..CAP + 16).contains(&streams.len()), "{back:?}: {} requests", streams.len());
            done += streams.len();
        }
        assert_eq!(origin.request_count(), done, "{back:?}");
        assert!(connections > 5, "{back:?}");
    }
}

/// More streams than were offered are refused, one by one, and only those.
pub(crate) fn max_concurrent_streams_towards_clients() {
    for back in BOTH {
        let origin = Origin::standard(back, "one");
        let rig = Rig::on(Cell { front: Version::H2, back }, origin, |l| l.h2("max_concurrent_streams", 10));
        let mut client = rig.h2();
        assert_eq!(client.settings.get(&setting::MAX_CONCURRENT_STREAMS), Some(&10), "{back:?}");
        let streams: Vec<u32> =
            (0..15).map(|_| client.open("GET", "/slow/700", &[], true).unwrap()).collect();
        for stream in &streams {
            client.over(*stream).unwrap();
        }
        let served = client.streams.values().filter(|s| s.status() == 200).count();
        let refused = client.streams.values().filter(|s| s.reset == Some(code::REFUSED_STREAM)).count();
        assert_eq!((served, refused), (10, 5), "{back:?}: {:?}", client.goaways);
        assert_eq!(rig.origin.request_count(), 10, "{back:?}");
        // The places are free again.
        let streams: Vec<u32> = (0..10).map(|_| client.open("GET", "/slow/50", &[], true).unwrap()).collect();
        for stream in streams {
            assert_eq!(client.response(stream).unwrap().status(), 200, "{back:?}");
        }
    }
}

/// What a backend offers is kept to, and more connections are made for more streams.
pub(crate) fn max_concurrent_streams_of_a_backend() {
    let manners = Manners { settings: vec![(setting::MAX_CONCURRENT_STREAMS, 5)], ..Manners::default() };
    let backend = H2Backend::with(manners, |call| {
        call.pause(ms(400));
        call.respond(200, &[], b"one")
    });
    let gateway = Gateway::start(config().listener(Listener::h2c().h2_backend(backend.address)));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    client.get("/").unwrap();
    let streams: Vec<u32> = (0..40).map(|_| client.open("GET", "/", &[], true).unwrap()).collect();
    for stream in streams {
        assert_eq!(client.response(stream).unwrap().status(), 200);
    }
    for (number, control) in backend.control().iter().enumerate() {
        assert!(control.peak_streams <= 5, "{} streams on connection {number}", control.peak_streams);
    }
    assert!(backend.connections() > 1, "one connection for 40 streams of which 5 fit");
    assert!(backend.connections() <= 40, "{} connections", backend.connections());
    backend.assert_clean();
}

/// A few streams do not need many connections.
pub(crate) fn streams_share_a_backend_connection() {
    for front in BOTH {
        let backend = H2Backend::start(|call| {
            call.pause(ms(100));
            call.respond(200, &[], b"one")
        });
        let gateway = Gateway::start(
            config().runtime("workers", 1).listener(Listener::h2c().h2_backend(backend.address)),
        );
        Front::connect(front, gateway.front()).unwrap().get("/").unwrap();
        let address = gateway.front();
        let threads: Vec<_> = (0..20)
            .map(|_| std::thread::spawn(move || Front::connect(front, address)?.get("/").map(|a| a.status)))
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap().unwrap(), 200);
        }
        assert_eq!(backend.connections(), 1, "{front:?}: 20 clients of one worker");
        assert!(backend.control()[0].peak_streams > 5, "{front:?}: {}", backend.control()[0].peak_streams);
        let settings = &backend.control()[0].settings;
        assert_eq!(settings.get(&setting::ENABLE_PUSH), Some(&0), "{front:?}: push is not declined");
    }
}

/// GOAWAY without an error: what runs goes on, what is new goes to a new connection.
pub(crate) fn goaway_of_a_backend_is_graceful() {
    for front in BOTH {
        let first = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&first);
        let backend = H2Backend::start(move |call| {
            call.body()?;
            if call.connection() == 1 && count.fetch_add(1, Ordering::SeqCst) == 2 {
                // Announced while this one still runs.
                call.goaway(call.stream, code::NO_ERROR)?;
                call.pause(ms(600));
            }
            call.respond(200, &[], format!("connection {}", call.connection()).as_bytes())
        });
        let gateway = Gateway::start(
            config().runtime("workers", 1).listener(Listener::h2c().h2_backend(backend.address)),
        );
        let mut client = Front::connect(front, gateway.front()).unwrap();
        assert_eq!(client.get("/").unwrap().text(), "connection 1", "{front:?}");
        assert_eq!(client.get("/").unwrap().text(), "connection 1", "{front:?}");
        let address = gateway.front();
        let running = std::thread::spawn(move || Front::connect(front, address)?.get("/"));
        backend.wait_requests(3);
        std::thread::sleep(ms(200));
        assert_eq!(client.get("/").unwrap().text(), "connection 2", "{front:?}: a new request after GOAWAY");
        assert_eq!(running.join().unwrap().unwrap().text(), "connection 1", "{front:?}: the running one");
        backend.assert_clean();
    }
}

/// A backend that goes away under its streams: the unprocessed ones are sent elsewhere, all of them, and none twice.
pub(crate) fn goaway_in_a_crowd() {
    for front in BOTH {
        let leaving = H2Backend::start(|call| {
            call.body()?;
            if call.stream <= 9 {
                call.pause(ms(400));
                return call.respond(200, &[], b"kept");
            }
            call.goaway(9, code::NO_ERROR)?;
            // Whatever came beyond 9 is never answered.
            call.abandoned(seconds(20));
            Err(Fault::Closed)
        });
        let other = Origin::standard(Version::H2, "other");
        let listener = with_origin(Listener::h2c().h2_backend(leaving.address), &other);
        let gateway = Gateway::start(config().runtime("workers", 1).listener(listener));
        let address = gateway.front();
        let threads: Vec<_> = (0..30)
            .map(|_| {
                std::thread::sleep(ms(5));
                std::thread::spawn(move || Front::connect(front, address)?.request("POST", "/", &[], b""))
            })
            .collect();
        for thread in threads {
            let answer = thread.join().unwrap().unwrap_or_else(|e| panic!("{front:?}: {e}"));
            assert_eq!(answer.status, 200, "{front:?}");
            assert!(["kept", "other"].contains(&answer.text().as_str()), "{front:?}");
        }
    }
}

pub(crate) fn reload_leaves_connections_alone() {
    let origin = Origin::standard(Version::H1, "one");
    let mut gateway = Gateway::start(config().listener(listener(&origin)));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let slow = client.open("GET", "/slow/800", &[], true).unwrap();
    // Else the reload may come first, and the request goes to the new backend by right.
    origin.wait_requests(1);
    let other = Origin::standard(Version::H2, "two");
    let new = with_origin(Listener::h2c().at(gateway.front()), &other);
    let changed = gateway.config.clone().with_listener(new);
    assert!(matches!(gateway.reload(changed), testkit::gateway::Reload::Complete(_)));
    assert_eq!(client.response(slow).unwrap().text(), "one");
    eventually("new streams go to the new backend", seconds(5), || client.get("/").unwrap().text() == "two");
    client.send(frame::ping([9; 8])).unwrap();
    client.until("an answer to PING", seconds(5), |c| !c.pongs.is_empty()).unwrap();
}
