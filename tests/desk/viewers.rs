//! `GET /status/events`, and those who watch.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::load::Load;
use testkit::{Backend, Config, Gateway, Listener, Pool, eventually, ms, seconds};

use crate::rig::{Desk, row};

/// Asks for events, and reads the head of the answer.
fn watch(gateway: &Gateway) -> (BufReader<TcpStream>, u16) {
    let mut stream = TcpStream::connect(gateway.admin()).unwrap();
    stream.set_read_timeout(Some(seconds(15))).unwrap();
    stream.write_all(b"GET /status/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    let mut status = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if status == 0 {
            status = line.split(' ').nth(1).unwrap().parse().unwrap();
        }
        if line == "\r\n" {
            return (reader, status);
        }
    }
}

/// The next event: its name and its data. Chunks begin and end within lines of their own.
fn event(reader: &mut BufReader<TcpStream>) -> (String, Value) {
    let mut name = None;
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the events go on");
        if let Some(event) = line.strip_prefix("event: ") {
            name = Some(event.trim().to_owned());
        } else if let Some(data) = line.strip_prefix("data: ") {
            return (name.unwrap(), serde_json::from_str(data).unwrap());
        }
    }
}

pub(crate) fn changes_follow_the_whole() {
    let desk = Desk::start(|config| config);
    let (mut events, status) = watch(&desk.gateway);
    assert_eq!(status, 200);
    let (name, first) = event(&mut events);
    assert_eq!((name.as_str(), first["backends"].as_array().unwrap().len()), ("status", 3));
    let (name, quiet) = event(&mut events);
    assert_eq!((name.as_str(), &quiet["rows"]), ("change", &serde_json::json!({})), "nothing has happened");
    assert!(quiet.get("certificates").is_none() && quiet["process"].is_object(), "{quiet:#}");
    desk.traffic(4);
    let api = desk.api.address.to_string();
    let begun = Instant::now();
    loop {
        let (name, change) = event(&mut events);
        assert_eq!(name, "change");
        if change["rows"]["backends"].is_array()
            && row(&change["rows"]["backends"], "backend", &api)["requests_total"] == 4
        {
            break;
        }
        assert!(begun.elapsed() < seconds(5));
    }
    // Somebody who comes later begins with the whole, and both are given the same from then on.
    let (mut later, _) = watch(&desk.gateway);
    assert_eq!(event(&mut later).0, "status");
    let (one, other) = (event(&mut events).1, event(&mut later).1);
    assert!(one["number"].as_u64().unwrap().abs_diff(other["number"].as_u64().unwrap()) <= 1);
}

pub(crate) fn one_more_than_may_watch_is_told() {
    let desk = Desk::start(|config| config);
    let mut viewers: Vec<_> = (0..200).map(|_| watch(&desk.gateway)).collect();
    assert!(viewers.iter().all(|(_, status)| *status == 200));
    assert_eq!(watch(&desk.gateway).1, 503);
    assert_eq!(desk.gateway.readyz(), Some(200), "probes have connections of their own");
    viewers.truncate(199);
    eventually("there is room again", seconds(10), || watch(&desk.gateway).1 == 200);
}

/// A gateway whose whole status has some 600 kB: more than kernel buffers hold.
fn large() -> Gateway {
    let mut pool = Pool::named("web");
    for at in 0..1500 {
        pool = pool.backend(format!("127.1.{}.{}:9", at / 250, at % 250 + 1));
    }
    let config = Config::new().runtime("workers", 1).block("admin", "page", true);
    Gateway::start(config.listener(Listener::h1().key("pool", "web")).pool(pool))
}

pub(crate) fn d_01_viewers_that_do_not_read_are_cut_off() {
    let gateway = large();
    let (mut reader, _) = watch(&gateway);
    assert_eq!(event(&mut reader).0, "status");
    let before = gateway.process.rss_kib();
    // They ask, and never read a byte.
    let silent: Vec<TcpStream> = (0..150)
        .map(|_| {
            let mut stream = narrow(&gateway);
            stream.write_all(b"GET /status/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < seconds(14) {
        // Whoever reads is given each state in its second all the while.
        assert_eq!(event(&mut reader).0, "change");
        most = most.max(gateway.process.rss_kib());
    }
    assert!(most < before + 40_000, "{before} KiB, then {most} KiB");
    // All of them were cut off: none of their connections is there any more, and others may watch.
    for mut stream in silent {
        stream.set_read_timeout(Some(seconds(5))).unwrap();
        let ended = loop {
            match stream.read(&mut [0; 65_536]) {
                Ok(0) | Err(_) => break true,
                Ok(_) => {}
            }
        };
        assert!(ended);
    }
    let (mut last, status) = watch(&gateway);
    assert_eq!((status, event(&mut last).0.as_str()), (200, "status"));
}

/// A connection that takes few bytes unread.
fn narrow(gateway: &Gateway) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&gateway.admin().into()).unwrap();
    socket.into()
}

pub(crate) fn d_01_two_hundred_viewers_cost_the_workers_nothing() {
    let backend = Backend::standard("one");
    let config = Config::new().runtime("workers", 1).block("admin", "page", true);
    let gateway = Gateway::start(config.listener(Listener::h1().backend(backend.address)));
    let latency = |gateway: &Gateway| {
        let mut client = gateway.client();
        let mut times: Vec<Duration> = (0..1000)
            .map(|_| {
                let begun = Instant::now();
                assert_eq!(client.get("/").unwrap().status, 200);
                begun.elapsed()
            })
            .collect();
        times.sort();
        times[500]
    };
    let alone = latency(&gateway);
    let before = gateway.process.rss_kib();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..200)
        .map(|at| {
            let (mut reader, status) = watch(&gateway);
            assert_eq!(status, 200);
            let stop = std::sync::Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut events = 0;
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    event(&mut reader);
                    events += 1;
                    // One in four reads late.
                    if at % 4 == 0 {
                        std::thread::sleep(ms(1500));
                    }
                }
                events
            })
        })
        .collect();
    let load = Load::start(gateway.front(), 4, "/", ms(1));
    std::thread::sleep(seconds(4));
    drop(load);
    let watched = latency(&gateway);
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let events: Vec<u32> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert!(events.iter().all(|events| *events >= 3), "{events:?}");
    let after = gateway.process.rss_kib();
    assert!(after < before + 40_000, "{before} KiB, then {after} KiB");
    // The machine may be busy with other things: this finds a gross fault only, the benchmark the rest.
    assert!(watched < alone * 4 + ms(2), "{alone:?} alone, {watched:?} with viewers");
}
