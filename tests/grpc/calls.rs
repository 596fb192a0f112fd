//! Calls that nothing is wrong with.

use crate::rig::{Front, Rig, assert_code};
use serde_json::json;
use testkit::client::chunk;
use testkit::peers::{Certificate, scenario};
use testkit::{Backend, Config, Gateway, Listener, Peer, seconds};

/// What the other cases ask of client and server, asked with nothing in between.
pub(crate) fn the_peers_agree_without_a_gateway() {
    let certificate = Certificate::localhost();
    let (chain, key) = (certificate.chain.display().to_string(), certificate.key.display().to_string());
    let plain = Peer::start("grpc_server.py", &[]);
    let tls = Peer::start("grpc_server.py", &["--cert", &chain, "--key", &key]);
    let raw = Peer::start("h2_server.py", &["--cert", &chain, "--key", &key]);
    let trust: [&[&str]; 2] = [&[], &["--ca", &chain]];
    for (server, trust) in [&plain, &tls].into_iter().zip(trust) {
        let call =
            |name, args: &[&str]| scenario("grpc_client.py", server.address, name, &[trust, args].concat());
        for kind in ["unary", "client_stream", "server_stream", "bidi", "head_first"] {
            assert_code(&call(kind, &["--count", "3"]), "OK");
        }
        assert_code(&call("fail_late", &[]), "DATA_LOSS");
        assert_code(&call("deadline", &["--option", "0.2"]), "DEADLINE_EXCEEDED");
        assert_code(&call("cancel_streaming", &[]), "CANCELLED");
        server.wait_event("cancelled", seconds(5), |event| event["method"] == "HangStreaming");
        assert_eq!(call("health", &[])["messages"], json!(["NOT_SERVING"]));
    }
    for (path, code) in
        [("/grpc/status/5", "NOT_FOUND"), ("/grpc/ok-reset", "OK"), ("/grpc/reset/11", "RESOURCE_EXHAUSTED")]
    {
        assert_code(&scenario("grpc_client.py", raw.address, "raw", &["--ca", &chain, "--path", path]), code);
    }
}

pub(crate) fn all_four_kinds(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    let unary = rig.call("unary", &["--size", "1000"]);
    assert_code(&unary, "OK");
    assert_eq!(unary["messages"], json!(["m".repeat(1000)]));
    let up = rig.call("client_stream", &["--count", "300", "--size", "10000"]);
    assert_code(&up, "OK");
    assert_eq!(up["messages"], json!(["300 messages, 3000000 bytes"]));
    let down = rig.call("server_stream", &["--count", "300", "--size", "10000"]);
    assert_code(&down, "OK");
    assert_eq!(down["messages"], json!(vec!["10000 bytes"; 300]));
    let both = rig.call("bidi", &["--count", "50", "--size", "5000"]);
    assert_code(&both, "OK");
    assert_eq!(both["messages"].as_array().unwrap().len(), 50);
}

pub(crate) fn messages_flow_both_ways_at_once(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    // The client sends each message only once the one before has come back.
    let seen = rig.call("bidi", &["--count", "20"]);
    assert_code(&seen, "OK");
    let wanted: Vec<String> = (0..20).map(|number| format!("message {number}")).collect();
    assert_eq!(seen["messages"], json!(wanted));
}

pub(crate) fn the_server_may_speak_first(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    // The client sends nothing until the server's head and first message are there: no body is read ahead, no head held back.
    let seen = rig.call("head_first", &["--count", "2"]);
    assert_code(&seen, "OK");
    assert_eq!(seen["messages"], json!(["first", "message 0", "message 1"]));
}

pub(crate) fn metadata_and_trailers_pass(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    let seen = rig.call("unary", &[]);
    assert_code(&seen, "OK");
    assert_eq!(seen["initial"]["x-echo-a"], "one", "{seen}");
    assert_eq!(seen["initial"]["x-echo-b-bin"], "0001ff", "{seen}");
    assert_eq!(seen["trailing"]["x-trailer"], "done", "{seen}");
    assert_eq!(seen["trailing"]["x-binary-bin"], "00ff", "{seen}");
}

pub(crate) fn trailers_only_answers_pass(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    let seen = rig.call("fail", &["--option", r#"{"code": 9, "message": "not now: 100% é"}"#]);
    assert_code(&seen, "FAILED_PRECONDITION");
    assert_eq!(seen["details"], "not now: 100% é");
    assert_eq!(seen["trailing"]["x-trailer"], "failed", "{seen}");
    assert_code(&rig.call("unknown", &[]), "UNIMPLEMENTED");
}

pub(crate) fn an_error_after_messages_passes(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    let seen = rig.call("fail_late", &[]);
    assert_code(&seen, "DATA_LOSS");
    assert_eq!(seen["messages"], json!(["one"]));
    assert_eq!(seen["details"], "half way, 100%\nand on");
}

pub(crate) fn calls_share_a_connection(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    assert_eq!(rig.call("many", &["--count", "200"])["right"], 200);
}

pub(crate) fn calls_are_counted_by_status(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    rig.call("many", &["--count", "3"]);
    rig.call("fail", &["--option", r#"{"code": 9, "message": "no"}"#]);
    let counted = |status: &str, name: &str, count: &str| {
        let text = rig.gateway.admin_get("/metrics").text();
        let label =
            |line: &str| line.contains(&format!("=\"{status}\"")) || line.contains(&format!("=\"{name}\""));
        text.lines().any(|line| line.contains("grpc") && label(line) && line.ends_with(&format!(" {count}")))
    };
    testkit::eventually("three calls with status 0", seconds(5), || counted("0", "OK", "3"));
    testkit::eventually("one call with status 9", seconds(5), || counted("9", "FAILED_PRECONDITION", "1"));
}

/// HTTP/1.1 has trailers too: a backend that ends its chunked body with them can serve a call.
pub(crate) fn an_h1_backend_may_serve_calls() {
    let backend = Backend::each(|request, conn| {
        assert_eq!(request.header("content-type").as_deref(), Some("application/grpc"));
        assert!(request.head.headers.lists("te", "trailers"), "a backend needs leave to send trailers");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n";
        conn.send(
            [head.as_bytes(), &chunk(&request.body), b"0\r\ngrpc-status: 0\r\nx-trailer: h1\r\n\r\n"]
                .concat(),
        )
    });
    let rig = Rig::with(Front::Plain, |listener| listener.backend(backend.address));
    let seen = rig.call("unary", &[]);
    assert_code(&seen, "OK");
    assert_eq!(seen["messages"], json!(["m".repeat(16)]));
    assert_eq!(seen["trailing"]["x-trailer"], "h1");
}

pub(crate) fn an_h1_client_gets_the_trailers() {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(Front::Plain, server.address);
    let mut client = rig.gateway.client();
    let fields = [("Content-Type", "application/grpc"), ("TE", "trailers"), ("Connection", "TE")];
    let message = b"\0\0\0\0\x02hi";
    let response = client.request("POST", "/test.Echo/Unary", &fields, message).unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &message[..]));
    assert_eq!(response.trailers.get("grpc-status").as_deref(), Some("0"), "{:?}", response.trailers);
}

/// Those that a backend gives in its head alone, and those that the gateway gives in its place.
pub(crate) fn an_h1_client_is_told_every_end() {
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::with(Front::Plain, |listener| {
        listener.block("grpc", "max_deadline_seconds", 3).h2_backend(server.address)
    });
    let mut client = rig.gateway.client();
    let fields = [("Content-Type", "application/grpc"), ("TE", "trailers"), ("Connection", "TE")];
    let timed = [&fields[..], &[("grpc-timeout", "1H")]].concat();
    for (path, status) in [("/grpc/status/5", "5"), ("/grpc/http/503", "14"), ("/grpc/hang", "4")] {
        let response = client.request("POST", path, &timed, b"").unwrap();
        assert_eq!(
            (response.status, response.header("grpc-status").as_deref()),
            (200, Some(status)),
            "{path}"
        );
    }
    let response = client.request("POST", "/grpc/hang/head", &timed, b"").unwrap();
    assert_eq!(response.trailers.get("grpc-status").as_deref(), Some("4"), "{:?}", response.trailers);
    assert_eq!(&response.body[..], b"\0\0\0\0\0");
}

pub(crate) fn disabled_grpc_is_plain_http() {
    let server = Peer::start("grpc_server.py", &[]);
    let listener = Listener::h2c().block("grpc", "enabled", false).h2_backend(server.address);
    let gateway = Gateway::start(Config::new().listener(listener));
    let health = scenario("grpc_client.py", gateway.front(), "health", &[]);
    // The backend's own answer, which differs from what the gateway would say.
    assert_eq!(health["messages"], json!(["NOT_SERVING"]), "{health}");
}
