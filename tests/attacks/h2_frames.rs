//! Frames that cost the sender nothing: empty, tiny, padded, control; and windows that never open.

use crate::h2_rig::{Kind, MIB, Rig, assert_calmed, scripted};
use testkit::h2::{flag, frame, hpack, kind, setting};
use testkit::{H2Client, Origin, Version, ms, pattern, seconds};

const BOTH: [Version; 2] = [Version::H1, Version::H2];

/// Sends the same bytes again and again, until sent away; how often that was.
fn flood(client: &mut H2Client, unit: &[u8], count: usize) -> usize {
    let batch = (32 * 1024 / unit.len()).max(1);
    let bytes = unit.repeat(batch);
    let mut sent = 0;
    while sent < count && client.goaways.is_empty() && client.send_anyway(&bytes) {
        sent += batch;
    }
    sent
}

pub(crate) fn h2_05_empty_data() {
    for back in BOTH {
        let rig = Rig::standard(back);
        let watch = rig.watch();
        let mut client = rig.client();
        let stream = client.open("POST", "/upload", &[], false).unwrap();
        flood(&mut client, &frame::data(stream, b"", false), 200_000);
        assert_calmed("empty DATA", &mut client);
        watch.verdict(&rig, client.sent, 16 * MIB);
        rig.assert_counted(Kind::EmptyData);
    }
}

pub(crate) fn h2_05_nothing_but_padding() {
    for back in BOTH {
        let rig = Rig::standard(back);
        let watch = rig.watch();
        let mut client = rig.client();
        let stream = client.open("POST", "/upload", &[], false).unwrap();
        for _ in 0..100_000 {
            if client.send_windows.room(stream) < 256 {
                client.pump(ms(20));
            }
            if client.gone.is_some() || !client.goaways.is_empty() || client.send_windows.room(stream) < 256 {
                break;
            }
            client.send_windows.take(stream, 256).ok();
            if client.send(frame::padded_data(stream, b"", 255, false)).is_err() {
                client.pump(ms(200));
                break;
            }
        }
        assert_calmed("padding", &mut client);
        watch.verdict(&rig, client.sent, 16 * MIB);
        rig.assert_counted(Kind::EmptyData);
    }
}

/// A frame that ends its stream is no overhead, however small: a thousand small requests are just that.
pub(crate) fn h2_05_small_requests_are_no_attack() {
    for back in BOTH {
        let rig = Rig::standard(back);
        let mut client = rig.client();
        for round in 0..1500 {
            let stream = client.open("POST", "/upload", &[], false).unwrap();
            if round % 2 == 0 {
                client.data(stream, &pattern::bytes(1), false).unwrap();
                client.send(frame::data(stream, b"", true)).unwrap();
            } else {
                client.data(stream, &pattern::bytes(1), true).unwrap();
            }
            let response = client.response(stream).unwrap_or_else(|e| panic!("{back:?}, round {round}: {e}"));
            assert_eq!(response.text(), "1 right");
        }
        assert_eq!(client.goaways, []);
        rig.origin.assert_clean();
    }
}

/// Padding takes room in both windows, and all of it comes back.
pub(crate) fn h2_05_padding_is_credited_back() {
    for back in BOTH {
        let rig = Rig::standard(back);
        let mut client = rig.client();
        let stream = client.open("POST", "/upload", &[], false).unwrap();
        let body = pattern::bytes(3_000_000);
        for piece in body.chunks(1000) {
            let flow = piece.len() + 256;
            client
                .until("room for padded DATA", seconds(10), |c| c.send_windows.room(stream) >= flow)
                .unwrap_or_else(|e| panic!("{back:?}: {e}"));
            client.send_windows.take(stream, flow).unwrap();
            client.send(frame::padded_data(stream, piece, 255, false)).unwrap();
        }
        client.send(frame::data(stream, b"", true)).unwrap();
        assert_eq!(client.response(stream).unwrap().text(), "3000000 right", "{back:?}");
        // Padding that reaches beyond the frame is an error of the connection.
        let stream = client.open("POST", "/upload", &[], false).unwrap();
        client.send(frame::frame(kind::DATA, flag::PADDED, stream, [10, 0, 0])).unwrap();
        crate::h2_rig::assert_sent_away(
            "too much padding",
            &mut client,
            &[testkit::h2::code::PROTOCOL_ERROR],
        );
    }
}

fn control_flood(case: &str, unit: &[u8], count: usize, counted: Kind) {
    let rig = Rig::standard(Version::H1);
    let watch = rig.watch();
    let mut client = rig.client();
    flood(&mut client, unit, count);
    assert_calmed(case, &mut client);
    watch.verdict(&rig, client.sent, 16 * MIB);
    rig.assert_counted(counted);
}

pub(crate) fn h2_06_settings_flood() {
    control_flood(
        "SETTINGS",
        &frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535)]),
        100_000,
        Kind::Settings,
    );
    control_flood("empty SETTINGS", &frame::settings(&[]), 100_000, Kind::Settings);
    // Two thousand settings in a frame: the frames are few, the work is not.
    let pairs: Vec<(u16, u32)> = (0..2700).map(|n| (setting::INITIAL_WINDOW_SIZE, 60_000 + n % 5)).collect();
    control_flood("long SETTINGS", &frame::settings(&pairs), 20_000, Kind::Settings);
}

pub(crate) fn h2_06_ping_flood() {
    control_flood("PING", &frame::ping([1; 8]), 200_000, Kind::Ping);
}

/// The sender never reads, so that the answers pile up on the gateway's side.
pub(crate) fn h2_06_answers_that_nobody_reads() {
    for unit in [frame::ping([1; 8]), frame::settings(&[])] {
        let rig = Rig::standard(Version::H1);
        let watch = rig.watch();
        let mut client = H2Client::connect_narrow(rig.gateway.front(), &[]).unwrap();
        client.reader.wire.stream().set_write_timeout(Some(seconds(2))).unwrap();
        let batch = unit.repeat(2000);
        let sent = (0..1500).take_while(|_| client.send(&batch).is_ok()).count();
        watch.verdict(&rig, client.sent, 8 * MIB);
        // Either it was sent away, or the gateway has stopped to read from it.
        // The kernel's buffers hold some megabytes.
        assert!(sent < 1500, "3000000 frames were taken from a peer that never reads");
    }
}

pub(crate) fn h2_06_priority_flood() {
    control_flood("PRIORITY", &frame::priority(1, 3), 200_000, Kind::Priority);
}

pub(crate) fn h2_06_unknown_frame_flood() {
    control_flood("unknown frames", &frame::frame(0xbb, 0, 0, []), 200_000, Kind::Unknown);
    control_flood(
        "unknown frames on a stream",
        &frame::frame(0xbb, 0xff, 1, b"12345"),
        200_000,
        Kind::Unknown,
    );
}

pub(crate) fn h2_06_window_update_flood() {
    let rig = Rig::standard(Version::H1);
    let watch = rig.watch();
    let mut client =
        H2Client::connect_with(rig.gateway.front(), &[(setting::INITIAL_WINDOW_SIZE, 0)]).unwrap();
    let stream = client.open("GET", "/slow/60000", &[], true).unwrap();
    flood(&mut client, &frame::window_update(stream, 1), 200_000);
    assert_calmed("WINDOW_UPDATE", &mut client);
    watch.verdict(&rig, client.sent, 16 * MIB);
    rig.assert_counted(Kind::WindowUpdate);
}

pub(crate) fn h2_06_table_size_flapping() {
    // By SETTINGS, with a request between any two.
    let flap = |size| frame::settings(&[(setting::HEADER_TABLE_SIZE, size)]);
    control_flood("HEADER_TABLE_SIZE", &[flap(0), flap(65_536)].concat(), 100_000, Kind::Settings);
    // In the block itself: two updates are allowed at its start, a thousand are not sensible.
    let rig = Rig::standard(Version::H1);
    let watch = rig.watch();
    let mut client = rig.client();
    let mut block = Vec::new();
    (0..4000).for_each(|_| block.extend([hpack::table_size(0), hpack::table_size(4096)].concat()));
    block.extend(hpack::block(&client.fields("GET", "/flap", &[])));
    for _ in 0..100 {
        let stream = client.next_stream();
        if !client.send_anyway(frame::headers_in_pieces(stream, &block, true, 16_384)) {
            break;
        }
    }
    client.pump(ms(300));
    assert!(rig.arrived() <= 100);
    watch.verdict(&rig, client.sent, 16 * MIB);
    // A size above what was allowed is a COMPRESSION_ERROR.
    let mut client = rig.client();
    let block = [hpack::table_size(1 << 20), hpack::block(&client.fields("GET", "/above", &[]))].concat();
    client.open_block(&block, true).unwrap();
    let code = testkit::h2::code::COMPRESSION_ERROR;
    crate::h2_rig::assert_sent_away("table size above the limit", &mut client, &[code]);
}

/// What any library sends now and then is no flood.
pub(crate) fn h2_06_a_few_control_frames_are_no_attack() {
    let rig = Rig::standard(Version::H1);
    let mut client = rig.client();
    for round in 0..30 {
        client.send(frame::ping([round; 8])).unwrap();
        client.send_settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535 + u32::from(round))]).unwrap();
        client.send(frame::frame(0xbb, 0, 0, b"grease")).unwrap();
        client.send(frame::priority(101, 0)).unwrap();
        assert_eq!(client.get("/").unwrap().status(), 200);
    }
    assert_eq!((client.pongs.len(), client.settings_acks), (30, 31));
    assert_eq!(client.goaways, []);
}

/// Responses pinned by windows that stay shut: little memory, and an end.
pub(crate) fn h2_07_zero_windows() {
    for back in BOTH {
        let rig =
            Rig::with(Origin::standard(back, "origin"), |listener| listener.http("write_timeout_ms", 1500));
        let watch = rig.watch();
        let mut clients = Vec::new();
        for _ in 0..4 {
            let shut = [(setting::INITIAL_WINDOW_SIZE, 0)];
            let mut client = H2Client::connect_with(rig.gateway.front(), &shut).unwrap().withhold();
            for _ in 0..100 {
                client.open("GET", "/bytes/10000000", &[], true).unwrap();
            }
            clients.push(client);
        }
        rig.origin.wait_requests(401);
        for client in &mut clients {
            client
                .until("every stream's end", seconds(15), |c| {
                    c.gone.is_some() || c.streams.values().all(|s| s.reset.is_some())
                })
                .unwrap_or_else(|e| panic!("{back:?}: {e}"));
        }
        let sent = clients.iter().map(|c| c.sent).sum();
        watch.verdict(&rig, sent, 64 * MIB);
        rig.assert_counted(Kind::WindowStall);
    }
}

/// The same with windows dripped open by 1: whoever takes a byte a moment makes no progress.
pub(crate) fn h2_07_dripped_windows() {
    for back in BOTH {
        let rig =
            Rig::with(Origin::standard(back, "origin"), |listener| listener.http("write_timeout_ms", 1500));
        let watch = rig.watch();
        let shut = [(setting::INITIAL_WINDOW_SIZE, 0)];
        let mut client = H2Client::connect_with(rig.gateway.front(), &shut).unwrap().withhold();
        let streams: Vec<u32> =
            (0..50).map(|_| client.open("GET", "/bytes/10000000", &[], true).unwrap()).collect();
        let over = |c: &H2Client| c.gone.is_some() || c.streams.values().all(|s| s.reset.is_some());
        for _ in 0..80 {
            client.read_for(ms(200));
            if over(&client) {
                break;
            }
            for stream in &streams {
                client.credit(*stream, 1).ok();
            }
        }
        assert!(over(&client), "{back:?}: streams live on for 16 s by a byte in 200 ms");
        watch.verdict(&rig, client.sent, 32 * MIB);
        rig.assert_counted(Kind::WindowStall);
    }
}

/// A reader that is merely slow keeps its stream for as long as it takes.
pub(crate) fn h2_07_a_slow_reader_is_no_attack() {
    for back in BOTH {
        let origin = scripted(back, |exchange| {
            exchange.drain()?;
            exchange.respond(200, &[], &pattern::bytes(400_000))
        });
        let rig = Rig::with(origin, |listener| listener.http("write_timeout_ms", 1500));
        let small = [(setting::INITIAL_WINDOW_SIZE, 20_000)];
        let mut client = H2Client::connect_with(rig.gateway.front(), &small).unwrap().withhold();
        let stream = client.open("GET", "/slowly", &[], true).unwrap();
        for _ in 0..40 {
            client.read_for(ms(100));
            if client.streams[&stream].is_over() {
                break;
            }
            client.credit(stream, 20_000).unwrap();
            client.credit(0, 20_000).unwrap();
        }
        client.response(stream).unwrap().pattern.assert_complete(400_000);
    }
}
