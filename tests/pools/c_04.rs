//! Attack C-04: backends that mean ill to whoever checks their health.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use testkit::{Backend, Fault, Gateway, H2Backend, Usage, ms, seconds};

use crate::health_rig::{Pool, probes, wait_health, wait_probes};

const MIB: u64 = 1024 * 1024;

/// Memory and descriptors are those of the start, however long this goes on.
struct Watch {
    usage: Usage,
    descriptors: usize,
}

impl Watch {
    fn begin(gateway: &Gateway) -> Watch {
        Watch { usage: Usage::watch(gateway), descriptors: gateway.process.open_fds() }
    }

    #[track_caller]
    fn end(self, gateway: &Gateway) {
        self.usage.assert_grew_less_than(gateway, 16 * MIB);
        let now = gateway.process.open_fds();
        // One probe may be under way, and one scrape.
        assert!(now <= self.descriptors + 3, "{now} descriptors, {} before", self.descriptors);
    }
}

/// Accepts and never answers. Each probe is given up in time, and there is never a second one beside it.
pub(crate) fn tar_pit() {
    let tar_pit = Backend::start(|conn| {
        conn.hold(seconds(60));
        Ok(())
    });
    let other = Backend::standard("other");
    for (kind, lines) in [("http", ""), ("grpc", "")] {
        let gateway = Pool::probed(kind, lines).h1(tar_pit.address).h1(other.address).gateway();
        wait_health(&gateway, tar_pit.address, false);
        let watch = Watch::begin(&gateway);
        let goal = probes(&gateway, tar_pit.address, "timeout") + 10.0;
        testkit::eventually("ten more probes that time out", seconds(30), || {
            // The one before may not have been noticed to be gone yet.
            assert!(tar_pit.open_connections() <= 2, "{} at once", tar_pit.open_connections());
            probes(&gateway, tar_pit.address, "timeout") >= goal
        });
        watch.end(&gateway);
        drop(gateway);
        testkit::eventually("no connection is left", seconds(20), || tar_pit.open_connections() == 0);
    }
}

/// Sends one byte after the other, in time each but never done in all.
pub(crate) fn a_trickle_ends_with_the_probe() {
    let trickle = Backend::each(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
        loop {
            conn.send("x")?;
            conn.pause(ms(10));
        }
    });
    let gateway = Pool::probed("http", "").h1(trickle.address).gateway();
    wait_health(&gateway, trickle.address, false);
    assert!(probes(&gateway, trickle.address, "timeout") >= 1.0);
}

/// A body of a gibibyte is read to the limit, and the connection is cut.
pub(crate) fn a_gibibyte_is_not_read() {
    for (lines, result) in
        [("max_body_bytes = 65536", "passed"), ("max_body_bytes = 65536\nbody_contains = \"absent\"", "body")]
    {
        for framing in ["Content-Length: 1073741824", "Transfer-Encoding: chunked"] {
            let (sent, chunked) = (Arc::new(AtomicU64::new(0)), framing.starts_with('T'));
            let counted = Arc::clone(&sent);
            let server = Backend::each(move |_, conn| {
                conn.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"))?;
                let piece = vec![b'x'; 65_536];
                for _ in 0..16_384 {
                    if chunked {
                        conn.send("10000\r\n")?;
                    }
                    conn.send(&piece)?;
                    if chunked {
                        conn.send("\r\n")?;
                    }
                    counted.fetch_add(65_536, SeqCst);
                }
                Ok(())
            });
            // A judgement by rise and fall is not the subject here: each probe counts.
            let health = format!("type = \"http\"\ninterval_ms = 500\ntimeout_ms = 500\n{lines}");
            let gateway = Pool::with_health(&health).h1(server.address).gateway();
            let watch = Watch::begin(&gateway);
            wait_probes(&gateway, server.address, result, 6.0);
            watch.end(&gateway);
            // What is beyond the limit fills the buffers of the kernel at most.
            let each = sent.load(SeqCst) / u64::try_from(server.connections()).unwrap();
            assert!(each < 32 * MIB, "{each} bytes for each probe ({framing}, {result})");
        }
    }
}

/// The same over HTTP/2, where the window ends it.
pub(crate) fn a_gibibyte_over_http_2_is_not_read() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let server = H2Backend::start(move |call| {
        call.body()?;
        call.head(200, &[], false)?;
        for _ in 0..65_536 {
            call.data(&[b'x'; 16_384], false)?;
            counted.fetch_add(16_384, SeqCst);
        }
        Ok(())
    });
    let health = "type = \"http\"\ninterval_ms = 500\ntimeout_ms = 500\nmax_body_bytes = 65536";
    let gateway = Pool::with_health(health).h2(server.address).gateway();
    let watch = Watch::begin(&gateway);
    wait_probes(&gateway, server.address, "passed", 6.0);
    watch.end(&gateway);
    let each = sent.load(SeqCst) / u64::try_from(server.connections()).unwrap();
    assert!(each <= 256 * 1024, "{each} bytes for each probe");
}

/// Heads, trailers, interim responses and framing without an end.
pub(crate) fn what_has_no_end_is_malformed() {
    type Script = fn(&mut testkit::backend::Conn) -> Result<(), Fault>;
    let scripts: [(&str, Script); 4] = [
        ("fields", |conn| {
            conn.send("HTTP/1.1 200 OK\r\n")?;
            loop {
                conn.send("X-Field: value\r\n".repeat(100))?;
            }
        }),
        ("one field", |conn| {
            conn.send("HTTP/1.1 200 OK\r\nX-Field: ")?;
            loop {
                conn.send([b'x'; 4096])?;
            }
        }),
        ("interim responses", |conn| {
            loop {
                conn.send("HTTP/1.1 102 Processing\r\n\r\n".repeat(100))?;
            }
        }),
        ("chunk extensions", |conn| {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")?;
            loop {
                conn.send([b'x'; 4096])?;
            }
        }),
    ];
    for (what, script) in scripts {
        let server = Backend::each(move |_, conn| script(conn));
        let health = "type = \"http\"\ninterval_ms = 500\ntimeout_ms = 500\nfall = 1";
        let gateway = Pool::with_health(health).h1(server.address).gateway();
        let watch = Watch::begin(&gateway);
        wait_health(&gateway, server.address, false);
        testkit::eventually(&format!("{what}: malformed"), seconds(20), || {
            probes(&gateway, server.address, "malformed") >= 4.0
        });
        watch.end(&gateway);
    }
}

/// Frames that carry nothing, for ever.
pub(crate) fn http_2_floods_end_with_the_probe() {
    use testkit::h2::frame;
    let floods = [frame::ping([0; 8]), frame::settings(&[]), frame::frame(0xfa, 0, 0, [0; 64])];
    for (number, flood) in floods.into_iter().enumerate() {
        let server = H2Backend::raw(move |reader, _| {
            reader.wire.send(&frame::settings(&[]))?;
            let many = flood.repeat(50);
            loop {
                reader.wire.send(&many)?;
            }
        });
        let health = "type = \"grpc\"\ninterval_ms = 500\ntimeout_ms = 500\nfall = 1";
        let gateway = Pool::with_health(health).h2(server.address).gateway();
        let watch = Watch::begin(&gateway);
        wait_health(&gateway, server.address, false);
        testkit::eventually(&format!("probes under flood {number}"), seconds(20), || {
            server.connections() >= 5
        });
        watch.end(&gateway);
    }
}

/// Every other probe fails: that is no reason for any change after the first.
pub(crate) fn flapping_changes_nothing() {
    let count = Arc::new(AtomicUsize::new(0));
    let server = Backend::each(move |request, conn| match request.target() {
        "/health" if count.fetch_add(1, SeqCst) % 2 == 1 => conn.respond(503, &[], b""),
        _ => conn.respond(200, &[], b"well"),
    });
    let health =
        "type = \"http\"\npath = \"/health\"\ninterval_ms = 200\ntimeout_ms = 200\nrise = 5\nfall = 5";
    let gateway = Pool::with_health(health).h1(server.address).gateway();
    wait_probes(&gateway, server.address, "status", 10.0);
    assert!(probes(&gateway, server.address, "passed") >= 9.0);
    wait_health(&gateway, server.address, true);
    assert_eq!(gateway.process.stderr.wait_count("backend health changed", 1), 1, "the first verdict");
    assert_eq!(gateway.get("/").text(), "well");
}

/// Whoever closes at once, resets, or speaks something else is not well, and costs no more than others.
pub(crate) fn other_ends() {
    type Script = fn(&mut testkit::backend::Conn) -> Result<(), Fault>;
    let scripts: [(&str, Script, &str); 5] = [
        ("closes at once", |_| Ok(()), "closed"),
        (
            "closes in its head",
            |conn| {
                conn.request()?;
                conn.send("HTTP/1.1 200 OK\r\nX-")
            },
            "closed",
        ),
        (
            "closes in its body",
            |conn| {
                conn.request()?;
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234")
            },
            "closed",
        ),
        (
            "speaks something else",
            |conn| {
                conn.request()?;
                conn.send("220 mail.test ESMTP\r\n")
            },
            "malformed",
        ),
        (
            "switches protocols",
            |conn| {
                conn.request()?;
                conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            },
            "status",
        ),
    ];
    for (what, script, result) in scripts {
        let server = Backend::start(script);
        let gateway = Pool::probed("http", "").h1(server.address).gateway();
        wait_health(&gateway, server.address, false);
        testkit::eventually(&format!("{what}: {result}"), seconds(10), || {
            probes(&gateway, server.address, result) >= 2.0
        });
    }
}
