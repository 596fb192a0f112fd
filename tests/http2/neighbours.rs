//! What one client does not read, and what a backend does not read of one client, costs nobody else anything.

use crate::rig::{BOTH, config, listener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::config::{Pool, Toml};
use testkit::h2::backend::Manners;
use testkit::{
    Front, Gateway, H2Backend, H2Client, Listener, Origin, Version, eventually, ms, pattern, seconds,
};

/// The window of a stream before anybody has changed it.
const FIRST_WINDOW: u64 = 65_535;

/// A client that opens the window of its connection and none of its streams holds what those windows let pass, at us and at the
/// backend; the connection to the backend goes on for everybody else.
pub(crate) fn unread_answers_stall_no_other_client() {
    for stalled in [20, 100, 200, 400] {
        let origin = Origin::standard(Version::H2, "one");
        // Connections to the backend belong to a worker.
        let gateway = Gateway::start(config().runtime("workers", 1).listener(listener(&origin)));
        let mut readers: Vec<Front> =
            BOTH.iter().map(|version| Front::connect(*version, gateway.front()).unwrap()).collect();
        let mut unread = Vec::new();
        for first in (0..stalled).step_by(200) {
            let mut client = H2Client::connect(gateway.front()).unwrap().withhold();
            client.credit(0, 1 << 30).unwrap();
            for _ in first..stalled.min(first + 200) {
                client.open("GET", "/bytes/500000", &[], true).unwrap();
            }
            client
                .until("the first window of each stream", seconds(20), |client| {
                    client.streams.values().all(|stream| stream.pattern.len() == FIRST_WINDOW)
                })
                .unwrap_or_else(|e| panic!("{stalled} streams: {e}"));
            unread.push(client);
        }
        for reader in &mut readers {
            for path in ["/", "/bytes/100000"] {
                let answer = reader.request("GET", path, &[], b"");
                assert_eq!(answer.unwrap_or_else(|e| panic!("beside {stalled} streams: {e}")).status, 200);
            }
        }
        // Whoever reads at last gets the whole answer.
        for mut client in unread {
            let stream = *client.streams.keys().next_back().unwrap();
            client.credit(stream, 500_000).unwrap();
            client.response(stream).unwrap().pattern.assert_complete(500_000);
        }
        origin.assert_clean();
    }
}

/// A backend that reads nothing of one upload until `free` lets it, and tells by `full` that the windows are used up by it.
fn unreading(free: &Arc<AtomicBool>, full: &Arc<AtomicBool>) -> H2Backend {
    let (free, full) = (Arc::clone(free), Arc::clone(full));
    let manners = Manners { withholds: true, ..Manners::default() };
    H2Backend::with(manners, move |call| {
        if call.path() == "/unread" {
            eventually("the windows are used up", seconds(10), || {
                call.request().pattern.len() == FIRST_WINDOW
            });
            full.store(true, Ordering::SeqCst);
            eventually("the upload may be read", seconds(60), || free.load(Ordering::SeqCst));
            call.credit(0, 1 << 20)?;
            call.credit(call.stream, 1 << 20)?;
            let seen = call.body()?.pattern.len();
            return call.respond(200, &[], seen.to_string().as_bytes());
        }
        let seen = call.body()?.pattern.len();
        if seen > 0 {
            call.credit(0, seen as u32)?;
        }
        call.respond(200, &[], seen.to_string().as_bytes())
    })
}

/// Uploads for so long that the window of their connection counts as left shut.
fn use_up(client: &mut H2Client, full: &AtomicBool) -> u32 {
    let unread = client.open("POST", "/unread", &[], false).unwrap();
    client.data(unread, &pattern::bytes(100_000), false).unwrap();
    eventually("the windows are used up", seconds(10), || full.load(Ordering::SeqCst));
    std::thread::sleep(ms(700));
    unread
}

/// An upload that its backend does not read may use up the window of the connection that it goes over: uploads of others take another.
pub(crate) fn unread_uploads_stall_no_other_client() {
    let (free, full) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let backend = unreading(&free, &full);
    let listener = Listener::h2c().h2_backend(backend.address);
    let gateway = Gateway::start(config().runtime("workers", 1).listener(listener));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    assert_eq!(client.get("/").unwrap().text(), "0");
    let unread = use_up(&mut client, &full);
    for round in 0..10 {
        let mut other = Front::connect(BOTH[round % 2], gateway.front()).unwrap();
        let answer = other.request("POST", "/", &[], &pattern::bytes(20_000));
        assert_eq!(answer.unwrap_or_else(|e| panic!("upload {round}: {e}")).text(), "20000");
        // What has no body needs no window.
        assert_eq!(other.get("/").unwrap().text(), "0");
    }
    assert_eq!(backend.connections(), 2, "one for the upload that nobody reads, and one for all others");
    free.store(true, Ordering::SeqCst);
    client.data(unread, &pattern::bytes(200_000)[100_000..], true).unwrap();
    assert_eq!(client.response(unread).unwrap().text(), "200000");
    backend.assert_clean();
}

/// The same with a cap of one connection to the backend: what cannot go elsewhere waits there, and is not refused.
pub(crate) fn unread_uploads_under_a_cap_of_connections() {
    let (free, full) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let backend = unreading(&free, &full);
    let pool = Pool::named("p")
        .block("limits", "max_connections", 1)
        .backend_with(backend.address, &[("protocol", "h2".toml())]);
    let gateway =
        Gateway::start(config().runtime("workers", 1).pool(pool).listener(Listener::h2c().pool("p")));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let unread = use_up(&mut client, &full);
    let mut other = H2Client::connect(gateway.front()).unwrap();
    let waiting = other.open("POST", "/", &[], false).unwrap();
    other.data(waiting, &pattern::bytes(20_000), true).unwrap();
    backend.wait_requests(2);
    assert_eq!(other.get("/").unwrap().text(), "0");
    free.store(true, Ordering::SeqCst);
    assert_eq!(other.response(waiting).unwrap().text(), "20000");
    client.data(unread, b"", true).unwrap();
    assert_eq!(client.response(unread).unwrap().text(), "100000");
    assert_eq!(backend.connections(), 1);
}

/// Uploads that their backend does not read hold the windows of their own streams; what they leave of their connection's window is
/// given back as fast as it is used.
pub(crate) fn unread_uploads_leave_the_rest_of_the_window() {
    let free = Arc::new(AtomicBool::new(false));
    let freed = Arc::clone(&free);
    let backend = H2Backend::start(move |call| {
        if call.path() == "/unread" {
            eventually("the upload may be read", seconds(60), || freed.load(Ordering::SeqCst));
        }
        let seen = call.body()?.pattern.len();
        call.respond(200, &[], seen.to_string().as_bytes())
    });
    let listener = Listener::h2c().h2_backend(backend.address);
    let gateway = Gateway::start(config().runtime("workers", 1).listener(listener));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    // Their windows are all but one sixteenth of the connection's mebibyte.
    let unread: Vec<u32> = (0..15).map(|_| client.open("POST", "/unread", &[], false).unwrap()).collect();
    for stream in &unread {
        let mut idle = 0;
        while idle < 4 {
            let room = client.send_windows.room(*stream).min(16_384);
            if room == 0 {
                idle += 1;
                client.pump(ms(25));
            } else {
                client.data(*stream, &vec![0; room], false).unwrap();
            }
        }
    }
    for round in 0..3 {
        let answer = client.request("POST", "/", &[], &pattern::bytes(400_000));
        assert_eq!(answer.unwrap_or_else(|e| panic!("upload {round}: {e}")).text(), "400000");
    }
    free.store(true, Ordering::SeqCst);
    backend.assert_clean();
}
