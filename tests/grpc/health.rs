//! Health checks, answered by the gateway from what it knows of its backends.

use crate::rig::{Front, Rig, assert_code};
use serde_json::json;
use testkit::{Peer, seconds};

pub(crate) fn health_is_that_of_the_backends(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    let seen = rig.call("health", &[]);
    assert_code(&seen, "OK");
    // The backend itself would say NOT_SERVING.
    assert_eq!(seen["messages"], json!(["SERVING"]), "{seen}");
    assert!(server.events("call").is_empty());
    assert_code(&rig.call("health", &["--option", "no.such.Service"]), "NOT_FOUND");
    drop(server);
    testkit::eventually("NOT_SERVING after the backend's end", seconds(20), || {
        rig.call("raw", &["--path", "/test.Echo/Unary"]);
        rig.call("health", &[])["messages"] == json!(["NOT_SERVING"])
    });
}

pub(crate) fn health_may_be_left_to_the_backend(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::with(front, |listener| {
        listener.block("grpc", "health_synthesized", false).h2_backend(server.address)
    });
    assert_eq!(rig.call("health", &[])["messages"], json!(["NOT_SERVING"]));
    assert_eq!(rig.call("health", &["--option", "test.Echo"])["messages"], json!(["SERVING"]));
}

pub(crate) fn a_watch_sees_changes(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    let seen = std::thread::scope(|scope| {
        let watching = scope.spawn(|| rig.call("watch", &["--count", "2", "--seconds", "20"]));
        std::thread::sleep(seconds(2));
        drop(server);
        for _ in 0..5 {
            rig.call("raw", &["--path", "/test.Echo/Unary"]);
        }
        watching.join().unwrap()
    });
    assert_eq!(seen["messages"], json!(["SERVING", "NOT_SERVING"]), "{seen}");
}
