//! Field blocks without end or measure: CONTINUATION floods and compression bombs.

use crate::h2_rig::{Kind, MIB, Rig, assert_calmed, assert_sent_away};
use testkit::h2::{code, flag, frame, hpack, kind, setting};
use testkit::{H2Client, Version, ms, seconds};

const BOTH: [Version; 2] = [Version::H1, Version::H2];

fn begin(client: &mut H2Client) -> u32 {
    let stream = client.next_stream();
    let block = hpack::block(&client.fields("GET", "/endless", &[]));
    client.send(frame::frame(kind::HEADERS, flag::END_STREAM, stream, block)).unwrap();
    stream
}

pub(crate) fn h2_03_continuation_flood() {
    let large = hpack::literal("x-more", "v".repeat(16_000));
    let pieces: [(&str, Vec<u8>); 4] = [
        ("empty CONTINUATION", Vec::new()),
        ("CONTINUATION of a byte", vec![0x82]),
        ("small fields", hpack::literal("x-more", "v")),
        ("large fields", large),
    ];
    for (case, piece) in pieces {
        let rig = Rig::standard(Version::H1);
        let watch = rig.watch();
        let mut client = rig.client();
        let stream = begin(&mut client);
        let unit = frame::frame(kind::CONTINUATION, 0, stream, &piece);
        let batch = unit.repeat((32 * 1024 / unit.len()).max(1));
        while client.sent < 32 * MIB && client.goaways.is_empty() && client.send_anyway(&batch) {}
        let codes = [code::ENHANCE_YOUR_CALM, code::PROTOCOL_ERROR];
        assert_sent_away(case, &mut client, &codes);
        assert!(client.sent < 4 * MIB, "{case}: {} KiB were listened to", client.sent / 1024);
        assert_eq!(rig.arrived(), 0, "{case}: half a head was forwarded");
        watch.verdict(&rig, client.sent, 8 * MIB);
        rig.assert_counted(Kind::Continuation);
    }
}

/// A block that is begun and not ended is a head that is late.
pub(crate) fn h2_03_block_that_stays_open() {
    let rig = Rig::with(testkit::Origin::standard(Version::H1, "origin"), |listener| {
        listener.http("header_timeout_ms", 800)
    });
    let watch = rig.watch();
    let mut client = rig.client();
    let stream = begin(&mut client);
    for _ in 0..100 {
        client.read_for(ms(50));
        if client.gone.is_some() || !client.send_anyway(frame::frame(kind::CONTINUATION, 0, stream, [0x82])) {
            break;
        }
    }
    client
        .closed(seconds(1))
        .expect("the end of a connection whose head takes longer than header_timeout_ms");
    assert_eq!(rig.arrived(), 0);
    watch.verdict(&rig, client.sent, 8 * MIB);
}

/// Another frame inside a block is an error of the connection, and so is CONTINUATION without a block.
/// The time for a block runs out once, whatever else runs on the connection.
pub(crate) fn h2_03_block_that_stays_open_beside_work() {
    let rig = Rig::with(testkit::Origin::standard(Version::H1, "origin"), |listener| {
        listener.http("header_timeout_ms", 500)
    });
    let mut client = rig.client();
    client.open("GET", "/slow/20000", &[], true).unwrap();
    rig.origin.wait_requests(1);
    begin(&mut client);
    assert_calmed("an open block", &mut client);
    std::thread::sleep(ms(300));
    let counted = |family, label| rig.gateway.metric(family, &[label]);
    assert_eq!(counted("http2_abuse_total", ("kind", "header_timeout")), 1.0);
    assert_eq!(counted("request_rejected_total", ("reason", "header_timeout")), 1.0);
}

pub(crate) fn h2_03_frames_inside_a_block() {
    type Intruder<'a> = (&'a str, fn(u32) -> Vec<u8>);
    let inside: [Intruder<'_>; 6] = [
        ("PING", |_| frame::ping([0; 8])),
        ("DATA", |s| frame::data(s, b"x", false)),
        ("HEADERS of another stream", |s| frame::headers(s + 2, [], true)),
        ("CONTINUATION of another stream", |s| {
            frame::frame(kind::CONTINUATION, flag::END_HEADERS, s + 2, [])
        }),
        ("an unknown frame", |_| frame::frame(0xbb, 0, 0, [])),
        ("RST_STREAM", |s| frame::rst_stream(s, code::CANCEL)),
    ];
    let rig = Rig::standard(Version::H1);
    for (case, bytes) in inside {
        let mut client = rig.client();
        let stream = begin(&mut client);
        client.send_anyway(bytes(stream));
        assert_sent_away(case, &mut client, &[code::PROTOCOL_ERROR]);
    }
    let mut client = rig.client();
    client.send_anyway(frame::frame(kind::CONTINUATION, flag::END_HEADERS, 1, []));
    assert_sent_away("CONTINUATION without a block", &mut client, &[code::PROTOCOL_ERROR]);
    assert_eq!(rig.arrived(), 0);
}

/// A hundred connections that each hold what a block of some 16 KiB has made of them.
fn bomb(case: &str, back: Version, entry: (&str, &str), references: usize) {
    const ATTACKERS: usize = 100;
    let rig = Rig::standard(back);
    let watch = rig.watch();
    let mut sent = 0;
    let mut clients = Vec::new();
    for _ in 0..ATTACKERS {
        // Whatever answer there is stays pinned.
        let mut client =
            H2Client::connect_with(rig.gateway.front(), &[(setting::INITIAL_WINDOW_SIZE, 0)]).unwrap();
        let mut block = hpack::block(&client.fields("GET", "/bomb", &[]));
        block.extend(hpack::incremental(entry.0, entry.1));
        block.extend(hpack::indexed(hpack::FIRST_DYNAMIC).repeat(references));
        let stream = client.next_stream();
        client.send_anyway(frame::headers_in_pieces(stream, &block, true, 16_384));
        clients.push((client, stream));
    }
    for (client, stream) in &mut clients {
        client
            .until("a refusal", seconds(10), |c| {
                let response = &c.streams[&*stream];
                c.gone.is_some()
                    || !c.goaways.is_empty()
                    || response.head.is_some()
                    || response.reset.is_some()
            })
            .unwrap_or_else(|e| panic!("{case}: {e}"));
        let status = client.streams[&*stream].status();
        assert!([0, 400, 431].contains(&status), "{case}: answered with {status}");
        sent += client.sent;
    }
    assert_eq!(rig.arrived(), 0, "{case}: it went on to the backend");
    watch.verdict(&rig, sent, 8 * sent);
    rig.assert_counted(Kind::Headers);
}

pub(crate) fn h2_04_bomb_of_large_fields() {
    for back in BOTH {
        bomb("4000-byte field, 12000 times", back, ("x-bomb", &"b".repeat(4000)), 12_000);
    }
}

pub(crate) fn h2_04_bomb_of_small_fields() {
    for back in BOTH {
        bomb("smallest field, 16000 times", back, ("a", ""), 16_000);
    }
}

pub(crate) fn h2_04_bomb_of_cookie_crumbs() {
    for back in BOTH {
        bomb("cookie crumbs", back, ("cookie", "a"), 16_000);
        bomb("large cookie crumbs", back, ("cookie", &format!("a={}", "b".repeat(4000))), 12_000);
    }
}

/// Fields that are few by bytes are still many by count: an operator who allows a megabyte has not allowed 25000 crumbs.
pub(crate) fn h2_04_field_count_is_capped_apart_from_bytes() {
    for entry in [("a", ""), ("cookie", "a")] {
        let rig = Rig::with(testkit::Origin::standard(Version::H1, "origin"), |listener| {
            listener.h2("max_header_list_size", 4 << 20)
        });
        let watch = rig.watch();
        let mut client = rig.client();
        let mut block = hpack::block(&client.fields("GET", "/bomb", &[]));
        block.extend(hpack::incremental(entry.0, entry.1));
        block.extend(hpack::indexed(hpack::FIRST_DYNAMIC).repeat(25_000));
        let stream = client.next_stream();
        client.send_anyway(frame::headers_in_pieces(stream, &block, true, 16_384));
        client.pump(seconds(1));
        let status = client.streams[&stream].status();
        assert!([0, 400, 431].contains(&status), "{entry:?}: answered with {status}");
        assert_eq!(rig.arrived(), 0, "{entry:?}: it went on to the backend");
        watch.verdict(&rig, client.sent, 8 * MIB);
    }
}

/// The bomb again and again on one connection: each block is refused, and the refusals are not for ever.
pub(crate) fn h2_04_bombs_on_one_connection() {
    let rig = Rig::standard(Version::H1);
    let watch = rig.watch();
    let mut client = rig.client();
    let mut entered = false;
    for _ in 0..2000 {
        let mut block = hpack::block(&client.fields("GET", "/bomb", &[]));
        if !entered {
            block.extend(hpack::incremental("x-bomb", "b".repeat(4000)));
            entered = true;
        }
        block.extend(hpack::indexed(hpack::FIRST_DYNAMIC).repeat(8000));
        let stream = client.next_stream();
        if !client.send_anyway(frame::headers_in_pieces(stream, &block, true, 16_384))
            || !client.goaways.is_empty()
        {
            break;
        }
    }
    assert_calmed("bomb after bomb", &mut client);
    assert_eq!(rig.arrived(), 0);
    watch.verdict(&rig, client.sent, 16 * MIB);
}

/// A literal that is longer than the whole list may be is the fault of its stream, at any limit and however it is coded: the block is
/// decoded, thrown away and answered, and neither the other streams of the connection nor its table take harm.
pub(crate) fn h2_04_a_field_beyond_the_limit_costs_only_its_stream() {
    const MIB: usize = 1 << 20;
    let cases = [(1024, 1100), (1024, 200_000), (65_536, 66_000), (65_536, 200_000), (MIB, MIB + 1000)];
    for (limit, length) in cases {
        let rig = Rig::with(testkit::Origin::standard(Version::H1, "origin"), |listener| {
            listener.h2("max_header_list_size", limit as u64)
        });
        let mut client = rig.client();
        let beside = client.open("GET", "/slow/500", &[], true).unwrap();
        let plain = hpack::literal("x-large", "v".repeat(length));
        let named = hpack::literal("n".repeat(length), "v");
        let coded = [hpack::integer(0, 4, 0), hpack_string("x-large"), letters(length)].concat();
        let entered = hpack::incremental("x-large", "v".repeat(length));
        for (case, large) in [("plain", plain), ("a name", named), ("coded", coded), ("entered", entered)] {
            let case = format!("{case} of {length} bytes, limit {limit}");
            let mut block = hpack::block(&client.fields("GET", "/refused", &[]));
            block.extend(large);
            block.extend(hpack::incremental("x-kept", case.as_str()));
            let stream = client.open_block(&block, true).unwrap();
            let refused = client.response(stream).unwrap_or_else(|e| panic!("{case}: {e}"));
            assert_eq!(refused.status(), 431, "{case}");
            let mut block = hpack::block(&client.fields("GET", "/after", &[]));
            block.extend(hpack::indexed(hpack::FIRST_DYNAMIC));
            let stream = client.open_block(&block, true).unwrap();
            assert_eq!(client.response(stream).unwrap().status(), 200, "after {case}");
            // The slow request beside this one may reach the backend at any time.
            let requests = rig.origin.requests();
            let after = requests.iter().rfind(|request| request.path == "/after").unwrap();
            assert_eq!(after.headers.get("x-kept").as_deref(), Some(&*case));
        }
        assert_eq!(client.response(beside).unwrap().status(), 200, "beside fields of {length} bytes");
        assert_eq!(client.goaways, []);
        assert!(rig.origin.requests().iter().all(|request| request.path != "/refused"));
    }
}

/// A target that is longer than the list may be is too long as any other is, and trailers beyond the limit end their stream.
pub(crate) fn h2_04_targets_and_trailers_beyond_the_limit() {
    for back in BOTH {
        let rig = Rig::standard(back);
        let mut client = rig.client();
        let target = format!("/{}", "p".repeat(100_000));
        assert_eq!(client.get(&target).unwrap().status(), 414, "{back:?}");
        let stream = client.open("POST", "/upload", &[], false).unwrap();
        client.data(stream, &testkit::pattern::bytes(100), false).unwrap();
        let trailers = hpack::literal("x-large", "v".repeat(100_000));
        client.send(frame::headers_in_pieces(stream, &trailers, true, 16_384)).unwrap();
        assert_eq!(client.over(stream).unwrap().reset, Some(code::PROTOCOL_ERROR), "{back:?}");
        assert_eq!(client.get("/after").unwrap().status(), 200, "{back:?}: {:?}", client.goaways);
        rig.origin.assert_clean();
    }
}

/// A plain string.
fn hpack_string(text: &str) -> Vec<u8> {
    [hpack::integer(0, 7, text.len()), text.into()].concat()
}

/// The letter `a`, so many times or a few more, as a Huffman code: five bits each.
fn letters(count: usize) -> Vec<u8> {
    let code = [0x18, 0xc6, 0x31, 0x8c, 0x63].repeat(count.div_ceil(8));
    [hpack::integer(0x80, 7, code.len()), code].concat()
}

/// The block after a refused one is still understood, table and all.
pub(crate) fn h2_04_refused_blocks_leave_the_table_whole() {
    for back in BOTH {
        let rig = Rig::standard(back);
        let mut client = rig.client();
        let mut block = hpack::block(&client.fields("GET", "/refused", &[]));
        block.extend(hpack::incremental("x-first", "one"));
        block.extend(hpack::literal("x-large", "v".repeat(80_000)));
        block.extend(hpack::incremental("x-second", "two"));
        let stream = client.open_block(&block, true).unwrap();
        assert_eq!(client.response(stream).unwrap().status(), 431, "{back:?}");
        let mut block = hpack::block(&client.fields("GET", "/after", &[]));
        block.extend(
            [hpack::indexed(hpack::FIRST_DYNAMIC), hpack::indexed(hpack::FIRST_DYNAMIC + 1)].concat(),
        );
        let stream = client.open_block(&block, true).unwrap();
        assert_eq!(client.response(stream).unwrap().status(), 200, "{back:?}: {:?}", client.goaways);
        let last = rig.origin.last_request();
        assert_eq!(last.path, "/after");
        assert_eq!(last.headers.get("x-first").as_deref(), Some("one"));
        assert_eq!(last.headers.get("x-second").as_deref(), Some("two"));
    }
}
