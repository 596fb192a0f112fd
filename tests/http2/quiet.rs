//! Connections on which too little is said: those without a request, and those whose peer never acknowledges our SETTINGS.

use crate::rig::{config, listener};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::h2::{Event, code, frame, hpack};
use testkit::{Gateway, H2Backend, H2Client, Listener, Origin, Version, eventually, ms, seconds};

/// A gateway that waits for so many milliseconds for a head.
fn impatient(listener: Listener) -> Gateway {
    Gateway::start(config().runtime("workers", 1).listener(listener.http("header_timeout_ms", 1500)))
}

/// The time for the first request head runs from accept, whatever else is said before it.
pub(crate) fn connections_without_a_request_end() {
    let origin = Origin::standard(Version::H1, "one");
    let gateway = impatient(listener(&origin));
    let mut served = H2Client::connect(gateway.front()).unwrap();
    let mut quiet = H2Client::connect(gateway.front()).unwrap();
    assert_eq!(served.get("/").unwrap().status(), 200);
    for number in 0..400u64 {
        quiet.send_anyway(frame::ping(number.to_be_bytes()));
        quiet.read_for(ms(50));
        if quiet.gone.is_some() {
            break;
        }
    }
    quiet.closed(ms(1)).expect("the end of a connection without a request");
    // A browser opens connections ahead of its requests: it is no fault not to need them.
    let last: Vec<_> = quiet.goaways.iter().map(|goaway| (goaway.last, goaway.code)).collect();
    assert_eq!(last, [(0, code::NO_ERROR)]);
    // Between requests another time counts.
    assert_eq!(served.get("/").unwrap().status(), 200);
    assert_eq!(served.goaways, []);
}

/// Who does not acknowledge our SETTINGS may not keep to them (RFC 9113 section 6.5.3).
pub(crate) fn peers_that_acknowledge_no_settings_are_sent_away() {
    let origin = Origin::standard(Version::H1, "one");
    let gateway = impatient(listener(&origin));
    let mut client = H2Client::silent(TcpStream::connect(gateway.front()).unwrap()).ignore_settings();
    client.send(frame::PREFACE).unwrap();
    client.send_settings(&[]).unwrap();
    assert_eq!(client.get("/").unwrap().status(), 200, "before the time is up");
    client.closed(seconds(5)).expect("the end of a connection without an acknowledgement");
    assert_eq!(client.goaways.last().map(|goaway| goaway.code), Some(code::SETTINGS_TIMEOUT));
    assert_eq!(gateway.metric("http2_connection_errors_total", &[("code", "SETTINGS_TIMEOUT")]), 1.0);
}

/// A backend that does not acknowledge them gets no more requests on that connection. Those that it has are served.
pub(crate) fn backends_that_acknowledge_no_settings_get_no_more() {
    let told = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&told);
    let backend = H2Backend::raw(move |reader, number| {
        reader.wire.send(&frame::settings(&[]))?;
        reader.wire.set_timeout(seconds(60));
        let answer = |stream| frame::headers(stream, hpack::block(&[(":status", "200")]), true);
        let mut held = None;
        loop {
            match reader.event()? {
                Event::Settings(_) if number > 1 => reader.wire.send(&frame::settings_ack())?,
                Event::Headers { stream, headers, .. }
                    if headers.get(":path").as_deref() == Some("/held") =>
                {
                    held = Some(stream);
                }
                Event::Headers { stream, .. } => reader.wire.send(&answer(stream))?,
                Event::GoAway { code: why, .. } => {
                    heard.store(why == code::SETTINGS_TIMEOUT, Ordering::SeqCst);
                    std::thread::sleep(ms(300));
                    reader.wire.send(&held.take().map(answer).unwrap_or_default())?;
                }
                _ => {}
            }
        }
    });
    let gateway = impatient(Listener::h2c().h2_backend(backend.address));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let held = client.open("GET", "/held", &[], true).unwrap();
    assert_eq!(client.get("/").unwrap().status(), 200);
    assert_eq!(backend.connections(), 1);
    eventually("the backend is told", seconds(5), || told.load(Ordering::SeqCst));
    assert_eq!(client.get("/").unwrap().status(), 200);
    assert_eq!(backend.connections(), 2);
    assert_eq!(client.response(held).unwrap().status(), 200, "it had begun before");
    eventually("the connection ends", seconds(5), || backend.open_connections() == 1);
    std::thread::sleep(seconds(1));
    assert_eq!(client.get("/").unwrap().status(), 200);
    assert_eq!(backend.connections(), 2, "one that acknowledges stays");
}
