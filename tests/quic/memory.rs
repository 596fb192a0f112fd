//! The budget of what QUIC holds in memory for its peers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::h3::H3Response;
use testkit::quic::{QuicClient, QuicConnection, code_of};
use testkit::{H3Client, Listener, Usage, eventually, ms, seconds};

use crate::rig::{MIB, Rig, config};

/// What the gateway may hold.
const BUDGET: u64 = 2 * MIB;

/// What a connection may hold whatever the others do, and what one turn brings beyond that.
const EACH: u64 = 96 * 1024;

/// Uploads that no backend reads, of many clients: each window would let a mebibyte in.
pub(crate) fn uploads_that_nobody_reads_have_a_budget() {
    const CLIENTS: u64 = 48;
    const BODY: usize = 1 << 20;
    let reads = Arc::new(AtomicBool::new(false));
    let may_read = Arc::clone(&reads);
    let tune = |listener: Listener| {
        listener
            .h2("initial_stream_window_size", 2 * MIB)
            .h2("initial_connection_window_size", 4 * MIB)
            .http("header_timeout_ms", 60_000)
            .http("body_timeout_ms", 60_000)
            .http("write_timeout_ms", 60_000)
            .http("head_timeout_ms", 60_000)
    };
    let config = config().runtime("workers", 1).runtime("quic_buffer_bytes", BUDGET);
    let rig = Rig::of(
        testkit::Origin::start(testkit::Version::H1, move |exchange| {
            if exchange.method() == "POST" {
                while !may_read.load(Ordering::SeqCst) {
                    std::thread::sleep(ms(10));
                }
                let read = exchange.drain()?;
                assert_eq!(read.len(), BODY as u64);
            }
            exchange.respond(200, &[], b"one")
        }),
        config,
        tune,
    );
    let mut old = rig.client();
    assert_eq!(old.get("/").expect("an answer").status(), 200);
    let quic: Vec<QuicConnection> = (0..CLIENTS).map(|_| rig.quic()).collect();
    rig.assert_serves("nothing");
    let usage = Usage::watch(&rig.gateway);
    let uploads: Vec<_> =
        quic.into_iter().map(|quic| std::thread::spawn(move || upload(quic, BODY))).collect();
    eventually("the budget is used up", seconds(20), || {
        rig.gateway.metric("quic_buffered_bytes", &[]) >= BUDGET as f64
            && rig.gateway.metric("quic_unbuffered_datagrams_total", &[]) > 0.0
    });
    // Nobody new is let in; those that are here are served.
    let refused = QuicClient::default().connect(rig.gateway.front()).expect_err("no memory is left");
    assert_eq!(code_of(&refused), Some((false, 0x2)), "{refused:?}");
    assert!(rig.gateway.metric("accept_reject_total", &[("reason", "memory")]) >= 1.0);
    assert!(rig.gateway.metric("quic_stray_datagrams_total", &[("fate", "refused")]) >= 1.0);
    let line = "refused QUIC connection — memory for QUIC is used up";
    assert!(
        rig.gateway
            .process
            .stderr
            .wait(line, seconds(5))
            .is_some_and(|line| line.contains("quic_buffer_bytes"))
    );
    for _ in 0..20 {
        assert_eq!(old.get("/").expect("an answer").status(), 200);
        std::thread::sleep(ms(50));
    }
    let held = rig.gateway.metric("quic_buffered_bytes", &[]);
    assert!(held < (BUDGET + CLIENTS * EACH) as f64, "{held} bytes are held");
    usage.assert_grew_less_than(&rig.gateway, 16 * MIB);
    // All of them come to their end when the backend reads.
    reads.store(true, Ordering::SeqCst);
    for upload in uploads {
        assert_eq!(upload.join().expect("an upload").status(), 200);
    }
    eventually("memory is given back", seconds(10), || {
        QuicClient::default().connect(rig.gateway.front()).is_ok()
    });
    rig.assert_serves("the flood");
    eventually("nothing is held", seconds(20), || {
        rig.gateway.metric("quic_buffered_bytes", &[]) < MIB as f64
    });
}

fn upload(quic: QuicConnection, length: usize) -> H3Response {
    let mut client = H3Client::over(quic).expect("HTTP/3");
    let length_text = length.to_string();
    let id = client.open("POST", "/", &[("content-length", &length_text)], false).expect("a stream");
    client.data(id, &vec![7; length]).expect("the body is taken");
    client.end(id).expect("its end as well");
    client.response(id).expect("an answer")
}
