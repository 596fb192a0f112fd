//! The keys of `[listeners.websocket]`, each with what both ends are told.

use crate::attacks::{SWITCH, close_code, switched};
use crate::rig::{Cell, Rig, assert_closed};
use testkit::websocket::{to_client, to_server};
use testkit::{Backend, Config, Gateway, Listener, ms, seconds};

pub(crate) fn a_large_message_ends_with_1009(cell: Cell) {
    let rig = Rig::new(cell, &[("max_message_size_bytes", 1000)]);
    let fits = rig.client("echo", &["--count", "3", "--size", "1000", "--plain"]);
    assert_eq!(fits["right"], 3, "{fits}");
    let seen = rig.client("send_and_read", &["--size", "1001", "--plain"]);
    assert_eq!(seen["close"][0], 1009, "{seen}");
    rig.backend_closed(1009);
}

pub(crate) fn a_large_message_of_the_backend_ends_with_1009(cell: Cell) {
    let rig = Rig::new(cell, &[("max_message_size_bytes", 1000)]);
    let seen = rig.client("read", &["--path", "/flood/3", "--plain"]);
    assert_eq!(seen["close"][0], 1009, "{seen}");
    assert_eq!(seen["messages"].as_array().map(Vec::len), Some(0), "{seen}");
}

pub(crate) fn a_ping_flood_ends_with_1008(cell: Cell) {
    let rig = Rig::new(cell, &[("ping_rate_limit_per_window", 5), ("ping_rate_limit_window_seconds", 60)]);
    let seen = rig.client("flood", &["--count", "6"]);
    assert_closed(&seen, 1008, "ping flood: rate limit exceeded");
    rig.backend_closed(1008);
}

pub(crate) fn pings_within_the_limit_pass(cell: Cell) {
    let rig = Rig::new(cell, &[("ping_rate_limit_per_window", 5), ("ping_rate_limit_window_seconds", 60)]);
    let seen = rig.client("ping", &["--count", "5"]);
    assert_eq!((&seen["pongs"], &seen["close"][0]), (&5.into(), &1000.into()), "{seen}");
}

pub(crate) fn silence_ends_with_1001(cell: Cell) {
    let rig = Rig::new(cell, &[("idle_timeout_seconds", 1)]);
    let seen = rig.client("read", &["--seconds", "20"]);
    assert_closed(&seen, 1001, "idle timeout");
    rig.backend_closed(1001);
}

pub(crate) fn half_a_frame_ends_with_1008(cell: Cell) {
    let rig = Rig::new(cell, &[("read_frame_timeout_seconds", 1), ("idle_timeout_seconds", 60)]);
    let seen = rig.client("half_frame", &["--seconds", "20"]);
    assert_closed(&seen, 1008, "ws read frame timeout");
    // Between frames it may be silent for longer than a frame may take.
    let quiet = rig.client("read", &["--seconds", "2.5"]);
    assert_ne!(quiet["close"][0], 1008, "{quiet}");
}

/// The same key bounds how long what was read may wait for the other side to take it.
pub(crate) fn a_backend_that_takes_nothing_ends_with_1008(cell: Cell) {
    let rig = Rig::new(cell, &[("read_frame_timeout_seconds", 1), ("idle_timeout_seconds", 60)]);
    let size = (512_u64 << 20).to_string();
    let seen = rig.client("write_only", &["--path", "/deaf", "--size", &size, "--seconds", "20", "--plain"]);
    assert_eq!(seen["close"][0], 1008, "{seen}");
    rig.gateway.wait_metric("connections_inflight", &[], |value| value == 0.0);
}

/// A message is as large as its fragments together.
pub(crate) fn fragments_count_as_one_message() {
    let backend = Backend::start(|conn| {
        conn.head()?;
        conn.send(SWITCH)?;
        conn.hold(seconds(20));
        Ok(())
    });
    let listener = Listener::h1().websocket().block("websocket", "max_message_size_bytes", 1000);
    let gateway = Gateway::start(Config::new().listener(listener.backend(backend.address)));
    let mut client = switched(&gateway);
    let fragment = |first: u8, size: usize| {
        [&[first, 0xfe][..], &(size as u16).to_be_bytes(), &[0; 4], &vec![b'f'; size]].concat()
    };
    client.send([fragment(0x02, 500), fragment(0x00, 400), fragment(0x80, 200)].concat()).unwrap();
    assert_eq!(close_code(&mut client), Some(1009));
}

/// The time of a frame is its sender's: what the receiver takes to take it is not charged.
pub(crate) fn a_frame_may_take_as_long_as_its_receiver() {
    const SIZE: usize = 15_000_000;
    let message = to_client(vec![b'm'; SIZE]);
    let backend = Backend::start(move |conn| {
        conn.head()?;
        conn.send(SWITCH)?;
        conn.send(&message)?;
        conn.hold(seconds(10));
        Ok(())
    });
    let listener = Listener::h1().websocket().block("websocket", "read_frame_timeout_seconds", 1);
    let gateway = Gateway::start(Config::new().listener(listener.backend(backend.address)));
    let mut client = switched(&gateway);
    // More than twice as long as a frame may take, and never a second without progress.
    for _ in 0..10 {
        client.wire.exactly(SIZE / 20).unwrap();
        std::thread::sleep(ms(250));
    }
    client.wire.exactly(SIZE / 2).unwrap();
    client.send(to_server("still there")).unwrap();
    testkit::eventually("the tunnel stands", seconds(5), || backend.saw(&to_server("still there")));
}

/// Tunnels are counted while they stand, and by how they end.
pub(crate) fn ends_are_counted() {
    let backend = Backend::start(|conn| {
        conn.head()?;
        conn.send(SWITCH)?;
        conn.hold(seconds(20));
        Ok(())
    });
    let gateway = Gateway::start(Config::new().listener(Listener::h1().websocket().backend(backend.address)));
    let ended = |reason| gateway.metric("websocket_tunnels_ended_total", &[("reason", reason)]);
    assert_eq!((gateway.metric("websocket_tunnels", &[]), ended("done")), (0.0, 0.0));
    let (mut first, second, mut third) = (switched(&gateway), switched(&gateway), switched(&gateway));
    assert_eq!(gateway.metric("websocket_tunnels", &[]), 3.0);
    first.finish();
    first.closed(seconds(5)).unwrap();
    second.reset();
    third.send(b"\x81\x02hi").unwrap();
    assert_eq!(close_code(&mut third), Some(1002));
    gateway.wait_metric("websocket_tunnels", &[], |open| open == 0.0);
    assert_eq!((ended("done"), ended("cut"), ended("protocol_error")), (1.0, 1.0, 1.0));
}
