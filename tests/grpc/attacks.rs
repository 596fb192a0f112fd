//! Row C-14 of the attack table, and memory.

use crate::rig::{Front, Rig, assert_code};
use serde_json::json;
use std::io::Write;
use testkit::{Peer, Usage};

const MIB: u64 = 1 << 20;

pub(crate) fn c_14_malformed_timeouts_are_refused(front: Front) {
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::new(front, server.address);
    for bad in ["", "5", "S", "-1S", "1.5S", "5s", "999999999S", "18446744073709551616S", "0x10S", "5 S"] {
        // curl's way to write a field without a value ends in a semicolon.
        let field = if bad.is_empty() { "grpc-timeout;".to_owned() } else { format!("grpc-timeout: {bad}") };
        // No body: curl 7.88 fails or hangs when it is answered before it has sent its own.
        let raw = rig.curl("/grpc/status/0", &["-X", "POST", "-H", &field]);
        let head = raw.stdout.to_ascii_lowercase();
        assert!(head.contains("grpc-status: 3"), "{bad:?}: {head} {}", raw.stderr);
    }
    assert!(server.events("request").is_empty(), "a call whose deadline is unknown was made");
    // The largest that can be said is no reason to fail; it is clamped.
    let raw = rig.curl("/grpc/status/0", &["--data-binary", "x", "-H", "grpc-timeout: 99999999H"]);
    assert!(raw.stdout.contains("grpc-status: 0"), "{}", raw.stdout);
    let fields = server.events("request")[0]["fields"].to_string();
    assert!(
        fields.contains(r#"["grpc-timeout","2999"#) || fields.contains(r#"["grpc-timeout","300"#),
        "{fields}"
    );
}

pub(crate) fn c_14_a_reset_after_ok_is_ok(front: Front) {
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::new(front, server.address);
    for _ in 0..3 {
        assert_code(&rig.call("raw", &["--path", "/grpc/ok-reset"]), "OK");
    }
}

pub(crate) fn c_14_trailers_only_of_every_status(front: Front) {
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::new(front, server.address);
    for status in 0..=16 {
        let raw = rig.curl(&format!("/grpc/status/{status}"), &["--data-binary", "x"]);
        let head = raw.stdout.to_ascii_lowercase();
        assert!(
            head.contains(&format!("grpc-status: {status}\r"))
                || head.contains(&format!("grpc-status: {status}\n")),
            "{head}"
        );
        assert!(head.contains("grpc-message: said%20so"), "{head}");
    }
}

pub(crate) fn c_14_prefixes_of_4_gib_cost_nothing() {
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::new(Front::Plain, server.address);
    rig.call("raw", &["--path", "/grpc/ok-reset"]);
    let usage = Usage::watch(&rig.gateway);
    let mut claim = tempfile::NamedTempFile::new().unwrap();
    claim.write_all(&[&b"\0\xff\xff\xff\xff"[..], &[0x0a; 4096]].concat()).unwrap();
    let body = format!("@{}", claim.path().display());
    for _ in 0..20 {
        // From the client, in a message that passes and in one that the gateway answers itself.
        let raw = rig.curl("/grpc/status/0", &["--data-binary", &body]);
        assert!(raw.stdout.contains("grpc-status: 0"), "{} {}", raw.stdout, raw.stderr);
        let health = rig.curl("/grpc.health.v1.Health/Check", &["--data-binary", &body]);
        let head = health.stdout.to_ascii_lowercase();
        assert!(head.contains("grpc-status: ") && !head.contains("grpc-status: 0"), "{head}");
        // From the backend.
        let raw = rig.curl("/grpc/prefix", &["--data-binary", "x"]);
        assert!(raw.stdout.contains("grpc-status: 0"), "{} {}", raw.stdout, raw.stderr);
    }
    usage.assert_grew_less_than(&rig.gateway, 8 * MIB);
}

pub(crate) fn large_messages_cost_no_memory() {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(Front::Plain, server.address);
    rig.call("unary", &[]);
    let usage = Usage::watch(&rig.gateway);
    let size = 50 * MIB;
    let args = ["--count", "4", "--size", &size.to_string()];
    let up = rig.call("client_stream", &args);
    assert_eq!(up["messages"], json!([format!("4 messages, {} bytes", 4 * size)]), "{up}");
    let down = rig.call("server_stream", &args);
    assert_eq!(down["messages"], json!(vec![format!("{size} bytes"); 4]), "{down}");
    usage.assert_grew_less_than(&rig.gateway, 32 * MIB);
}
