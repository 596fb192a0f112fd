//! What the streams of many clients do to the backend connections that they share, and what they do not.

use crate::rig::config;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::h2::{Event, code, frame, hpack, setting};
use testkit::{Gateway, H2Backend, H2Client, Listener, eventually, ms, seconds};

fn ok(stream: u32) -> Vec<u8> {
    let head = frame::headers(stream, hpack::block(&[(":status", "200")]), false);
    [head, frame::data(stream, b"sixteen bytes or more", true)].concat()
}

fn gateway(backend: &H2Backend) -> Gateway {
    // Connections are counted, and each worker has its own.
    Gateway::start(config().runtime("workers", 1).listener(Listener::h2c().h2_backend(backend.address)))
}

/// What is answered after a client has cancelled it is no fault of the backend's, however often that is. Its connection, and the
/// requests of others on it, go on.
pub(crate) fn what_clients_cancel_is_not_charged_to_the_backend() {
    let (opened, reset) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (opened_here, reset_here) = (Arc::clone(&opened), Arc::clone(&reset));
    let backend = H2Backend::raw(move |reader, _| {
        let mut cancelled = Vec::new();
        let mut victim = None;
        reader.wire.send(&frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 1000)]))?;
        reader.wire.set_timeout(seconds(60));
        loop {
            match reader.event()? {
                Event::Settings(_) => reader.wire.send(&frame::settings_ack())?,
                Event::Ping(data) => reader.wire.send(&frame::pong(data))?,
                Event::Headers { stream, headers, .. } => match headers.get(":path").as_deref() {
                    Some("/cancelled") => {
                        cancelled.push(stream);
                        opened_here.fetch_add(1, Ordering::SeqCst);
                    }
                    Some("/victim") => victim = Some(stream),
                    // Everything that was cancelled is answered at last.
                    _ => {
                        let late = cancelled.drain(..).flat_map(ok).collect::<Vec<u8>>();
                        reader.wire.send(&late)?;
                        reader.wire.send(&ok(stream))?;
                        reader.wire.send(&victim.take().map(ok).unwrap_or_default())?;
                    }
                },
                Event::Reset { .. } => {
                    reset_here.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
    });
    let gateway = gateway(&backend);
    let mut other = H2Client::connect(gateway.front()).unwrap();
    let victim = other.open("POST", "/victim", &[], true).unwrap();
    // One client may not cancel as many in so short a time.
    for client in 1..=32 {
        let mut canceller = H2Client::connect(gateway.front()).unwrap();
        let streams: Vec<u32> =
            (0..60).map(|_| canceller.open("GET", "/cancelled", &[], true).unwrap()).collect();
        eventually("they are at the backend", seconds(5), || opened.load(Ordering::SeqCst) == client * 60);
        streams.iter().for_each(|stream| canceller.reset(*stream, code::CANCEL).unwrap());
        eventually("they are given up", seconds(5), || reset.load(Ordering::SeqCst) == client * 60);
        assert_eq!(canceller.goaways, []);
    }
    let mut client = H2Client::connect(gateway.front()).unwrap();
    assert_eq!(client.get("/").unwrap().status(), 200);
    let answer = other.response(victim).unwrap_or_else(|e| panic!("beside what was cancelled: {e}"));
    assert_eq!(answer.status(), 200, "beside what was cancelled");
    assert_eq!(client.get("/").unwrap().status(), 200);
    assert_eq!(backend.connections(), 1);
    backend.assert_clean();
}

/// A backend that lets an idle connection go after one request says nothing of what it would take of the next.
pub(crate) fn a_goaway_on_an_idle_connection_teaches_nothing() {
    let backend = H2Backend::start(|call| {
        if call.connection() == 1 {
            call.respond(200, &[], b"one")?;
            return call.goaway(call.stream, code::NO_ERROR);
        }
        call.pause(ms(300));
        call.respond(200, &[], b"one")
    });
    let gateway = gateway(&backend);
    let mut client = H2Client::connect(gateway.front()).unwrap();
    assert_eq!(client.get("/").unwrap().status(), 200);
    eventually("the idle connection ends", seconds(5), || backend.open_connections() == 0);
    let streams: Vec<u32> = (0..60).map(|_| client.open("GET", "/", &[], true).unwrap()).collect();
    for stream in streams {
        assert_eq!(client.response(stream).unwrap().status(), 200);
    }
    assert_eq!(backend.connections(), 2, "60 requests at once");
    backend.assert_clean();
}
