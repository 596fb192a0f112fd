//! Frames that come late: for streams that will not be served, or that were over long ago.

use crate::rig::{BOTH, config, listener};
use testkit::h2::{code, frame, hpack};
use testkit::{Gateway, H2Backend, H2Client, Listener, Origin, Version, ms, seconds};

/// A connection that has got its last GOAWAY, and the number of its last request, which runs for four seconds.
fn last_request(back: Version) -> (Origin, Gateway, H2Client, u32) {
    let origin = Origin::standard(back, "one");
    let gateway =
        Gateway::start(config().runtime("max_requests_per_h2_connection", 1).listener(listener(&origin)));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let slow = client.open("GET", "/slow/4000", &[], true).unwrap();
    client.until("the last GOAWAY", seconds(5), |c| c.goaways.iter().any(|g| g.last == slow)).unwrap();
    (origin, gateway, client, slow)
}

/// What was sent before our GOAWAY could arrive is ignored, however much it is (RFC 9113 §6.8), and gives its window back.
pub(crate) fn frames_beyond_our_goaway_are_ignored() {
    for back in BOTH {
        let (origin, _gateway, mut client, slow) = last_request(back);
        // Together more than the connection's window of a mebibyte, and than what is borne of frames for streams that are gone.
        for number in 0..1200 {
            let late = client.open("POST", "/late", &[], false).unwrap();
            client.data(late, &[0; 1000], false).unwrap_or_else(|e| panic!("{back:?}, stream {late}: {e}"));
            client.send(frame::window_update(late, 1000)).unwrap();
            match number % 3 {
                0 => client.trailers(late, &[("x-sum", "1")]).unwrap(),
                1 if number < 60 => client.reset(late, code::CANCEL).unwrap(),
                _ => client.data(late, b"", true).unwrap(),
            }
        }
        let answer = client.response(slow).unwrap_or_else(|e| panic!("{back:?}: {e} {:?}", client.goaways));
        assert_eq!(answer.text(), "one", "{back:?}");
        client.closed(seconds(5)).unwrap_or_else(|e| panic!("{back:?}: {e}"));
        assert!(client.goaways.iter().all(|g| g.code == code::NO_ERROR), "{back:?}: {:?}", client.goaways);
        assert_eq!(origin.request_count(), 1, "{back:?}: processed after the GOAWAY that denies it");
    }
}

/// Uploads that were answered early go on for a while: their frames are neither errors of the connection nor answered with resets, though
/// there are more such streams than are remembered, and they did not end in the order in which they began.
pub(crate) fn uploads_may_go_on_after_early_answers() {
    const ROUND: usize = 250;
    let backend = H2Backend::start(|call| {
        if call.path() == "/later" {
            call.pause(ms(300));
        }
        call.respond(401, &[], b"")
    });
    let gateway = Gateway::start(config().listener(Listener::h2c().h2_backend(backend.address)));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let path = |number| if number + 1 == ROUND { "/at-once" } else { "/later" };
        let round: Vec<u32> =
            (0..ROUND).map(|number| client.open("POST", path(number), &[], false).unwrap()).collect();
        for stream in &round {
            assert_eq!(client.head(*stream).unwrap().get(":status").as_deref(), Some("401"));
        }
        // The end of the upload is waited for; then the stream is let go.
        let told = |c: &H2Client| round.iter().all(|stream| c.streams[stream].reset.is_some());
        client.until("the end of the wait", seconds(5), told).unwrap();
        streams.extend(round);
    }
    for stream in &streams {
        client.send(frame::data(*stream, [0; 1000], false)).unwrap();
        client.send(frame::window_update(*stream, 1)).unwrap();
    }
    for stream in &streams {
        client.send(frame::headers(*stream, hpack::block(&[("x-sum", "1")]), true)).unwrap();
    }
    let next = client.get("/").map(|response| response.status());
    assert_eq!(next.ok(), Some(401), "the connection goes on; {:?}", client.goaways);
    assert_eq!(client.goaways, []);
    for stream in streams {
        assert_eq!(client.streams[&stream].reset, Some(code::NO_ERROR), "stream {stream}");
    }
    backend.assert_clean();
}

/// A client that breaks a rule is told which, though the last stream was settled before.
pub(crate) fn errors_are_told_after_the_last_goaway() {
    for back in BOTH {
        let (_origin, _gateway, mut client, slow) = last_request(back);
        client.open("GET", "/late", &[], true).unwrap();
        client.send(frame::data(0, b"of no stream", false)).unwrap();
        client.closed(seconds(5)).unwrap_or_else(|e| panic!("{back:?}: {e}"));
        let told: Vec<_> = client.goaways.iter().map(|goaway| (goaway.last, goaway.code)).collect();
        let settled = [(0x7fff_ffff, code::NO_ERROR), (slow, code::NO_ERROR)];
        assert_eq!(told, [&settled[..], &[(slow, code::PROTOCOL_ERROR)]].concat(), "{back:?}");
    }
}
