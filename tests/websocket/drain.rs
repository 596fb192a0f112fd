//! Tunnels at the end of the gateway.

use crate::attacks::{SWITCH, switched};
use crate::rig::{Cell, Rig, assert_closed};
use testkit::process::SIGTERM;
use testkit::websocket::{read, to_client, to_server};
use testkit::{Backend, Config, Gateway, Listener, seconds};

pub(crate) fn the_end_of_a_drain_ends_with_1001(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    let seen = std::thread::scope(|scope| {
        let client = scope.spawn(|| rig.client("read", &["--seconds", "20"]));
        rig.gateway.wait_metric("websocket_tunnels", &[], |open| open == 1.0);
        rig.gateway.process.signal(SIGTERM);
        client.join().unwrap()
    });
    assert_closed(&seen, 1001, "going away");
    rig.backend_closed(1001);
    // Until then it was given its time.
    assert!(seen["seconds"].as_f64().unwrap() > 2.0, "{seen}");
}

/// Nothing can be said in the middle of somebody's frame: the word comes when the frame has ended.
pub(crate) fn a_tunnel_within_a_frame_is_told_when_it_ends() {
    let backend = Backend::start(|conn| {
        conn.head()?;
        conn.send(SWITCH)?;
        while let Some((first, payload)) = read(&mut conn.wire)? {
            if first == 0x88 {
                assert_eq!(payload, b"\x03\xe9going away");
                return Ok(());
            }
            conn.send(to_client(payload))?;
        }
        Ok(())
    });
    let listener = Listener::h1().websocket().backend(backend.address);
    let config = Config::new().runtime("readiness_settle_ms", 0).runtime("drain_timeout_ms", 4000);
    let mut gateway = Gateway::start(config.listener(listener));
    let mut client = switched(&gateway);
    let message = to_server("a message in two parts");
    let (now, later) = message.split_at(10);
    client.send(now).unwrap();
    testkit::eventually("the first part arrives", seconds(5), || backend.saw(now));
    gateway.process.signal(SIGTERM);
    // A second before the end of the drain the gateway would like to say farewell.
    std::thread::sleep(testkit::ms(3300));
    client.send(later).unwrap();
    while let Some((first, payload)) = read(&mut client.wire).unwrap() {
        if first == 0x88 {
            assert_eq!(payload, b"\x03\xe9going away");
            break;
        }
    }
    client.finish();
    client.closed(seconds(5)).unwrap();
    testkit::eventually("the frame arrives", seconds(5), || backend.saw(&message));
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
    backend.assert_clean();
}
