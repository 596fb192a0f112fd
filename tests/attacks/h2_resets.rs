//! Streams that are opened to be ended: by the client, or by provoking the gateway.

use crate::h2_rig::{AtWork, Kind, MIB, Rig, assert_calmed, assert_sent_away, toiling};
use std::sync::Arc;
use std::time::Instant;
use testkit::h2::{code, flag, frame, hpack, kind};
use testkit::{H2Client, Version, ms, seconds};

const BOTH: [Version; 2] = [Version::H1, Version::H2];

/// A request's frames, without reading anything.
fn head(client: &mut H2Client, method: &str, end: bool) -> (u32, Vec<u8>) {
    let stream = client.next_stream();
    let block = hpack::block(&client.fields(method, "/attack", &[]));
    (stream, frame::headers(stream, block, end))
}

fn toiling_rig(back: Version) -> (Rig, Arc<AtWork>) {
    let (origin, work) = toiling(back);
    let rig = Rig::with(origin, |listener| {
        listener
            .h2("max_concurrent_streams", 10)
            .h2("max_pending_accept_reset_streams", 50)
            .h2("max_local_error_reset_streams", 20)
    });
    (rig, work)
}

pub(crate) fn h2_01_rapid_reset() {
    for back in BOTH {
        let (rig, work) = toiling_rig(back);
        let watch = rig.watch();
        let mut client = rig.client();
        for _ in 0..40 {
            let mut batch = Vec::new();
            for _ in 0..250 {
                let (stream, bytes) = head(&mut client, "GET", true);
                batch.extend(bytes);
                batch.extend(frame::rst_stream(stream, code::CANCEL));
            }
            if !client.send_anyway(batch) {
                break;
            }
        }
        assert_calmed("rapid reset", &mut client);
        assert!(work.total() < 500, "{back:?}: {} requests reached the backend", work.total());
        assert!(
            work.peak() <= 12,
            "{back:?}: {} requests at once, where 10 streams are allowed",
            work.peak()
        );
        testkit::eventually("the backend's work is cancelled", seconds(5), || work.now() == 0);
        watch.verdict(&rig, client.sent, 24 * MIB);
        rig.assert_counted(Kind::Reset);
    }
}

/// One pair at a time, each after the backend has begun to work.
pub(crate) fn h2_01_reset_of_work_in_progress() {
    for back in BOTH {
        let (rig, work) = toiling_rig(back);
        let watch = rig.watch();
        let mut client = rig.client();
        for round in 0..600 {
            let (stream, bytes) = head(&mut client, "GET", true);
            if !client.send_anyway(bytes) {
                break;
            }
            testkit::poll(ms(200), || (work.total() > round).then_some(()));
            if !client.send_anyway(frame::rst_stream(stream, code::CANCEL)) {
                break;
            }
        }
        assert_calmed("reset of work in progress", &mut client);
        assert!(work.peak() <= 12, "{back:?}: {} at once", work.peak());
        testkit::eventually("the backend's work is cancelled", seconds(5), || work.now() == 0);
        watch.verdict(&rig, client.sent, 24 * MIB);
        rig.assert_counted(Kind::Reset);
    }
}

/// What browsers do when a user turns a page is no attack.
pub(crate) fn h2_01_a_few_cancels_are_no_attack() {
    for back in BOTH {
        let (origin, work) = toiling(back);
        let rig = Rig::with(origin, |listener| listener);
        let mut client = rig.client();
        for round in 1..=3 {
            let streams: Vec<u32> =
                (0..15).map(|_| client.open("GET", "/attack", &[], true).unwrap()).collect();
            testkit::eventually("the requests arrive", seconds(5), || work.total() == 15 * round);
            for stream in streams {
                client.reset(stream, code::CANCEL).unwrap();
            }
            testkit::eventually("the work is cancelled", seconds(5), || work.now() == 0);
            assert_eq!(client.get("/witness").unwrap().status(), 200);
        }
        assert_eq!(client.goaways, []);
    }
}

/// Provokes the gateway into resetting streams while the backend works on them.
fn made_you_reset(case: &str, back: Version, end: bool, provoke: impl Fn(u32) -> Vec<u8>, codes: &[u32]) {
    /// Resets that are allowed at once, and with each second.
    const BUDGET: (usize, usize) = (20, 10);
    let (rig, work) = toiling_rig(back);
    let watch = rig.watch();
    let mut client = rig.client();
    let begun = Instant::now();
    for round in 0..300 {
        let (stream, bytes) = head(&mut client, if end { "GET" } else { "POST" }, end);
        if !client.send_anyway(bytes) {
            break;
        }
        if round < 5 {
            // The first ones surely reach the backend before they are lost.
            testkit::poll(ms(500), || (work.total() > round).then_some(()));
        }
        if !client.send_anyway(provoke(stream)) {
            break;
        }
    }
    client.pump(ms(500));
    let seconds_passed = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let allowed = BUDGET.0 + BUDGET.1 * seconds_passed;
    let blamed = |c: &Option<u32>| c.is_some_and(|c| c != code::REFUSED_STREAM && c != code::NO_ERROR);
    let provoked = client.streams.values().filter(|s| blamed(&s.reset)).count();
    assert!(provoked <= allowed, "{case}, {back:?}: {provoked} resets provoked, where {allowed} are allowed");
    assert!(work.peak() <= 12, "{case}, {back:?}: {} requests at once where 10 are allowed", work.peak());
    assert!(work.total() <= allowed + 20, "{case}, {back:?}: {} requests reached the backend", work.total());
    let ended = client.gone.is_some() || !client.goaways.is_empty();
    assert!(
        ended || provoked < BUDGET.0,
        "{case}, {back:?}: {provoked} resets provoked and the connection goes on"
    );
    if ended {
        let codes = [codes, &[code::ENHANCE_YOUR_CALM]].concat();
        assert_sent_away(case, &mut client, &codes);
        testkit::eventually("the backend's work is cancelled", seconds(5), || work.now() == 0);
    }
    watch.verdict(&rig, client.sent, 24 * MIB);
    let calm = client.goaways.iter().any(|g| g.code == code::ENHANCE_YOUR_CALM);
    if calm {
        rig.assert_counted(Kind::LocalReset);
    }
}

pub(crate) fn h2_02_a_window_update_of_zero() {
    for back in BOTH {
        made_you_reset("zero increment", back, true, |s| frame::window_update(s, 0), &[code::PROTOCOL_ERROR]);
    }
}

pub(crate) fn h2_02_b_window_overflow() {
    for back in BOTH {
        let overflow =
            |s| [frame::window_update(s, 0x7fff_ffff), frame::window_update(s, 0x7fff_ffff)].concat();
        made_you_reset("window overflow", back, true, overflow, &[code::FLOW_CONTROL_ERROR]);
    }
}

pub(crate) fn h2_02_c_priority_of_wrong_length() {
    for back in BOTH {
        let wrong = |s| frame::frame(kind::PRIORITY, 0, s, [0; 4]);
        made_you_reset("priority of four bytes", back, true, wrong, &[code::FRAME_SIZE_ERROR]);
    }
}

pub(crate) fn h2_02_d_priority_on_itself() {
    for back in BOTH {
        made_you_reset("priority on itself", back, true, |s| frame::priority(s, s), &[code::PROTOCOL_ERROR]);
    }
}

pub(crate) fn h2_02_e_headers_after_end_stream() {
    for back in BOTH {
        let more = |s| frame::headers(s, hpack::block(&[("x-late", "1")]), true);
        let codes = [code::STREAM_CLOSED, code::PROTOCOL_ERROR];
        made_you_reset("headers after the end", back, true, more, &codes);
    }
}

pub(crate) fn h2_02_f_data_after_end_stream() {
    for back in BOTH {
        let more = |s| frame::data(s, b"late", false);
        let codes = [code::STREAM_CLOSED, code::PROTOCOL_ERROR];
        made_you_reset("data after the end", back, true, more, &codes);
    }
}

/// More ways to the same end: a body that breaks its promise, and a second head that is none.
pub(crate) fn h2_02_g_other_stream_errors_share_the_budget() {
    for back in BOTH {
        let no_trailers = |s| frame::headers(s, hpack::block(&[(":path", "/")]), true);
        made_you_reset("pseudo fields in trailers", back, false, no_trailers, &[code::PROTOCOL_ERROR]);
        let overrun = |s| {
            let piece = frame::data(s, [0; 16_384], false);
            piece.repeat(5)
        };
        made_you_reset("a body beyond the window", back, false, overrun, &[code::FLOW_CONTROL_ERROR]);
    }
}

pub(crate) fn h2_11_frames_after_a_reset() {
    for back in BOTH {
        let rig = Rig::standard(back);
        let watch = rig.watch();
        let mut client = rig.client();
        for round in 0..20 {
            let (stream, mut bytes) = head(&mut client, "POST", false);
            bytes.extend(frame::data(stream, b"before", false));
            bytes.extend(frame::rst_stream(stream, code::CANCEL));
            // Frames that crossed the reset on their way must not hurt; all of this lies in one read.
            let (late, taken) = match round % 4 {
                0 => (frame::data(stream, b"after", true), 5),
                1 => (frame::data(stream, [0; 8000], false), 8000),
                2 => (frame::window_update(stream, 1000), 0),
                _ => ([frame::rst_stream(stream, code::CANCEL), frame::priority(stream, 0)].concat(), 0),
            };
            bytes.extend(late);
            client.send_windows.take(stream, 6 + taken).expect("the connection's window is given back");
            client.send(bytes).unwrap();
            match client.get(&format!("/next/{round}")) {
                Ok(response) => assert_eq!(response.status(), 200, "{back:?}, round {round}"),
                Err(fault) => {
                    // RFC 9113 section 5.1 lets a peer treat what comes long after a reset as an error of the connection.
                    panic!("{back:?}, round {round}: {fault}, {:?}", client.goaways)
                }
            }
        }
        assert!(
            rig.origin.requests().iter().all(|r| r.path != "/attack" || !r.complete),
            "{back:?}: a request that was reset arrived whole"
        );
        // The bytes behind the reset were counted out of the connection's window: they come back.
        let body = testkit::pattern::bytes(2_000_000);
        let response = client.request("POST", "/upload", &[], &body).unwrap();
        assert_eq!(response.text(), "2000000 right");
        watch.verdict(&rig, client.sent, 24 * MIB);
    }
}

pub(crate) fn h2_12_mass_cancel() {
    for back in BOTH {
        let (origin, work) = toiling(back);
        let rig = Rig::with(origin, |listener| listener.h2("max_concurrent_streams", 250));
        let watch = rig.watch();
        let mut sent = 0;
        for round in 0..8 {
            let mut client = rig.client();
            let mut bytes = Vec::new();
            let mut streams = Vec::new();
            for _ in 0..250 {
                let (stream, head) = head(&mut client, "GET", true);
                bytes.extend(head);
                streams.push(stream);
            }
            client.send_anyway(bytes);
            testkit::eventually("all of them at work", seconds(10), || work.now() == 250);
            if round % 2 == 0 {
                client.send_anyway(
                    streams.iter().flat_map(|s| frame::rst_stream(*s, code::CANCEL)).collect::<Vec<_>>(),
                );
            }
            sent += client.sent;
            drop(client);
            testkit::eventually("the backend's work is cancelled", seconds(10), || work.now() == 0);
        }
        watch.verdict(&rig, sent, 48 * MIB);
    }
}

/// END_STREAM, END_HEADERS and PADDED on frames for which they mean nothing are ignored (RFC 9113 section 4.1).
pub(crate) fn h2_11_meaningless_flags_are_ignored() {
    let rig = Rig::standard(Version::H1);
    let mut client = rig.client();
    let (stream, bytes) = head(&mut client, "GET", true);
    client.send([frame::frame(kind::PRIORITY, 0xff, stream, [0, 0, 0, 0, 1]), bytes].concat()).unwrap();
    client.send(frame::frame(kind::WINDOW_UPDATE, 0xff, 0, 1_u32.to_be_bytes())).unwrap();
    client.send(frame::frame(kind::PING, !flag::ACK, 0, [7; 8])).unwrap();
    assert_eq!(client.response(stream).unwrap().status(), 200);
    client.until("an answer to PING", seconds(5), |c| !c.pongs.is_empty()).unwrap();
}
