//! Any flood ends its connection, and any mix of floods.
//!
//! Rows that are not here: H2-14 is about HTTP/1.1, whose front never offers `h2c`; over HTTP/2 an `upgrade` field is malformed, like the
//! others of row H2-08. That a block, a body or a window takes too long (rows H2-03, H2-04 and H2-07 in part) is decided by deadlines
//! outside the mux.

use proptest::prelude::*;

use super::*;
use crate::h2::mux::output::HIGH_WATER;

/// Repeats what `unit` makes of its number, half a microsecond apart; how often that was borne.
fn flood(
    rig: &mut Rig,
    mut unit: impl FnMut(&mut Rig, u32) -> Result<Vec<u8>, FrameError>,
) -> Result<u32, FrameError> {
    for n in 0..1_000_000 {
        rig.now += std::time::Duration::from_nanos(500);
        let bytes = unit(rig, n)?;
        rig.feed(&bytes)?;
        if rig.mux.output().len() > 100_000 {
            rig.read();
        }
    }
    Ok(1_000_000)
}

#[track_caller]
fn ends(case: &str, budget: &str, ended: Result<u32, FrameError>) {
    let error = ended.expect_err(case);
    assert_eq!((error.code, error.what), (ErrorCode::ENHANCE_YOUR_CALM, budget), "{case}");
}

#[test]
fn any_flood_of_a_client_ends() {
    type Unit = fn(u32) -> Vec<u8>;
    // On stream 1 an upload is under way, stream 3 has ended.
    let plain: [(&str, &str, Unit); 17] = [
        ("h2_02 window updates of zero", "local_reset", |_| update(1, 0)),
        ("h2_11 empty DATA after the end", "unwanted", |_| data(3, 0, false)),
        ("h2_11 bytes after the end", "tiny_data", |_| data(3, 1, false)),
        ("h2_05 empty DATA", "empty_data", |_| data(1, 0, false)),
        ("h2_05 nothing but padding", "empty_data", |_| frame(0, 8, 1, &[3, 0, 0, 0])),
        ("h2_05 bytes, one by one", "tiny_data", |_| data(1, 1, false)),
        ("h2_05 bytes, four by four", "tiny_data", |_| data(1, 4, false)),
        ("h2_06 SETTINGS", "settings", |_| frame(4, 0, 0, &[])),
        ("h2_06 answers to SETTINGS", "unwanted", |_| frame(4, 1, 0, &[])),
        ("h2_06 PING", "ping", |_| ping()),
        ("h2_06 answers to PING", "unwanted", |_| frame(6, 1, 0, b"whatever")),
        ("h2_06 PRIORITY", "priority", |_| frame(2, 0, 5, &[0, 0, 0, 0, 1])),
        ("h2_06 unknown frames", "unknown", |_| frame(0xbb, 0, 0, b"1")),
        ("h2_06 WINDOW_UPDATE", "window_update", |_| update(1, 1)),
        ("h2_06 GOAWAY", "unwanted", |_| frame(7, 0, 0, &[0; 8])),
        ("h2_11 resets of what has ended", "unwanted", |_| reset(3)),
        ("h2_11 PING, beside bytes", "tiny_data", |n| if n % 3 == 0 { ping() } else { data(1, 1, false) }),
    ];
    for (case, budget, unit) in plain {
        let mut rig = Rig::new(Role::Server);
        let (_, key) = rig.request(true).unwrap();
        let (_, done) = rig.request(false).unwrap();
        rig.answer(done);
        rig.mux.send_end(done);
        rig.mux.leave(done, ErrorCode::NO_ERROR);
        let ended = flood(&mut rig, |rig, n| {
            rig.take(key);
            Ok(unit(n))
        });
        ends(case, budget, ended);
    }

    let mut rig = Rig::new(Role::Server);
    let ended = flood(&mut rig, |rig, _| {
        let (id, key) = rig.request(false)?;
        rig.feed(&reset(id))?;
        rig.mux.leave(key, ErrorCode::CANCEL);
        Ok(Vec::new())
    });
    ends("h2_01 requests given up at once", "peer_reset", ended);

    type Frames = fn(u32) -> Vec<u8>;
    let provocations: [(&str, Frames); 4] = [
        ("h2_02 a window update of zero", |id| update(id, 0)),
        ("h2_02 a priority on itself", |id| frame(2, 0, id, &[&id.to_be_bytes()[..], &[1]].concat())),
        ("h2_02 DATA after the end", |id| data(id, 9, false)),
        ("h2_02 HEADERS after the end", |id| headers(id, OK, true)),
    ];
    for (case, provoke) in provocations {
        let mut rig = Rig::new(Role::Server);
        let ended = flood(&mut rig, |rig, _| {
            let id = rig.next;
            rig.next += 2;
            let known = rig.keys.len();
            rig.feed(&[headers(id, GET, true), provoke(id)].concat())?;
            if let Some((_, key)) = rig.keys.get(known) {
                rig.mux.leave(*key, ErrorCode::CANCEL);
            }
            Ok(Vec::new())
        });
        ends(case, "local_reset", ended);
    }

    // A window of a byte is opened again and again: what it lets pass does not pay for it.
    let mut rig = Rig::new(Role::Server);
    let shut = [&4u16.to_be_bytes()[..], &0u32.to_be_bytes()].concat();
    rig.feed(&frame(4, 0, 0, &shut)).unwrap();
    let (id, key) = rig.request(false).unwrap();
    rig.answer(key);
    rig.mux.eager = true;
    rig.mux.send_data(key, &[1; 600_000]);
    let ended = flood(&mut rig, |rig, _| {
        rig.read();
        Ok([update(id, 1), update(0, 1)].concat())
    });
    ends("h2_04 windows of a byte", "window_update", ended);
}

#[test]
fn h2_13_any_flood_of_a_backend_ends_and_content_is_none() {
    type Unit = fn(u32) -> Vec<u8>;
    // A response is under way on stream 1; stream 3 was given up.
    let begin = || {
        let mut rig = Rig::new(Role::Client);
        let key = rig.mux.open();
        let gone = rig.mux.open();
        rig.mux.send_request(key, &RequestHead::default(), b"http", true);
        rig.mux.send_request(gone, &RequestHead::default(), b"http", true);
        rig.feed(&headers(1, OK, false)).unwrap();
        rig.mux.leave(gone, ErrorCode::CANCEL);
        (rig, key)
    };
    let floods: [(&str, &str, Unit); 12] = [
        ("empty DATA", "unwanted", |_| data(1, 0, false)),
        ("SETTINGS", "settings", |_| frame(4, 0, 0, &[])),
        ("PING", "ping", |_| ping()),
        ("PRIORITY", "priority", |_| frame(2, 0, 1, &[0, 0, 0, 0, 3])),
        ("WINDOW_UPDATE", "window_update", |_| update(1, 1)),
        ("unknown frames", "unknown", |_| frame(0xbb, 0, 0, &[])),
        ("GOAWAY", "unwanted", |_| frame(7, 0, 0, &[0, 0, 0, 9, 0, 0, 0, 0])),
        ("heads for what was given up", "unwanted", |_| headers(3, OK, false)),
        ("resets of what was given up", "unwanted", |_| reset(3)),
        ("bytes for what was given up", "tiny_data", |_| data(3, 1, false)),
        ("interim heads", "unwanted", |_| headers(1, &[0x08, 3, b'1', b'0', b'3'], false)),
        ("errors", "local_reset", |_| update(3, 0)),
    ];
    for (case, budget, unit) in floods {
        let (mut rig, key) = begin();
        let ended = flood(&mut rig, |rig, n| {
            rig.take(key);
            Ok(unit(n))
        });
        ends(case, budget, ended);
    }
    for content in [1, 10] {
        let (mut rig, key) = begin();
        let borne = flood(&mut rig, |rig, _| {
            rig.take(key);
            rig.read();
            Ok(data(1, content, false))
        });
        assert_eq!(borne, Ok(1_000_000), "parts of {content} bytes");
    }
    // A backend that answers each part of an upload with a PING and two updates, or each byte of it with two.
    let mut rig = Rig::new(Role::Client);
    let key = rig.mux.open();
    rig.mux.send_request(key, &RequestHead::default(), b"http", false);
    let borne = flood(&mut rig, |rig, n| {
        rig.mux.send_data(key, &[1; 5]);
        rig.read();
        let updates = [update(0, 1), update(1, 1)].concat();
        Ok(if n % 2 == 0 { [ping(), updates].concat() } else { updates.repeat(5) })
    });
    assert_eq!(borne, Ok(1_000_000));
}

/// A backend whose answers are broken one after the other gets no more requests here, and the others on the connection are finished.
#[test]
fn h2_13_faults_that_clients_provoke_retire_a_connection_and_end_nobodys_call() {
    let mut rig = Rig::new(Role::Client);
    let quiet = rig.mux.open();
    rig.mux.send_request(quiet, &RequestHead::default(), b"http", true);
    let mut broken = 0;
    while rig.mux.takes_streams() {
        let key = rig.mux.open();
        let id = rig.mux.stream(key).unwrap().id;
        rig.feed(&headers(id, &[0x80 | 8, 0x0f, 0x0d, 1, b'x'], false)).unwrap();
        rig.mux.leave(key, ErrorCode::CANCEL);
        // Each request makes up for one fault: only what comes on top of it counts.
        rig.feed(&update(id, 0)).unwrap();
        broken += 1;
        assert!(broken < 5_000);
    }
    assert!(broken >= 900 && rig.mux.goaway_sent.is_some(), "{broken}");
    rig.feed(&[headers(1, OK, false), data(1, 9, true)].concat()).unwrap();
    let stream = rig.mux.stream(quiet).unwrap();
    assert!(stream.reset.is_none() && stream.received_end);
}

/// Begins a request; no key where it was not taken.
fn begin(rig: &mut Rig, block: &[u8], end: bool) -> Result<(u32, Option<Key>), FrameError> {
    let (id, known) = (rig.next, rig.keys.len());
    rig.next += 2;
    rig.feed(&headers(id, block, end))?;
    Ok((id, rig.keys.get(known).map(|(_, key)| *key)))
}

/// Begins a request, sends `frames` on its stream, and has its exchange end when the stream was reset.
fn provoke(
    rig: &mut Rig,
    block: &[u8],
    end: bool,
    frames: impl Fn(u32) -> Vec<u8>,
) -> Result<(), FrameError> {
    let (id, key) = begin(rig, block, end)?;
    rig.feed(&frames(id))?;
    if let Some(key) = key
        && rig.mux.stream(key).is_some_and(|stream| stream.reset.is_some())
    {
        rig.mux.leave(key, ErrorCode::CANCEL);
    }
    Ok(())
}

/// A request that the front answers by itself.
fn refused(rig: &mut Rig, block: &[u8]) -> Result<(), FrameError> {
    if let (_, Some(key)) = begin(rig, block, true)? {
        rig.answer(key);
        rig.mux.send_end(key);
        rig.mux.leave(key, ErrorCode::NO_ERROR);
    }
    Ok(())
}

type Attack = fn(&mut Rig) -> Result<(), FrameError>;

/// What costs this end more than it costs the client, by row. Stream 1 is an upload under way, stream 3 has ended.
const ATTACKS: [(&str, Attack); 20] = [
    ("h2_01 a request given up at once", |rig| provoke(rig, GET, true, reset)),
    ("h2_02 a window update of zero", |rig| provoke(rig, GET, true, |id| update(id, 0))),
    ("h2_03 a block of many frames", |rig| {
        let id = rig.next;
        rig.next += 2;
        rig.feed(&[frame(1, 1, id, GET), frame(9, 0, id, &[]).repeat(40)].concat())
    }),
    ("h2_04 a list of too many fields", |rig| refused(rig, &[GET, &[0x90; 200]].concat())),
    ("h2_05 empty DATA", |rig| rig.feed(&data(1, 0, false))),
    ("h2_05 a byte", |rig| rig.feed(&data(1, 1, false))),
    ("h2_06 SETTINGS", |rig| rig.feed(&frame(4, 0, 0, &[]))),
    ("h2_06 PING", |rig| rig.feed(&ping())),
    ("h2_06 PRIORITY", |rig| rig.feed(&frame(2, 0, 5, &[0, 0, 0, 0, 1]))),
    ("h2_06 an unknown frame", |rig| rig.feed(&frame(0xbb, 0, 0, b"1"))),
    ("h2_06 WINDOW_UPDATE", |rig| rig.feed(&update(0, 1))),
    ("h2_08 a name in capitals", |rig| provoke(rig, &[GET, &field("A", "b")].concat(), true, |_| Vec::new())),
    ("h2_08 a field of the connection", |rig| {
        provoke(rig, &[GET, &field("connection", "close")].concat(), true, |_| Vec::new())
    }),
    ("h2_08 a pseudo-header field too late", |rig| {
        provoke(rig, &[GET, &field("a", "b"), &[0x84]].concat(), true, |_| Vec::new())
    }),
    ("h2_08 an upgrade to h2c", |rig| {
        provoke(rig, &[GET, &field("upgrade", "h2c")].concat(), true, |_| Vec::new())
    }),
    ("h2_09 a body that is too short", |rig| {
        provoke(rig, &[POST, &field("content-length", "5")].concat(), false, |id| data(id, 3, true))
    }),
    ("h2_09 a body that is too long", |rig| {
        provoke(rig, &[POST, &field("content-length", "5")].concat(), false, |id| data(id, 9, false))
    }),
    ("h2_10 another host", |rig| provoke(rig, &[GET, &field("host", "b")].concat(), true, |_| Vec::new())),
    ("h2_11 DATA after the end", |rig| rig.feed(&data(3, 0, false))),
    ("h2_12 more requests than may run", |rig| begin(rig, GET, true).map(|_| ())),
];

/// An end with stream 1 and stream 3 as attacks want them.
fn victim() -> (Rig, Key) {
    let mut rig = Rig::new(Role::Server);
    let (_, key) = rig.request(true).unwrap();
    let (_, done) = rig.request(false).unwrap();
    rig.answer(done);
    rig.mux.send_end(done);
    rig.mux.leave(done, ErrorCode::NO_ERROR);
    (rig, key)
}

/// Repeats these attacks in turn; how that ended.
fn assail(attacks: &[usize]) -> Result<u32, FrameError> {
    let (mut rig, key) = victim();
    flood(&mut rig, |rig, n| {
        rig.take(key);
        let (_, attack) = ATTACKS[attacks[n as usize % attacks.len()]];
        attack(rig).map(|()| Vec::new())
    })
}

#[test]
fn h2_03_h2_08_h2_09_h2_10_h2_12_each_row_alone_ends() {
    let budgets = [
        "peer_reset",
        "local_reset",
        "header_overflow",
        "header_overflow",
        "empty_data",
        "tiny_data",
        "settings",
        "ping",
        "priority",
        "unknown",
        "window_update",
        "local_reset",
        "local_reset",
        "local_reset",
        "local_reset",
        "local_reset",
        "local_reset",
        "local_reset",
        "unwanted",
        "unwanted",
    ];
    for (at, ((case, _), budget)) in ATTACKS.iter().zip(budgets).enumerate() {
        ends(case, budget, assail(&[at]));
    }
}

/// The peer reads nothing: what it makes this end say, and what it asks for, gathers up to a bound, and nothing more is read from it then.
#[test]
fn h2_06_h2_07_what_nobody_reads_is_bounded() {
    let (mut rig, _) = victim();
    let mut asked = 0;
    while !rig.mux.is_full() {
        // As often as is borne at any speed.
        rig.now += std::time::Duration::from_secs(1);
        rig.feed(&ping().repeat(900)).unwrap();
        asked += 900;
        assert!(asked < 100_000);
    }
    assert!(rig.mux.output().len() < 512 * 1024);

    let mut rig = Rig::new(Role::Server);
    let keys: Vec<Key> = (0..STREAMS - 1).map(|_| rig.request(false).unwrap().1).collect();
    for key in &keys {
        rig.answer(*key);
        // An exchange offers no more than there is room for, and waits until that is gone.
        let room = rig.mux.room(*key);
        rig.mux.send_data(*key, &vec![1; room]);
    }
    let output = rig.mux.output().len();
    let waiting: usize = keys.iter().map(|key| rig.mux.stream(*key).unwrap().unsent()).sum();
    assert!(
        output <= HIGH_WATER + 16_384 && waiting <= keys.len() * LEAST_ROOM,
        "{output} and {waiting} bytes"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is mixed with whatever: without anything useful in it, no attack makes up for another.
    #[test]
    fn any_mix_of_floods_ends(attacks in prop::collection::vec(0..ATTACKS.len(), 1..12)) {
        let ended = assail(&attacks);
        let cases: Vec<_> = attacks.iter().map(|at| ATTACKS[*at].0).collect();
        prop_assert!(ended.is_err_and(|error| error.code == ErrorCode::ENHANCE_YOUR_CALM), "{:?}: {:?}", cases, ended);
    }
}
