//! Transports that fail.

use crate::rig::{Front, Rig, assert_code};
use testkit::Peer;
use testkit::backend::BlackHole;

pub(crate) fn an_unreachable_backend_is_unavailable(front: Front) {
    let rig = Rig::new(front, testkit::ports::reserve());
    assert_code(&rig.call("raw", &["--path", "/test.Echo/Unary"]), "UNAVAILABLE");
    // Said in HTTP 200 and trailers only, for clients that look at nothing else.
    // Without a body: curl 7.88 fails or hangs when it is answered before it has sent its own.
    let raw = rig.curl("/test.Echo/Unary", &["-X", "POST"]);
    let head = raw.stdout.to_ascii_lowercase();
    assert!(head.starts_with("http/2 200"), "{head}");
    assert!(head.contains("content-type: application/grpc") && head.contains("grpc-status: 14"), "{head}");

    let hole = BlackHole::start();
    let rig = Rig::new(front, hole.address);
    let seen = rig.call("raw", &["--path", "/test.Echo/Unary", "--option", "50"]);
    assert_code(&seen, "UNAVAILABLE");
}

pub(crate) fn a_lost_connection_is_unavailable(front: Front) {
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::new(front, server.address);
    assert_code(&rig.call("raw", &["--path", "/grpc/cut"]), "UNAVAILABLE");
}

pub(crate) fn resets_are_mapped(front: Front) {
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::new(front, server.address);
    for (error_code, status) in
        [(2, "INTERNAL"), (8, "CANCELLED"), (11, "RESOURCE_EXHAUSTED"), (12, "PERMISSION_DENIED")]
    {
        let seen = rig.call("raw", &["--path", &format!("/grpc/reset/{error_code}")]);
        assert_code(&seen, status);
    }
}

pub(crate) fn plain_http_answers_are_mapped(front: Front) {
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::new(front, server.address);
    for (http, status) in [
        (400, "INTERNAL"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "UNIMPLEMENTED"),
        (429, "UNAVAILABLE"),
        (503, "UNAVAILABLE"),
        (418, "UNKNOWN"),
    ] {
        let seen = rig.call("raw", &["--path", &format!("/grpc/http/{http}")]);
        assert_code(&seen, status);
    }
    // Told in the words of gRPC, not left to the client.
    let raw = rig.curl("/grpc/http/404", &["-X", "POST"]);
    let head = raw.stdout.to_ascii_lowercase();
    assert!(head.starts_with("http/2 200") && head.contains("grpc-status: 12"), "{head}");
}

pub(crate) fn refusals_are_told_as_statuses(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::with(front, |listener| {
        let listener = listener.block("h2_security", "max_header_list_size", 16_384);
        listener.http("max_request_body_bytes", 10_000).h2_backend(server.address)
    });
    assert_code(&rig.call("unary", &["--size", "9000"]), "OK");
    assert_code(&rig.call("unary", &["--size", "11000"]), "RESOURCE_EXHAUSTED");
    // A head that is too large is refused before there is a call.
    let large = format!("x-large: {}", "x".repeat(9_000));
    let raw = rig.curl("/test.Echo/Unary", &["-X", "POST", "-H", &large, "-H", &large.replace("-l", "-m")]);
    let head = raw.stdout.to_ascii_lowercase();
    assert!(head.starts_with("http/2 200") && head.contains("grpc-status: 8"), "{head} {}", raw.stderr);
}

pub(crate) fn a_refused_call_is_made_again(front: Front) {
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::new(front, server.address);
    // The backend says that it has done nothing with the request, so another try is safe, whatever the method.
    let raw = rig.curl("/refuse-first", &["--data-binary", "x"]);
    assert!(raw.stdout.to_ascii_lowercase().starts_with("http/2 200"), "{}", raw.stdout);
    let raw = rig.curl("/goaway-first", &["--data-binary", "x"]);
    assert!(raw.stdout.to_ascii_lowercase().starts_with("http/2 200"), "{}", raw.stdout);
    assert_eq!(server.events("request").len(), 4);
}
