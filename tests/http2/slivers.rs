//! Windows that are open by a little only: neither filled at once with a tiny frame, nor waited for without end.

use crate::rig::{Cell, Rig, config};
use std::fmt::Debug;
use std::time::{Duration, Instant};
use testkit::h2::backend::Manners;
use testkit::h2::{H2Response, setting};
use testkit::{Fault, Gateway, H2Backend, H2Client, Listener, Version, ms, pattern, seconds};

/// By how much the bit-by-bit peers open their windows.
const BIT: u32 = 128;
const BITS: usize = 100;
const ALL: u64 = 65_535 + BITS as u64 * BIT as u64;

/// A peer that opens nothing for as long as this is taken for one that waits for its window to be used up.
const LATE: Duration = ms(40);

/// Opens a window bit by bit. `false` where that has taken too long at once, as it does on a busy machine.
fn opens_in_time<E: Debug>(mut open: impl FnMut() -> Result<(), E>) -> bool {
    let mut last = Instant::now();
    let mut in_time = true;
    for _ in 0..BITS {
        open().unwrap();
        in_time &= last.elapsed() < LATE;
        last = Instant::now();
    }
    in_time
}

/// A frame for each bit would be 100.
fn assert_few(frames: usize, who: &str) {
    assert!(frames < BITS / 3, "{who}: {BITS} bits of {BIT} bytes came in {frames} frames");
}

/// Asks for the number of frames until the peer was in time.
fn in_time(attempt: impl Fn() -> Option<usize>) -> usize {
    (0..50).find_map(|_| attempt()).expect("a peer that opens its window without delays")
}

/// It opens the window of a stream by little, or that of the connection, and counts the frames of what it gets.
pub(crate) fn windows_that_open_bit_by_bit_make_no_tiny_frames() {
    for of_connection in [false, true] {
        let rig = Rig::standard(Cell { front: Version::H2, back: Version::H2 });
        let frames = in_time(|| {
            let mut client = rig.h2().withhold();
            let stream = client.open("GET", "/bytes/1000000", &[], true).unwrap();
            client.credit(if of_connection { stream } else { 0 }, 1 << 20).unwrap();
            let seen = |c: &H2Client| c.streams[&stream].pattern.len();
            client.until("the first window", seconds(5), |c| seen(c) == 65_535).unwrap();
            let before = client.streams[&stream].data_frames;
            let in_time = opens_in_time(|| {
                client.credit(if of_connection { 0 } else { stream }, BIT)?;
                client.read_for(ms(1));
                Ok::<_, Fault>(())
            });
            client.until("the last bit", seconds(5), |c| seen(c) == ALL).unwrap();
            let frames = client.streams[&stream].data_frames - before;
            client.credit(if of_connection { 0 } else { stream }, 1 << 20).unwrap();
            client.response(stream).unwrap().pattern.assert_complete(1_000_000);
            in_time.then_some(frames)
        });
        assert_few(frames, "a client");
    }

    // The same of an upload.
    let manners = Manners { withholds: true, ..Manners::default() };
    let backend = H2Backend::with(manners, |call| {
        call.credit(0, 1 << 20)?;
        let arrived = |call: &mut testkit::h2::Call, wanted: u64| {
            testkit::poll(seconds(5), || (call.request().pattern.len() == wanted).then_some(()));
            call.request().data_frames
        };
        let before = arrived(call, 65_535);
        let in_time = opens_in_time(|| {
            call.credit(call.stream, BIT)?;
            std::thread::sleep(ms(1));
            Ok::<_, Fault>(())
        });
        let frames = arrived(call, ALL) - before;
        call.credit(call.stream, 1 << 20)?;
        call.body()?.pattern.assert_complete(300_000);
        call.respond(200, &[], if in_time { frames.to_string() } else { "late".to_owned() }.as_bytes())
    });
    // A connection to the backend that was once waited for in vain is not used for another attempt.
    let frames = in_time(|| {
        let gateway = Gateway::start(config().listener(Listener::h2c().h2_backend(backend.address)));
        let mut client = H2Client::connect(gateway.front()).unwrap();
        let response = client.request("POST", "/", &[], &pattern::bytes(300_000)).unwrap();
        response.text().parse().ok()
    });
    assert_few(frames, "a backend");
    backend.assert_clean();
}

/// It opens its window only when the last byte of it was used, and the body comes in pieces of which the last does not fit: neither is
/// it waited for without end, nor again and again.
pub(crate) fn windows_that_open_when_used_up_are_used_up() {
    const WINDOW: u32 = 5 * PIECE as u32 + 1000;
    const ROUNDS: u32 = 1000;
    const PIECE: usize = 3000;
    let size = u64::from(WINDOW) * u64::from(ROUNDS);
    for of_connection in [false, true] {
        let rig = Rig::scripted(Cell { front: Version::H2, back: Version::H2 }, move |exchange| {
            exchange.start(200, &[])?;
            for piece in pattern::bytes(size as usize).chunks(PIECE) {
                exchange.data(piece)?;
                std::thread::sleep(Duration::from_micros(100));
            }
            exchange.finish(&[])
        });
        let initial = if of_connection { 0x7fff_ffff } else { WINDOW };
        let settings = [(setting::INITIAL_WINDOW_SIZE, initial)];
        let mut client = H2Client::connect_with(rig.gateway.front(), &settings).unwrap().withhold();
        client.credit(0, if of_connection { 5 * WINDOW - 65_535 } else { 1 << 30 }).unwrap();
        let stream = client.open("GET", "/", &[], true).unwrap();
        // The window of a connection cannot begin with fewer than five of these.
        let first = if of_connection { 5 } else { 1 };
        let seen = |stream: &H2Response| stream.pattern.len();
        let started = Instant::now();
        for round in first..=ROUNDS {
            let all = u64::from(WINDOW) * u64::from(round);
            // To wait for each round would take longer than is left for all of them.
            let left = seconds(15).saturating_sub(started.elapsed());
            let used_up = client.until("a window used up", left, |c| seen(&c.streams[&stream]) == all);
            used_up.unwrap_or_else(|e| panic!("of the connection: {of_connection}, round {round}: {e}"));
            client.credit(if of_connection { 0 } else { stream }, WINDOW).unwrap();
        }
        client.response(stream).unwrap().pattern.assert_complete(size);
    }
}
